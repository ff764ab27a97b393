"""A histogram of request durations by operation and status. An observation takes a third of a microsecond, because it
is on the hot path.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from typing import Final

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

BUCKET_BOUNDS: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Upper bounds of the buckets, in seconds."""


class _Timing:
    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKET_BOUNDS) + 1)
        self.total = 0.0


class RequestTimings(Collector):
    """A histogram that one thread uses alone, and that therefore needs no lock."""

    def __init__(self) -> None:
        self._timings: dict[tuple[str, int], _Timing] = {}

    def observe(self, operation: str, code: int, took: float) -> None:
        """Count a request that was answered with the status `code` after `took` seconds."""
        timing = self._timings.get((operation, code))
        if timing is None:
            timing = self._timings[operation, code] = _Timing()
        timing.counts[bisect_left(BUCKET_BOUNDS, took)] += 1
        timing.total += took

    def collect(self) -> Iterable[Metric]:
        """Yields the histogram for Prometheus."""
        family = HistogramMetricFamily(
            "adsum_request_seconds", "Seconds from a request to its response", labels=("operation", "code")
        )
        bounds = [*map(str, BUCKET_BOUNDS), "+Inf"]
        for (operation, code), timing in sorted(self._timings.items()):
            buckets = list(zip(bounds, map(float, accumulate(timing.counts)), strict=True))
            family.add_metric((operation, str(code)), buckets, timing.total)
        yield family
