"""The keeper of a node: runs the leases, checks and overrides of the instances that the node keeps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from random import Random
from typing import Final

from adsum.core.catalog import snapshots
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.liveness.guard import Guard
from adsum.core.liveness.leases import Leases
from adsum.core.model import Key, Listing, Outcome
from adsum.core.nodes.sharding import SingleNode, shard_of
from adsum.keeper.changed_instances import ChangedInstance, changed_instances, handed_over_instances
from adsum.keeper.checks import MAX_CONCURRENT_PROBES, CheckKeeper
from adsum.keeper.empty_services import EmptyServiceKeeper, FindReferenced, no_references
from adsum.keeper.leases import LeaseKeeper
from adsum.keeper.overrides import OverrideKeeper
from adsum.keeper.place_prober import PlaceProber
from adsum.keeper.proposals import Proposals
from adsum.keeper.rounds import run_rounds
from adsum.ports import Clock, Observer, Probe, Sharding
from adsum.registry import Registry

SNAPSHOT_POLL_INTERVAL: Final = 0.1
"""Seconds between two looks for a new snapshot. A look costs one comparison, and a burst of changes is one look."""
MAX_UPDATES_PER_TURN: Final = 100
"""Changed instances that are followed before other tasks run: requests wait meanwhile."""

_log = logging.getLogger("adsum.keeper")


class Keeper:
    """Keeps the leases, checks and overrides of listed instances, and forgets services that stay empty.

    It writes the changes to the registry: leases that lapse and expire, checks that change their status, overrides that
    end. One of several nodes keeps its share of the services (`sharding`). The keeper follows the snapshots of the
    registry and may skip some, since the next one contains everything. `probe` runs the checks, at most `max_probes` at
    the same time; its creator closes it.
    """

    def __init__(
        self,
        registry: Registry,
        probe: Probe,
        clock: Clock,
        observer: Observer,
        rng: Random,
        *,
        sharding: Sharding | None = None,
        guard: Guard | None = None,
        max_probes: int = MAX_CONCURRENT_PROBES,
        find_referenced: FindReferenced = no_references,
    ) -> None:
        """`find_referenced` returns the services that are not forgotten, however long they are empty."""
        self._registry = registry
        self._clock = clock
        self._rng = rng
        self._snapshot = snapshots.EMPTY_SNAPSHOT
        """The last snapshot that was followed."""
        self._sharding: Sharding = sharding or SingleNode("")
        self._kept_shards = self._sharding.kept_shards
        self._proposals = Proposals(registry, clock, rng)
        self._leases = LeaseKeeper(registry, self._proposals, guard or Guard(), clock, observer)
        self._checks = CheckKeeper(self._proposals, probe, clock, observer, rng, max_probes)
        self._overrides = OverrideKeeper(self._proposals, clock)
        self._empty_services = EmptyServiceKeeper(registry, self._proposals, clock, find_referenced)
        self._place_prober = PlaceProber(probe)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def check_count(self) -> int:
        """The number of checks."""
        return len(self._checks)

    def set_max_probes(self, max_probes: int) -> None:
        """Sets how many probes run at the same time."""
        self._checks.max_probes = max_probes

    def set_forget_after(self, length: float) -> None:
        """Sets after how many seconds an empty service is forgotten."""
        self._empty_services.forget_after = length

    @property
    def leases(self) -> Leases:
        """The leases, only for reading."""
        return self._leases.leases

    async def start(self) -> None:
        """Grants a full ttl to every listed instance, and starts the loops. The registry must have started before."""
        await self._follow()
        rounds = {
            "snapshots": self._poll,
            "leases": self._leases.round,
            "checks": self._checks.round,
            "overrides": self._overrides.round,
            "empty services": self._empty_services.round,
            "proposals": self._proposals.round,
        }
        self._tasks = [
            asyncio.create_task(run_rounds(round, name, self._clock, self._rng), name=f"adsum-keeper-{name}")
            for name, round in rounds.items()
        ]

    async def stop(self) -> None:
        """Ends the loops. Idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._checks.stop()
        await self._place_prober.stop()

    def keeps(self, service: str) -> bool:
        """Returns whether this node keeps the service. A gained shard counts once its instances are followed."""
        shard = shard_of(service)
        return shard in self._kept_shards and shard in self._sharding.kept_shards

    def now(self) -> float:
        """Returns the instant of renewals that are made together: leases with one deadline share its memory."""
        return self._clock.now()

    def renew(self, key: Key, holder: str = "", now: float | None = None) -> None:
        """Renews the instance's lease for a ttl from now, without a write. An instance without a lease is no error.

        Only for services that this node keeps. Raises `UnknownInstance` if the instance is not listed, and `LeaseLost`
        if `holder` is given and does not hold the lease: in both cases the instance must register again.
        """
        self._leases.renew(key, holder, self._clock.now() if now is None else now)

    async def is_reachable(self, listing: Listing) -> bool:
        """Probes the place of the instance now. Returns whether it answers. Raises `Overloaded`."""
        return await self._place_prober.is_reachable(listing)

    def last_outcomes(self, key: Key) -> Mapping[str, Outcome]:
        """Returns the last outcome of each check of the instance, by name. Checks without an outcome are left out."""
        return self._checks.last_outcomes(key)

    async def _poll(self) -> None:
        await self._follow()
        await self._clock.sleep(SNAPSHOT_POLL_INTERVAL)

    async def _follow(self) -> None:
        """Follows the changes since the last snapshot, and the changes of the kept shards."""
        before, after = self._snapshot, self._registry.snapshot
        kept_before, self._kept_shards = self._kept_shards, self._sharding.kept_shards
        if before is after and kept_before is self._kept_shards:
            return
        self._snapshot = after
        if before.epoch == after.epoch:
            changes = list(changed_instances(before, after))
            await self._update_all(self._kept_changes(changes, before, after, kept_before))
            await self._note_newcomers(changes, after)
        else:  # A catalog that was just loaded may be large, so that no list of it is made.
            all_changes = changed_instances(before, after)
            await self._update_all(self._kept_changes(all_changes, before, after, kept_before))
        self._empty_services.update(before, after, kept_before, self._kept_shards)

    async def _update_all(self, changes: Iterable[ChangedInstance]) -> None:
        """Follows these changes. Other tasks run in between."""
        for number, changed in enumerate(changes, 1):
            self._update(changed)
            if number % MAX_UPDATES_PER_TURN == 0:
                await self._clock.sleep(0)

    async def _note_newcomers(self, changes: Sequence[ChangedInstance], after: Snapshot) -> None:
        """Notes new instances of all services: they may be at the place of an instance that this node keeps."""
        if not after.address_index.neighbor_count and not self._leases.has_abandoned:
            return  # No two instances are at one address, as in many catalogs.
        for number, changed in enumerate(reversed(changes), 1):  # Roughly in the order in which they came.
            if changed.renewed and changed.listing is not None:
                self._leases.note_newcomer(changed.key, changed.listing, after)
            if number % MAX_UPDATES_PER_TURN == 0:
                await self._clock.sleep(0)

    def _kept_changes(
        self, changes: Iterable[ChangedInstance], before: Snapshot, after: Snapshot, kept_before: Set[int]
    ) -> Iterator[ChangedInstance]:
        """Yields the changed instances that this node keeps, and those of shards that it has gained or lost.

        An instance of a gained shard gets a full ttl.
        """
        kept = self._kept_shards
        kept_throughout = kept if kept is kept_before else kept & kept_before
        for changed in changes:
            if shard_of(changed.key.service) in kept_throughout:
                yield changed
        if kept_before != kept:
            yield from handed_over_instances(before, after, kept_before, kept)

    def _update(self, changed: ChangedInstance) -> None:
        """Follows one change. An error of one instance must not affect the others."""
        for part in (self._leases, self._checks, self._overrides):
            try:
                part.update(changed)
            except Exception:
                _log.exception("a change of %s can't be followed", changed.key)
