"""The services without instances: proposes to forget those that stay empty and are not referenced.

The time starts when the last instance leaves. It starts again when the node restarts, or when another node takes over
the service.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Set
from typing import Final

from adsum.core.access.principal import REGISTRY_ACTOR
from adsum.core.catalog import decisions, snapshots
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.durations import format_duration
from adsum.core.liveness.empty_services import DEFAULT_FORGET_AFTER, EmptyServices
from adsum.core.nodes.sharding import shard_of
from adsum.keeper.proposals import Proposals
from adsum.ports import Clock
from adsum.registry import Registry

FORGET_ROUND_INTERVAL: Final = 5.0
"""Seconds between two rounds. A round costs one comparison."""

FindReferenced = Callable[[Collection[str]], Awaitable[Set[str]]]
"""Returns those of the services that a route, an upstream or a connected consumer references."""


async def no_references(_: Collection[str]) -> Set[str]:
    """Returns none."""
    return frozenset()


class EmptyServiceKeeper:
    """Proposes to forget the services of this node that were empty for `forget_after` seconds."""

    def __init__(
        self, registry: Registry, proposals: Proposals, clock: Clock, find_referenced: FindReferenced = no_references
    ) -> None:
        self._registry = registry
        self._proposals = proposals
        self._clock = clock
        self._find_referenced = find_referenced
        self._empty = EmptyServices()
        self.forget_after = DEFAULT_FORGET_AFTER
        """Seconds without an instance after which a service is forgotten."""

    def update(self, before: Snapshot, after: Snapshot, kept_before: Set[int], kept: Set[int]) -> None:
        """Follows a change of the catalog, or of the kept shards."""
        now = self._clock.now()
        if kept_before == kept:
            names = snapshots.changed_services(before, after)
        else:
            names = before.services.keys() | after.services.keys()
        for name in names:
            self._empty.update(name, after.listed_count(name) if shard_of(name) in kept else None, now)

    async def round(self) -> None:
        """Proposes to forget the services that are due, and waits until the next round."""
        due = self._empty.due(self._clock.now(), self.forget_after)
        if due:
            referenced = await self._find_referenced(due)
            now, caller = self._clock.now(), Caller(REGISTRY_ACTOR, self._clock.wall())
            reason = f"no instance for {format_duration(self.forget_after)}"
            for service in due:
                self._empty.restart(service, now)
                if service not in referenced:
                    self._proposals.add((service, "empty"), decisions.forget(service, reason, caller))
        await self._clock.sleep(FORGET_ROUND_INTERVAL)
