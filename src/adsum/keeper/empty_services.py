"""Has services forgotten that have been empty for long, and that nobody names.

The time is counted from when this node saw the service empty: from its last instance's leaving, and afresh from a
restart, or when another node kept it before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Set
from typing import Final

from adsum.core.catalog import decisions, snapshots
from adsum.core.catalog.decisions import REGISTRY_ACTOR, Caller
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.durations import format_duration
from adsum.core.liveness.empty_services import DEFAULT_FORGET_AFTER, EmptyServices
from adsum.core.nodes.sharding import shard_of
from adsum.keeper.proposals import Proposals
from adsum.ports import Clock
from adsum.registry import Registry

FORGET_ROUND_INTERVAL: Final = 5.0
"""How often to look, in seconds. Looking costs one comparison."""

FindReferenced = Callable[[Collection[str]], Awaitable[Set[str]]]
"""Which of the services a route, an upstream or a connected consumer names."""


async def no_references(_: Collection[str]) -> Set[str]:
    """Names none."""
    return frozenset()


class EmptyServiceKeeper:
    """Proposes to forget the services that are kept here and were empty for `forget_after` seconds."""

    def __init__(
        self, registry: Registry, proposals: Proposals, clock: Clock, find_referenced: FindReferenced = no_references
    ) -> None:
        self._registry = registry
        self._proposals = proposals
        self._clock = clock
        self._mentioned = find_referenced
        self._vacancies = EmptyServices()
        self.forget_after = DEFAULT_FORGET_AFTER

    def update(self, before: Snapshot, after: Snapshot, kept: Set[int], ours: Set[int]) -> None:
        """The catalog changed, or the shards that we keep: they were `kept` before, and are `ours`."""
        now = self._clock.now()
        names = (
            snapshots.changed_services(before, after)
            if kept == ours
            else before.services.keys() | after.services.keys()
        )
        for name in names:
            self._vacancies.update(name, after.listed_count(name) if shard_of(name) in ours else None, now)

    async def round(self) -> None:
        """Propose what is due, and wait for the next look."""
        due = self._vacancies.due(self._clock.now(), self.forget_after)
        if due:
            mentioned = await self._mentioned(due)
            now, caller = self._clock.now(), Caller(REGISTRY_ACTOR, self._clock.wall())
            reason = f"no instance for {format_duration(self.forget_after)}"
            for service in due:
                self._vacancies.restart(service, now)
                if service not in mentioned:
                    self._proposals.add((service, "vacancy"), decisions.forget(service, reason, caller))
        await self._clock.sleep(FORGET_ROUND_INTERVAL)
