"""Overrides with a length: it is counted from when one was set, and afresh from a restart."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

from adsum.core.catalog import observations
from adsum.core.catalog.decisions import REGISTRY_ACTOR, Caller
from adsum.core.model import Key, Override
from adsum.keeper.changed_instances import ChangedInstance
from adsum.keeper.proposals import Proposals
from adsum.ports import Clock

MAX_OVERRIDES_PER_ROUND: Final = 1_000
"""How many overrides one round ends; the rest waits for the next one."""
OVERRIDE_ROUND_INTERVAL: Final = 1.0
"""How often to look, in seconds: the shortest override lasts as long."""
MAX_STALE_OVERRIDE_ENTRIES: Final = 1_000
"""How many heap entries of cleared overrides are carried; past it the heap is rebuilt."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    override: Override
    until: float


class OverrideKeeper:
    """Ends the overrides of listed instances when they have lasted their length."""

    def __init__(self, proposals: Proposals, clock: Clock) -> None:
        self._proposals = proposals
        self._clock = clock
        self._waiting: dict[Key, _Waiting] = {}
        self._heap: list[tuple[float, Key]] = []

    def update(self, changed: ChangedInstance) -> None:
        """An instance changed; its override may have."""
        override = changed.listing.override if changed.listing is not None else None
        known = self._waiting.get(changed.key)
        if override is None or override.length is None:
            self._waiting.pop(changed.key, None)
        elif known is None or known.override != override:
            until = self._clock.now() + override.length
            self._waiting[changed.key] = _Waiting(override, until)
            heappush(self._heap, (until, changed.key))
            if len(self._heap) > 2 * len(self._waiting) + MAX_STALE_OVERRIDE_ENTRIES:
                self._heap = sorted((waiting.until, key) for key, waiting in self._waiting.items())

    async def round(self) -> None:
        """End what has lasted its length, and wait for the next look."""
        now = self._clock.now()
        for _ in range(MAX_OVERRIDES_PER_ROUND):
            if not self._heap or self._heap[0][0] > now:
                break
            until, key = heappop(self._heap)
            waiting = self._waiting.get(key)
            if waiting is not None and waiting.until == until:
                caller = Caller(REGISTRY_ACTOR, self._clock.wall())
                self._proposals.add((key, "override"), observations.expire_override(key, waiting.override, caller))
        await self._clock.sleep(OVERRIDE_ROUND_INTERVAL)
