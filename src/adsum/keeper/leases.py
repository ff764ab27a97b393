"""Leases: granted when an instance is listed, renewed here, and proposed as lapsed or expired when their time comes."""

from __future__ import annotations

from typing import Final

from adsum.core.catalog import observations
from adsum.core.catalog.changes import Change
from adsum.core.catalog.decisions import REGISTRY_ACTOR, Caller
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
"""How many leases one round looks at; the rest waits until others had their turn."""
MIN_LEASE_ROUND_WAIT: Final = 0.1
"""The shortest wait between two rounds, in seconds: with many leases something is due at every instant."""
EXPIRY_RETRY_DELAY: Final = 5.0
"""How much longer an instance may renew, in seconds, when its expiry could not be written."""


class LeaseKeeper:
    """Keeps the leases of everything listed with a ttl."""

    def __init__(
        self, registry: Registry, proposals: Proposals, guard: Guard, clock: Clock, observer: Observer
    ) -> None:
        self._registry = registry
        self._proposals = proposals
        self._guard = guard
        self._clock = clock
        self._observer = observer
        self.leases = Leases(guard)
        self._deserted: dict[Key, float] = {}
        """The deadline that a lease had when another instance came to its place, or when it was taken over from an
        earlier run or another node together with that one. A later one shows that both live."""

    def note_newcomer(self, listing: Listing, snapshot: Snapshot) -> None:
        """An instance, of any service, was listed anew: whoever of ours is at its place may be gone."""
        self._deserted.pop(listing.key, None)
        for other in snapshot.listings_at(listing.instance.place.host_port):
            if other.key != listing.key:
                self._desert(other.key)

    def update(self, changed: ChangedInstance) -> None:
        """An instance changed. One seen for the first time gets a fresh full ttl: late is better than wrong."""
        key, listing = changed.key, changed.listing
        ttl = listing.registration.ttl if listing is not None else None
        if listing is None or ttl is None:
            self.leases.end(key)
            self._deserted.pop(key, None)
        elif (phase := self.leases.phase(key)) is None:
            self._grant(listing, ttl, lapsed=listing.lease is LeaseState.LAPSED)
            if not changed.renewed and observations.successors_of(listing, self._registry.snapshot):
                self._desert(key)
        elif changed.renewed and listing.lease is LeaseState.HELD:
            self._grant(listing, ttl)
        elif not _agree(phase, listing.lease) and not self._proposals.has(_subject(key)):
            self._propose(key)

    def renew(self, key: Key, holder: str) -> None:
        """Keep the lease for another ttl. See `Keeper.renew`."""
        listing = self._registry.snapshot.find(key)
        if listing is None:
            raise UnknownInstance(*key)
        if holder and listing.registration.holder != holder:
            raise LeaseLost(*key)
        ttl = listing.registration.ttl
        if ttl is None:
            return
        if self.leases.phase(key) is None:
            # Listed so lately that it wasn't followed yet.
            self._grant(listing, ttl, lapsed=listing.lease is LeaseState.LAPSED)
        if self.leases.renew(key, self._clock.now()) is not None:
            self._propose(key)

    async def round(self) -> None:
        """Move what is due, tell what moved, and wait for the next deadline."""
        now = self._clock.now()
        for moved in self.leases.tick(now, MAX_LEASES_PER_ROUND, self._is_replaced):
            self._propose(moved.key, moved.guarded_for)
        for service, holding in self._guard.changed_counts().items():
            self._observer.guarded(service, holding)
        due = self.leases.next_deadline()
        await self._clock.sleep(_wait(due, now))

    def _grant(self, listing: Listing, ttl: float, *, lapsed: bool = False) -> None:
        self.leases.grant(listing.key, ttl, listing.registration.grace, self._clock.now(), lapsed=lapsed)

    def _propose(self, key: Key, guarded: float = 0.0) -> None:
        caller = Caller(REGISTRY_ACTOR, self._clock.wall())

        def decide(basis: CatalogView) -> list[Change]:
            return self._decide(key, guarded, basis, caller)

        self._proposals.add(_subject(key), decide, lambda: self._put_off(key))

    def _decide(self, key: Key, guarded: float, basis: CatalogView, caller: Caller) -> list[Change]:
        """Make the listing say what the lease is by now, when the proposal's turn has come."""
        phase, listing = self.leases.phase(key), basis.find(key)
        if listing is None or phase is None:
            return []
        if phase is LeasePhase.HELD:
            return observations.renew(key, caller)(basis)
        if phase is LeasePhase.EXPIRED and listing.lease is LeaseState.LAPSED:
            return observations.expire(key, self._expiry(listing, guarded), caller)(basis)
        # A lapsed lease is critical before it is gone, even if its lapse could not be written in time.
        self.leases.postpone(key, self._clock.now())
        reason = f"not renewed within its ttl of {listing.registration.ttl:g} s"
        return observations.lapse(key, reason, caller, abandoned=self._has_made_room(listing, basis))(basis)

    def _desert(self, key: Key) -> None:
        """Unless it renews from now on, nobody is there any more."""
        deadline = self.leases.deadline(key)
        if deadline is not None:
            self._deserted[key] = deadline

    def _is_deserted(self, key: Key) -> bool:
        return key in self._deserted and self._deserted[key] == self.leases.deadline(key)

    def _has_made_room(self, listing: Listing, basis: CatalogView) -> bool:
        """Whether another process at its place has shown since that it lives, and this one has not."""
        return self._is_deserted(listing.key) and any(
            not self._is_deserted(each.key) for each in observations.successors_of(listing, basis)
        )

    def _is_replaced(self, key: Key) -> bool:
        snapshot = self._registry.snapshot
        listing = snapshot.find(key)
        return listing is not None and bool(observations.successors_of(listing, snapshot))

    def _put_off(self, key: Key) -> None:
        self.leases.postpone(key, self._clock.now() + EXPIRY_RETRY_DELAY)

    def _expiry(self, listing: Listing, guarded: float) -> str:
        overdue = self._clock.now() - (self.leases.deadline(listing.key) or 0.0)
        reason = f"overdue by {overdue:.1f} s, grace {listing.registration.grace:g} s"
        return f"{reason}; the guard held it back and let go after {guarded:.0f} s" if guarded else reason


def _agree(phase: LeasePhase, listed: LeaseState) -> bool:
    """An expired one is on its way out, whatever the catalog still says."""
    return phase is LeasePhase.EXPIRED or (phase is LeasePhase.HELD) == (listed is LeaseState.HELD)


def _subject(key: Key) -> tuple[Key, str]:
    return key, "lease"


def _wait(due: float | None, now: float) -> float:
    if due is None:
        return MAX_TICK_INTERVAL
    return 0.0 if due <= now else min(MAX_TICK_INTERVAL, max(MIN_LEASE_ROUND_WAIT, due - now))
