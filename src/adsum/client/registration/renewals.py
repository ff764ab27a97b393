"""Renewing all leases of one process in one request an interval."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from random import Random
from typing import Final, Protocol

from adsum.client.sources.source import Source
from adsum.client.wakeup import Wakeup
from adsum.core.backoff import RENEWALS_PER_TTL, Backoff, renewal_delay
from adsum.core.errors import AdsumError
from adsum.core.model import Key
from adsum.ports import Clock
from adsum.wire import MAX_RENEWALS, LeaseBody, RenewalResult

MAX_RENEWED_TTL: Final = 30.0
"""Seconds; a longer ttl, or none, is renewed as if it were this, about every 10 s: so a registry that lost its state
knows us again while consumers still show what it knew before (`adsum.client.views.view_state.SETTLING_TIME`)."""
MIN_RENEWAL_PAUSE, MAX_RENEWAL_PAUSE = 0.5, 5.0
"""Bounds of the pause after a renewal that failed."""

MIN_NODE_TIMEOUT, MAX_NODE_TIMEOUT = 0.5, 5.0
"""Bounds of how long one node may take to renew, in seconds: a node that hangs must not cost a short lease its life."""

_log = logging.getLogger(__name__)


class LeaseOwner(Protocol):
    """Who has a lease to be renewed."""

    @property
    def lease(self) -> LeaseBody: ...

    @property
    def ttl(self) -> float | None:
        """Seconds; None: listed without a lease, which is asked after all the same."""
        ...

    @property
    def epoch(self) -> str:
        """The epoch that it was registered in."""
        ...

    def on_lease_renewed(self) -> None:
        """The lease is held for another ttl."""
        ...

    def on_lease_lost(self, reason: str) -> None:
        """The lease is not there any more, and is not renewed from now on.

        `unknown`: the registry does not list us; `superseded`: it lists another process; `replaced`: another registrar
        of this program.
        """
        ...


class Renewals:
    """The leases of one client. Made on its loop; `run` renews for ever."""

    def __init__(self, source: Source, clock: Clock, rng: Random) -> None:
        self._source = source
        self._clock = clock
        self._rng = rng
        self._leased: list[LeaseOwner] = []
        self._alarm = Wakeup(clock)
        self._backoff = Backoff(MIN_RENEWAL_PAUSE, MAX_RENEWAL_PAUSE)
        self._due: float | None = None
        self._task: asyncio.Task[None] | None = None

    def add(self, leased: LeaseOwner) -> None:
        """Renew that lease too, from an interval from now on. Another one here with its id is superseded by it."""
        for before in [one for one in self._leased if one is not leased and _key(one) == _key(leased)]:
            before.on_lease_lost("replaced")  # At once: a source speaks of ids, and would tell both the same.
        if leased not in self._leased:
            self._leased.append(leased)
        due = self._clock.now() + self._delay(leased)
        if self._due is None or due < self._due:
            self._due = due
            self._alarm.wake()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="adsum-renew")

    def remove(self, leased: LeaseOwner) -> None:
        """Renew it no more; harmless if it was not."""
        with suppress(ValueError):
            self._leased.remove(leased)

    async def close(self) -> None:
        """Renew nothing any more; idempotent."""
        self._leased.clear()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._alarm.wait(self._due)
            if self._due is None or self._clock.now() < self._due:
                continue
            pause = await self._round()
            self._due = self._clock.now() + pause if self._leased else None

    async def _round(self) -> float:
        """Renew everything once; how many seconds until the next time."""
        leased = list(self._leased)
        try:
            for start in range(0, len(leased), MAX_RENEWALS):
                await self._renew(leased[start : start + MAX_RENEWALS])
        except AdsumError as error:
            _log.warning("%d leases could not be renewed: %s", len(leased), error)
            return min(self._backoff.next(self._rng), self._interval())
        except Exception:
            # Ending here would let every lease lapse.
            _log.exception("%d leases could not be renewed", len(leased))
            return min(self._backoff.next(self._rng), self._interval())
        self._backoff.reset()
        return self._interval()

    async def _renew(self, leased: list[LeaseOwner]) -> None:
        shortest = min((one.ttl or MAX_RENEWED_TTL for one in leased), default=MAX_RENEWED_TTL)
        patience = min(MAX_NODE_TIMEOUT, max(MIN_NODE_TIMEOUT, shortest / RENEWALS_PER_TTL))
        renewed: RenewalResult = await self._source.renew([one.lease for one in leased], patience)
        reasons = {Key(lost.service, lost.id): lost.reason for lost in renewed.lost}
        for one in leased:
            reason = reasons.get(_key(one))
            if one not in self._leased:
                continue
            if reason is None and one.epoch == renewed.epoch:
                one.on_lease_renewed()
            else:
                one.on_lease_lost(reason or "unknown")

    def _interval(self) -> float:
        """Until the next time while all is well, and at most so long after a failure: no lease is to end meanwhile."""
        return min(map(self._delay, self._leased), default=MAX_RENEWED_TTL)

    def _delay(self, leased: LeaseOwner) -> float:
        return renewal_delay(min(leased.ttl or MAX_RENEWED_TTL, MAX_RENEWED_TTL), self._rng)


def _key(leased: LeaseOwner) -> Key:
    return Key(leased.lease.service, leased.lease.id)
