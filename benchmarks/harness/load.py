"""The results of load: callers that each send the next request when they have the answer to the last one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import Final

from benchmarks.harness.processes import BenchmarkFailed, MeasuredProcess

CALLERS: Final = 64
"""Concurrent callers, the same for every server."""


@dataclass(frozen=True, slots=True)
class LoadRunResult:
    """The result of a run. Times are seconds; `answer_bytes` is the mean size of an answer's body."""

    requests: int
    failed: int
    took: float
    p50: float
    p99: float
    answer_bytes: float

    @property
    def rate(self) -> float:
        return self.requests / self.took


@dataclass(frozen=True, slots=True)
class MeasuredLoad:
    """The result of a run and its cost: seconds of the server's CPU per request."""

    load: LoadRunResult
    cpu: float


def quantile(values: Sequence[float], rank: float) -> float:
    """Returns the value that a share `rank` of the sorted values does not exceed; 0.0 of none."""
    return values[max(0, ceil(rank * len(values)) - 1)] if values else 0.0


def measure(server: MeasuredProcess, run: Callable[[], LoadRunResult]) -> MeasuredLoad:
    """Runs a load and measures its cost. Raises `WrongAnswers` unless every request succeeded."""
    before = server.cpu()
    load = run()
    spent = server.cpu() - before
    if load.failed or not load.requests:
        raise WrongAnswers(f"{server.name}: {load.failed} of {load.requests + load.failed} requests failed")
    return MeasuredLoad(load, spent / load.requests)


class WrongAnswers(BenchmarkFailed):
    """Requests failed. A benchmark with failures has no result, since errors are fast."""


def median_of(rounds: Sequence[MeasuredLoad], metric: Callable[[MeasuredLoad], float]) -> float:
    """Returns the median of a metric over the rounds."""
    return median(metric(measurement) for measurement in rounds)


def ratio(
    ours: Sequence[MeasuredLoad], theirs: Sequence[MeasuredLoad], metric: Callable[[MeasuredLoad], float]
) -> float:
    """Returns the median over the rounds of ours / theirs: what slows the machine for a while slows both."""
    return median(metric(a) / metric(b) for a, b in zip(ours, theirs, strict=True))


def cpu(measurement: MeasuredLoad) -> float:
    return measurement.cpu


def speed(measurement: MeasuredLoad) -> float:
    return measurement.load.rate


def p50(measurement: MeasuredLoad) -> float:
    return measurement.load.p50


def p99(measurement: MeasuredLoad) -> float:
    return measurement.load.p99
