"""The leases of listed instances: grants and renews them, and proposes when they lapse and expire."""

from __future__ import annotations

from typing import Final

from adsum.core.access.principal import REGISTRY_ACTOR
from adsum.core.catalog import observations
from adsum.core.catalog.changes import Change
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.draft import CatalogView
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.errors import LeaseLost, UnknownInstance
from adsum.core.liveness.guard import Guard
from adsum.core.liveness.leases import MAX_TICK_INTERVAL, LeasePhase, Leases
from adsum.core.model import Key, LeaseState, Listing
from adsum.keeper.changed_instances import ChangedInstance
from adsum.keeper.proposals import Proposals
from adsum.ports import Clock, Observer
from adsum.registry import Registry

MAX_LEASES_PER_ROUND: Final = 1_000
"""Leases in one round. The rest waits until other tasks have run."""
MIN_LEASE_ROUND_WAIT: Final = 0.1
"""Seconds between two rounds, at least: with many leases one of them is always due."""
EXPIRY_RETRY_DELAY: Final = 5.0
"""Seconds for which an instance may still renew after its expiry could not be written."""


class LeaseKeeper:
    """Keeps the leases of the instances that are listed with a ttl."""

    def __init__(
        self, registry: Registry, proposals: Proposals, guard: Guard, clock: Clock, observer: Observer
    ) -> None:
        self._registry = registry
        self._proposals = proposals
        self._guard = guard
        self._clock = clock
        self._observer = observer
        self.leases = Leases(guard)
        self._abandoned: dict[Key, float] = {}
        """The deadline that a lease had when another instance came to its address and port, or when this node began to
        keep both. A later deadline shows that both instances live."""

    @property
    def has_abandoned(self) -> bool:
        """True if a lease is abandoned, because another instance came to its address and port.

        When its own instance registers again, it no longer is.
        """
        return bool(self._abandoned)

    def note_newcomer(self, newcomer: Key, listing: Listing, snapshot: Snapshot) -> None:
        """Notes a new instance of any service: instances at its address and port may be gone."""
        self._abandoned.pop(newcomer, None)
        host_port = listing.instance.host_port
        if len(snapshot.address_index.candidates(host_port)) > 1:
            for other in snapshot.listings_at(host_port):
                if other.key != newcomer:
                    self._mark_abandoned(other.key)

    def update(self, changed: ChangedInstance) -> None:
        """Follows the change of an instance. A new one gets a full ttl, because late is better than wrong."""
        key, listing = changed.key, changed.listing
        ttl = listing.registration.ttl if listing is not None else None
        if listing is None or ttl is None:
            self.leases.end(key)
            self._abandoned.pop(key, None)
        elif (phase := self.leases.phase(key)) is None:
            self._grant(key, listing, ttl, lapsed=listing.lease is LeaseState.LAPSED)
            if not changed.renewed and observations.successors_of(listing, self._registry.snapshot):
                self._mark_abandoned(key)
        elif changed.renewed and listing.lease is LeaseState.HELD:
            self._grant(key, listing, ttl)
        elif not _agrees(phase, listing.lease) and not self._proposals.has(_subject(key)):
            self._propose(key)

    def renew(self, key: Key, holder: str, now: float) -> None:
        """Renews the lease for a ttl from `now`. See `Keeper.renew`."""
        listing = self._registry.snapshot.find(key)
        if listing is None:
            raise UnknownInstance(*key)
        if holder and listing.registration.holder != holder:
            raise LeaseLost(*key)
        ttl = listing.registration.ttl
        if ttl is None:
            return
        if self.leases.phase(key) is None:
            # Listed so recently that the keeper has not followed it yet.
            self._grant(key, listing, ttl, lapsed=listing.lease is LeaseState.LAPSED)
        if self.leases.renew(key, now) is not None:
            self._propose(key)

    async def round(self) -> None:
        """Proposes the due transitions, reports the guard, and waits for the next deadline."""
        now = self._clock.now()
        for transition in self.leases.tick(now, MAX_LEASES_PER_ROUND, self._is_replaced):
            self._propose(transition.key, transition.guarded_for)
        for service, held in self._guard.changed_counts().items():
            self._observer.guarded(service, held)
        due = self.leases.next_deadline()
        await self._clock.sleep(_round_wait(due, now))

    def _grant(self, key: Key, listing: Listing, ttl: float, *, lapsed: bool = False) -> None:
        self.leases.grant(key, ttl, listing.registration.grace, self._clock.now(), lapsed=lapsed)

    def _propose(self, key: Key, guarded_for: float = 0.0) -> None:
        caller = Caller(REGISTRY_ACTOR, self._clock.wall())

        def decide(view: CatalogView) -> list[Change]:
            return self._decide(key, guarded_for, view, caller)

        self._proposals.add(_subject(key), decide, lambda: self._postpone(key))

    def _decide(self, key: Key, guarded_for: float, view: CatalogView, caller: Caller) -> list[Change]:
        """Brings the listing in line with the phase of the lease at the time of the write."""
        phase, listing = self.leases.phase(key), view.find(key)
        if listing is None or phase is None:
            return []
        if phase is LeasePhase.HELD:
            return observations.renew(key, caller)(view)
        if phase is LeasePhase.EXPIRED and listing.lease is LeaseState.LAPSED:
            return observations.expire(key, self._expiry_reason(listing, guarded_for), caller)(view)
        # A lapsed lease is critical before its instance is removed, even if the lapse could not be written in time.
        self.leases.postpone(key, self._clock.now())
        reason = f"not renewed within its ttl of {listing.registration.ttl:g} s"
        return observations.lapse(key, reason, caller, abandoned=self._is_superseded(listing, view))(view)

    def _mark_abandoned(self, key: Key) -> None:
        """Marks the lease as abandoned unless it is renewed from now on."""
        deadline = self.leases.deadline(key)
        if deadline is not None:
            self._abandoned[key] = deadline

    def _is_abandoned(self, key: Key) -> bool:
        return key in self._abandoned and self._abandoned[key] == self.leases.deadline(key)

    def _is_superseded(self, listing: Listing, view: CatalogView) -> bool:
        """Returns whether the instance has not renewed since another process came to its place, and that one has."""
        return self._is_abandoned(listing.key) and any(
            not self._is_abandoned(successor.key) for successor in observations.successors_of(listing, view)
        )

    def _is_replaced(self, key: Key) -> bool:
        snapshot = self._registry.snapshot
        listing = snapshot.find(key)
        return listing is not None and bool(observations.successors_of(listing, snapshot))

    def _postpone(self, key: Key) -> None:
        self.leases.postpone(key, self._clock.now() + EXPIRY_RETRY_DELAY)

    def _expiry_reason(self, listing: Listing, guarded_for: float) -> str:
        overdue = self._clock.now() - (self.leases.deadline(listing.key) or 0.0)
        reason = f"overdue by {overdue:.1f} s, grace {listing.registration.grace:g} s"
        return f"{reason}; the guard held it back for {guarded_for:.0f} s" if guarded_for else reason


def _agrees(phase: LeasePhase, listed: LeaseState) -> bool:
    """Returns whether the listing agrees with the lease. An expired lease waits to be removed, so it always does."""
    return phase is LeasePhase.EXPIRED or (phase is LeasePhase.HELD) == (listed is LeaseState.HELD)


def _subject(key: Key) -> tuple[Key, str]:
    return key, "lease"


def _round_wait(due: float | None, now: float) -> float:
    if due is None:
        return MAX_TICK_INTERVAL
    return 0.0 if due <= now else min(MAX_TICK_INTERVAL, max(MIN_LEASE_ROUND_WAIT, due - now))
