"""What the keeper found out by waiting, proposed to the registry until it is written.

Nothing is lost while the store is out of reach, and nothing queues up: of each subject only the newest proposal counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Final

from adsum.core.backoff import Backoff
from adsum.core.catalog.decisions import Decision
from adsum.core.errors import AdsumError, Overloaded, StoreUnavailable
from adsum.ports import Clock
from adsum.registry import Registry

MAX_PROPOSALS_PER_ROUND: Final = 1_000
"""How many proposals are written together; the rest waits for the next round."""
INITIAL_RETRY_DELAY: Final = 0.5
MAX_RETRY_DELAY: Final = 15.0
"""How long to wait before trying an unavailable store again, in seconds, at first and at most."""

_log = logging.getLogger("adsum.keeper")


@dataclass(frozen=True, slots=True)
class _Proposal:
    decision: Decision
    refused: Callable[[], None] | None


class Proposals:
    """The decisions that wait to be written, the newest of each subject."""

    def __init__(self, registry: Registry, clock: Clock, rng: Random) -> None:
        self._registry = registry
        self._clock = clock
        self._rng = rng
        self._backoff = Backoff(INITIAL_RETRY_DELAY, MAX_RETRY_DELAY)
        self._waiting: dict[Hashable, _Proposal] = {}
        self._work = asyncio.Event()
        self._failing = False
        self._resting = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, subject: Hashable, decision: Decision, on_refused: Callable[[], None] | None = None) -> None:
        """Propose `decision`, in place of what waits on the same subject.

        `refused` is called each time that the store can't be reached, and at once as long as we rest because of that;
        the proposal is then made again.
        """
        self._waiting[subject] = _Proposal(decision, on_refused)
        self._work.set()
        if self._resting and on_refused is not None:
            on_refused()

    def has(self, subject: Hashable) -> bool:
        """Whether a proposal on the subject waits to be written."""
        return subject in self._waiting

    async def round(self) -> None:
        """Wait until there is something to propose, and write it; if that can't be, wait before the next round."""
        await self._work.wait()
        batch = [
            (subject, self._waiting.pop(subject)) for subject in list(islice(self._waiting, MAX_PROPOSALS_PER_ROUND))
        ]
        if not self._waiting:
            self._work.clear()
        writes = (self._registry.write(proposal.decision) for _, proposal in batch)
        results = await asyncio.gather(*writes, return_exceptions=True)
        trouble: BaseException | None = None
        for (subject, proposal), result in zip(batch, results, strict=True):
            if isinstance(result, BaseException) and not _final(result):
                trouble = result
                self._again(subject, proposal)
        await self._rest(trouble)

    def _again(self, subject: Hashable, proposal: _Proposal) -> None:
        if subject not in self._waiting:
            self._waiting[subject] = proposal
        self._work.set()
        if proposal.refused is not None:
            proposal.refused()

    async def _rest(self, trouble: BaseException | None) -> None:
        if trouble is None:
            # A round that had nothing to write any more says nothing of the store.
            if self._failing and not self._registry.is_refusing_writes:
                _log.info("the store is back; %d proposals still wait", len(self._waiting))
                self._failing = False
            self._backoff.reset()
            return
        if not isinstance(trouble, StoreUnavailable | Overloaded):
            raise trouble
        if not self._failing:
            _log.warning("nobody is expired while nothing can be written: %s; %d wait", trouble, len(self._waiting))
        self._failing = True
        self._resting = True
        try:
            await self._clock.sleep(self._backoff.next(self._rng))
        finally:
            self._resting = False


def _final(error: BaseException) -> bool:
    """Whether a rule said no: then there is nothing to say any more."""
    return isinstance(error, AdsumError) and not isinstance(error, StoreUnavailable | Overloaded)
