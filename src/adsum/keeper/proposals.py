"""The keeper's proposals: changes that wait until the registry has written them.

Nothing is lost while the store can't be reached, and no queue grows: of each subject only the newest proposal waits.
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
from adsum.outage_log import OutageLog
from adsum.ports import Clock
from adsum.registry import Registry

MAX_PROPOSALS_PER_ROUND: Final = 1_000
"""Proposals that are written together. The rest waits for the next round."""
INITIAL_RETRY_DELAY: Final = 0.5
MAX_RETRY_DELAY: Final = 15.0
"""Seconds before a write is retried after the store was unavailable, at first and at most."""

_log = logging.getLogger("adsum.keeper")


@dataclass(frozen=True, slots=True)
class _Proposal:
    decision: Decision
    on_refused: Callable[[], None] | None


class Proposals:
    """The decisions that wait to be written, at most one for each subject."""

    def __init__(self, registry: Registry, clock: Clock, rng: Random) -> None:
        self._registry = registry
        self._clock = clock
        self._rng = rng
        self._backoff = Backoff(INITIAL_RETRY_DELAY, MAX_RETRY_DELAY)
        self._waiting: dict[Hashable, _Proposal] = {}
        self._has_proposals = asyncio.Event()
        self._outage = OutageLog(
            _log,
            "nothing can be written, so no instance expires: %s; %d proposals wait",
            "the store is back; %d proposals still wait",
            failure_level=logging.WARNING,
            recovery_level=logging.INFO,
        )
        self._is_backing_off = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, subject: Hashable, decision: Decision, on_refused: Callable[[], None] | None = None) -> None:
        """Proposes `decision`, in place of a proposal that waits on the same subject.

        `on_refused` is called each time that the write fails because the store can't be reached, and at once while
        writes back off. The proposal is then retried.
        """
        self._waiting[subject] = _Proposal(decision, on_refused)
        self._has_proposals.set()
        if self._is_backing_off and on_refused is not None:
            on_refused()

    def has(self, subject: Hashable) -> bool:
        """Returns whether a proposal on the subject waits to be written."""
        return subject in self._waiting

    async def round(self) -> None:
        """Waits for proposals and writes them. If the store can't be reached, it backs off before the next round."""
        await self._has_proposals.wait()
        batch = [
            (subject, self._waiting.pop(subject)) for subject in list(islice(self._waiting, MAX_PROPOSALS_PER_ROUND))
        ]
        if not self._waiting:
            self._has_proposals.clear()
        writes = (self._registry.write(proposal.decision) for _, proposal in batch)
        results = await asyncio.gather(*writes, return_exceptions=True)
        failure: BaseException | None = None
        for (subject, proposal), result in zip(batch, results, strict=True):
            if isinstance(result, BaseException) and not _is_final(result):
                failure = result
                self._retry(subject, proposal)
        await self._back_off(failure)

    def _retry(self, subject: Hashable, proposal: _Proposal) -> None:
        if subject not in self._waiting:
            self._waiting[subject] = proposal
        self._has_proposals.set()
        if proposal.on_refused is not None:
            proposal.on_refused()

    async def _back_off(self, failure: BaseException | None) -> None:
        if failure is None:
            # A round whose decisions changed nothing does not prove that the store accepts writes.
            if not self._registry.is_refusing_writes:
                self._outage.recovered(len(self._waiting))
            self._backoff.reset()
            return
        if not isinstance(failure, StoreUnavailable | Overloaded):
            raise failure
        self._outage.failed(failure, len(self._waiting))
        self._is_backing_off = True
        try:
            await self._clock.sleep(self._backoff.next(self._rng))
        finally:
            self._is_backing_off = False


def _is_final(error: BaseException) -> bool:
    """Returns whether a rule refused the decision, so that a retry is useless."""
    return isinstance(error, AdsumError) and not isinstance(error, StoreUnavailable | Overloaded)
