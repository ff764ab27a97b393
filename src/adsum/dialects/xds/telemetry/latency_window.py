"""Recent latencies, from the histograms that gateways report piece by piece."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Final

LATENCY_WINDOW: Final = 60.0
"""Seconds after which a latency may be forgotten; after twice as long it is."""

BucketBounds = tuple[float, ...]
"""The upper bounds of the buckets, ascending; one more bucket is above the last bound."""


class LatencyWindow:
    """Counts latencies by bucket over a sliding time. Time is monotonic seconds."""

    __slots__ = ("_before", "_now", "_since", "bounds")

    def __init__(self, bounds: BucketBounds, now: float) -> None:
        self.bounds = bounds
        self._since = now
        self._now = self._before = (0,) * (len(bounds) + 1)

    def add(self, counts: Iterable[int], now: float) -> None:
        """Adds counts, by bucket."""
        self._rotate(now)
        self._now = _sum(self._now, counts)

    def counts(self, now: float) -> Sequence[int]:
        """Returns the counts by bucket. They cover the last one to two times `LATENCY_WINDOW` seconds."""
        self._rotate(now)
        return _sum(self._now, self._before)

    def _rotate(self, now: float) -> None:
        elapsed = now - self._since
        if elapsed >= LATENCY_WINDOW:
            nothing = (0,) * len(self._now)
            self._before = self._now if elapsed < 2 * LATENCY_WINDOW else nothing
            self._now, self._since = nothing, now


def quantile(rank: float, bounds: BucketBounds, counts: Sequence[int]) -> float:
    """Returns the latency that a share `rank` (above 0) of all does not exceed; 0.0 of none.

    Interpolated inside its bucket, and at most the last bound, like histogram_quantile() of Prometheus.
    """
    cumulative = (0, *accumulate(counts))
    wanted = rank * cumulative[-1]
    if not wanted:
        return 0.0
    bucket = bisect_left(cumulative, wanted) - 1
    if bucket >= len(bounds):
        return bounds[-1]
    low, high = list(pairwise((0.0, *bounds)))[bucket]
    return low + (high - low) * (wanted - cumulative[bucket]) / counts[bucket]


def _sum(one: Iterable[int], other: Iterable[int]) -> tuple[int, ...]:
    return tuple(map(int.__add__, one, other))
