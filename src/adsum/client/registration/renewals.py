"""Renews all leases of one client in one request per interval."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from random import Random
from typing import Final, Protocol

from adsum.client.errors import NotAllowed, NotAuthenticated
from adsum.client.sources.source import Source
from adsum.client.wakeup import Wakeup
from adsum.core.backoff import RENEWALS_PER_TTL, Backoff, renewal_delay
from adsum.core.errors import AdsumError
from adsum.core.model import Key
from adsum.ports import Clock
from adsum.wire import MAX_RENEWALS, LeaseBody, RenewalResult

MAX_RENEWED_TTL: Final = 30.0
"""Seconds; a lease with a longer ttl, or without one, is renewed as if it had this ttl, about every 10 s. So a registry
that lost its state lists the instance again while consumers still show it (`client.views.view_state.SETTLING_TIME`)."""
MIN_RENEWAL_PAUSE, MAX_RENEWAL_PAUSE = 0.5, 5.0
"""Seconds, bounds of the pause after a renewal that failed."""

MIN_NODE_TIMEOUT, MAX_NODE_TIMEOUT = 0.5, 5.0
"""Seconds, bounds of the time that one node has to renew: a short lease must not lapse because a node hangs."""

_log = logging.getLogger(__name__)


class LeaseOwner(Protocol):
    """The owner of a lease that is to be renewed."""

    @property
    def lease(self) -> LeaseBody: ...

    @property
    def ttl(self) -> float | None:
        """Seconds; None: the instance has no lease, and the renewal only checks that it is still listed."""
        ...

    @property
    def epoch(self) -> str:
        """The epoch in which the instance was registered."""
        ...

    def on_lease_renewed(self) -> None:
        """Called when the lease is held for another ttl."""
        ...

    def on_lease_lost(self, reason: str) -> None:
        """Called when the lease is lost; it is not renewed from now on.

        `reason` is `unknown`: the registry does not list the instance; `superseded`: the registry lists another
        process; or `replaced`: another registrar of this program has the id.
        """
        ...


class Renewals:
    """The leases of one client, renewed by a task on its event loop."""

    def __init__(self, source: Source, clock: Clock, rng: Random) -> None:
        self._source = source
        self._clock = clock
        self._rng = rng
        self._owners: list[LeaseOwner] = []
        self._wakeup = Wakeup(clock)
        self._backoff = Backoff(MIN_RENEWAL_PAUSE, MAX_RENEWAL_PAUSE)
        self._due: float | None = None
        self._denial = ""
        """The error that says that this program may not renew, which is logged once; "" if it may."""
        self._task: asyncio.Task[None] | None = None

    def add(self, owner: LeaseOwner) -> None:
        """Renews this lease too, after one interval. An earlier owner of the same id loses its lease as `replaced`."""
        for earlier in [other for other in self._owners if other is not owner and _key(other) == _key(owner)]:
            # At once: a source answers by id, so it would give both owners the same answer.
            earlier.on_lease_lost("replaced")
        if owner not in self._owners:
            self._owners.append(owner)
        due = self._clock.now() + self._delay(owner)
        if self._due is None or due < self._due:
            self._due = due
            self._wakeup.wake()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="adsum-renew")

    def remove(self, owner: LeaseOwner) -> None:
        """Stops renewing this lease; nothing happens if it was not renewed."""
        with suppress(ValueError):
            self._owners.remove(owner)

    async def close(self) -> None:
        """Stops renewing all leases. Idempotent."""
        self._owners.clear()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._wakeup.wait(self._due)
            if self._due is None or self._clock.now() < self._due:
                continue
            pause = await self._round()
            self._due = self._clock.now() + pause if self._owners else None

    async def _round(self) -> float:
        """Renews every lease once. Returns the seconds until the next round."""
        owners = list(self._owners)
        try:
            for start in range(0, len(owners), MAX_RENEWALS):
                await self._renew(owners[start : start + MAX_RENEWALS])
        except (NotAuthenticated, NotAllowed) as error:
            if self._denial != str(error):
                _log.error("%s can't be renewed, trying again: %s", _leases(len(owners)), error)
            self._denial = str(error)
            return min(self._backoff.next(self._rng), self._interval())
        except AdsumError as error:
            _log.warning("%s could not be renewed: %s", _leases(len(owners)), error)
            return min(self._backoff.next(self._rng), self._interval())
        except Exception:
            # If the task ended here, every lease would lapse.
            _log.exception("%d leases could not be renewed", len(owners))
            return min(self._backoff.next(self._rng), self._interval())
        self._backoff.reset()
        self._denial = ""
        return self._interval()

    async def _renew(self, owners: list[LeaseOwner]) -> None:
        shortest = min((owner.ttl or MAX_RENEWED_TTL for owner in owners), default=MAX_RENEWED_TTL)
        node_timeout = min(MAX_NODE_TIMEOUT, max(MIN_NODE_TIMEOUT, shortest / RENEWALS_PER_TTL))
        renewed: RenewalResult = await self._source.renew([owner.lease for owner in owners], node_timeout)
        reasons = {Key(lost.service, lost.id): lost.reason for lost in renewed.lost}
        for owner in owners:
            reason = reasons.get(_key(owner))
            if owner not in self._owners:
                continue
            if reason is None and owner.epoch == renewed.epoch:
                owner.on_lease_renewed()
            else:
                owner.on_lease_lost(reason or "unknown")

    def _interval(self) -> float:
        """Returns the seconds until the next round. A pause after a failure is at most as long: no lease may lapse."""
        return min(map(self._delay, self._owners), default=MAX_RENEWED_TTL)

    def _delay(self, owner: LeaseOwner) -> float:
        return renewal_delay(min(owner.ttl or MAX_RENEWED_TTL, MAX_RENEWED_TTL), self._rng)


def _key(owner: LeaseOwner) -> Key:
    return Key(owner.lease.service, owner.lease.id)


def _leases(count: int) -> str:
    """Returns a number of leases in words."""
    return "1 lease" if count == 1 else f"{count} leases"
