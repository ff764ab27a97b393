"""Overrides with a length: it is counted from when one was set, and afresh from a restart."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

from adsum.core.catalog import decisions
from adsum.core.catalog.decisions import REGISTRY, Caller
from adsum.core.model import Key, Override
from adsum.keeper.changed_instances import Touched
from adsum.keeper.proposals import Proposals
from adsum.ports import Clock

MOST_A_ROUND: Final = 1_000
"""How many overrides one round ends; the rest waits for the next one."""
PULSE: Final = 1.0
"""How often to look, in seconds: the shortest override lasts as long."""
STALE: Final = 1_000
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

    def follow(self, touched: Touched) -> None:
        """An instance changed; its override may have."""
        override = touched.listing.override if touched.listing is not None else None
        known = self._waiting.get(touched.key)
        if override is None or override.length is None:
            self._waiting.pop(touched.key, None)
        elif known is None or known.override != override:
            until = self._clock.now() + override.length
            self._waiting[touched.key] = _Waiting(override, until)
            heappush(self._heap, (until, touched.key))
            if len(self._heap) > 2 * len(self._waiting) + STALE:
                self._heap = sorted((waiting.until, key) for key, waiting in self._waiting.items())

    async def round(self) -> None:
        """End what has lasted its length, and wait for the next look."""
        now = self._clock.now()
        for _ in range(MOST_A_ROUND):
            if not self._heap or self._heap[0][0] > now:
                break
            until, key = heappop(self._heap)
            waiting = self._waiting.get(key)
            if waiting is not None and waiting.until == until:
                caller = Caller(REGISTRY, self._clock.wall())
                self._proposals.add((key, "override"), decisions.override_expired(key, waiting.override, caller))
        await self._clock.sleep(PULSE)
