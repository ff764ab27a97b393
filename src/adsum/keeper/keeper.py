"""The keeper: the loops that wait for time on behalf of everything listed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Set
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

POLL_INTERVAL: Final = 0.1
"""How often the keeper looks for a new snapshot, in seconds. Looking costs one comparison, and a burst is one look."""
MAX_UPDATES_PER_TURN: Final = 1_000
"""How many touched instances are followed before others have their turn."""

_log = logging.getLogger("adsum.keeper")


class Keeper:
    """Keeps leases, checks and overrides of what the registry lists, and proposes what their time brings; of services
    without an instance, too.

    Of several nodes each keeps its share of the services (`sharding`). It follows the registry's snapshots: whatever it
    hadn't time to see is in the next one. `probe` runs the checks, at most `max_probes` at once; whoever made it closes
    it.
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
        """`find_referenced` says which services are not forgotten, however long they are empty."""
        self._registry = registry
        self._clock = clock
        self._rng = rng
        self._seen = snapshots.EMPTY_SNAPSHOT
        self._shares: Sharding = sharding or SingleNode("")
        self._kept = self._shares.kept_shards
        self._proposals = Proposals(registry, clock, rng)
        self._leases = LeaseKeeper(registry, self._proposals, guard or Guard(), clock, observer)
        self._checks = CheckKeeper(self._proposals, probe, clock, observer, rng, max_probes)
        self._overrides = OverrideKeeper(self._proposals, clock)
        self._vacancies = EmptyServiceKeeper(registry, self._proposals, clock, find_referenced)
        self._answering = PlaceProber(probe)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def check_count(self) -> int:
        """How many checks are kept."""
        return len(self._checks)

    def set_max_probes(self, max_probes: int) -> None:
        """Run so many probes at once from now on."""
        self._checks.max_probes = max_probes

    def set_forget_after(self, length: float) -> None:
        """Have services forgotten that were empty for so many seconds, from now on."""
        self._vacancies.forget_after = length

    @property
    def leases(self) -> Leases:
        """To be read, not moved."""
        return self._leases.leases

    async def start(self) -> None:
        """Grant a fresh full ttl to all that is listed, and start the loops. The registry has started before."""
        await self._follow()
        rounds = {
            "following": self._look,
            "leases": self._leases.round,
            "checks": self._checks.round,
            "overrides": self._overrides.round,
            "vacancies": self._vacancies.round,
            "proposals": self._proposals.round,
        }
        self._tasks = [
            asyncio.create_task(run_rounds(round, what, self._clock, self._rng), name=f"adsum-{what}")
            for what, round in rounds.items()
        ]

    async def stop(self) -> None:
        """End the loops; idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._checks.stop()
        await self._answering.stop()

    def keeps(self, service: str) -> bool:
        """Whether the leases of the service are kept here. Not for certain until we have taken up what became ours."""
        shard = shard_of(service)
        return shard in self._kept and shard in self._shares.kept_shards

    def renew(self, key: Key, holder: str = "") -> None:
        """Keep the instance's lease for another ttl from now; one without a lease needs none. Costs no write.

        To be asked only if we keep its service. Raises `UnknownInstance` if it isn't listed (any more), `LeaseLost` if
        `holder` is given and is not the lease's: either way it must register again.
        """
        self._leases.renew(key, holder)

    async def is_reachable(self, listing: Listing) -> bool:
        """Whether somebody answers at the place of the instance, by one probe at once. Raises `Overloaded`."""
        return await self._answering.is_reachable(listing)

    def last_outcomes(self, key: Key) -> Mapping[str, Outcome]:
        """The last outcome of each check of the instance, by the check's name; those that had none yet are missing."""
        return self._checks.last_outcomes(key)

    async def _look(self) -> None:
        await self._follow()
        await self._clock.sleep(POLL_INTERVAL)

    async def _follow(self) -> None:
        before, after = self._seen, self._registry.snapshot
        kept, self._kept = self._kept, self._shares.kept_shards
        if before is after and kept is self._kept:
            return
        self._seen = after
        for number, instance in enumerate(self._touched(before, after, kept), 1):
            self._take(instance)
            if number % MAX_UPDATES_PER_TURN == 0:
                await self._clock.sleep(0)
        if before.epoch == after.epoch:
            self._note_newcomers(before, after)
        self._vacancies.update(before, after, kept, self._kept)

    def _note_newcomers(self, before: Snapshot, after: Snapshot) -> None:
        """Those of services that others keep, too: they may be at the place of an instance that is ours."""
        for instance in reversed(list(changed_instances(before, after))):  # About in the order in which they came.
            if instance.renewed and instance.listing is not None:
                self._leases.note_newcomer(instance.listing, after)

    def _touched(self, before: Snapshot, after: Snapshot, kept: Set[int]) -> Iterator[ChangedInstance]:
        """What changed among the instances that are ours, and what is ours no more, or now: it gets a fresh ttl."""
        ours = self._kept
        for instance in changed_instances(before, after):
            if shard_of(instance.key.service) in ours & kept:
                yield instance
        if kept != ours:
            yield from handed_over_instances(before, after, kept, ours)

    def _take(self, instance: ChangedInstance) -> None:
        """One that can't be followed must not keep the others from it."""
        for part in (self._leases, self._checks, self._overrides):
            try:
                part.update(instance)
            except Exception:
                _log.exception("%s can't be followed", instance.key)
