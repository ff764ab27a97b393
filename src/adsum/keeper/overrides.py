"""The overrides with a length: ends them when it is over. The time starts again when the registry restarts."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

from adsum.core.access.principal import REGISTRY_ACTOR
from adsum.core.catalog import observations
from adsum.core.catalog.decisions import Caller
from adsum.core.model import Key, Override
from adsum.keeper.changed_instances import ChangedInstance
from adsum.keeper.proposals import Proposals
from adsum.ports import Clock

MAX_OVERRIDES_PER_ROUND: Final = 1_000
"""Overrides that end in one round. The rest waits for the next one."""
OVERRIDE_ROUND_INTERVAL: Final = 1.0
"""Seconds between two rounds: the length of the shortest override."""
MAX_STALE_OVERRIDE_ENTRIES: Final = 1_000
"""Heap entries of cleared overrides, in addition to those in use. Past it the heap is rebuilt."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    override: Override
    until: float


class OverrideKeeper:
    """Ends the overrides of listed instances when their length is over."""

    def __init__(self, proposals: Proposals, clock: Clock) -> None:
        self._proposals = proposals
        self._clock = clock
        self._waiting: dict[Key, _Waiting] = {}
        self._heap: list[tuple[float, Key]] = []

    def update(self, changed: ChangedInstance) -> None:
        """Follows the change of an instance, whose override may have changed."""
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
        """Ends the overrides whose length is over, and waits until the next round."""
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
