"""Latencies of late, from the buckets that gateways tell, a little at a time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Final

LATENCY_WINDOW: Final = 60.0
"""Seconds after which a latency may be forgotten; after twice as long it is."""

BucketBounds = tuple[float, ...]
"""The upper bounds of the buckets, rising; above the last one is one more bucket."""


class LatencyWindow:
    """Counts by bucket. Time is monotonic seconds."""

    __slots__ = ("_before", "_now", "_since", "bounds")

    def __init__(self, bounds: BucketBounds, now: float) -> None:
        self.bounds = bounds
        self._since = now
        self._now = self._before = (0,) * (len(bounds) + 1)

    def add(self, counts: Iterable[int], now: float) -> None:
        """So many more, by bucket."""
        self._turn(now)
        self._now = _sum(self._now, counts)

    def counts(self, now: float) -> Sequence[int]:
        """Of the last `LATENCY_WINDOW` seconds, and at most as many before, by bucket."""
        self._turn(now)
        return _sum(self._now, self._before)

    def _turn(self, now: float) -> None:
        elapsed = now - self._since
        if elapsed >= LATENCY_WINDOW:
            nothing = (0,) * len(self._now)
            self._before = self._now if elapsed < 2 * LATENCY_WINDOW else nothing
            self._now, self._since = nothing, now


def quantile(rank: float, bounds: BucketBounds, counts: Sequence[int]) -> float:
    """What that share of them, above 0, did not exceed: as between the bounds of its bucket, at most the last bound.

    0.0 if there are none. As Prometheus' histogram_quantile() has it.
    """
    ranks = (0, *accumulate(counts))
    wanted = rank * ranks[-1]
    if not wanted:
        return 0.0
    bucket = bisect_left(ranks, wanted) - 1
    if bucket >= len(bounds):
        return bounds[-1]
    low, high = list(pairwise((0.0, *bounds)))[bucket]
    return low + (high - low) * (wanted - ranks[bucket]) / counts[bucket]


def _sum(one: Iterable[int], other: Iterable[int]) -> tuple[int, ...]:
    return tuple(map(int.__add__, one, other))
