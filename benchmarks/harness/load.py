"""What a load is and what it found: so many callers at a time, each asking again once it has its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import Final

from benchmarks.harness.processes import MeasuredProcess

CALLERS: Final = 64
"""How many ask at the same time, of every server alike."""


@dataclass(frozen=True, slots=True)
class LoadRunResult:
    """What a run found. Lengths are seconds; `answer` is the bytes of one answer's body."""

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
    """A load and what it cost the server: seconds of processor time a request."""

    load: LoadRunResult
    cpu: float


def quantile(values: Sequence[float], rank: float) -> float:
    """The value that `rank` of the sorted values don't exceed; 0.0 of none."""
    return values[max(0, ceil(rank * len(values)) - 1)] if values else 0.0


def measure(server: MeasuredProcess, run: Callable[[], LoadRunResult]) -> MeasuredLoad:
    """Run a load and look at what it cost. Raises `WrongAnswers` if not every request was answered well."""
    before = server.cpu()
    load = run()
    spent = server.cpu() - before
    if load.failed or not load.requests:
        raise WrongAnswers(f"{server.name}: {load.failed} of {load.requests + load.failed} requests failed")
    return MeasuredLoad(load, spent / load.requests)


class WrongAnswers(Exception):
    """Errors are quick: what failed is not counted as speed."""


def median_of(rounds: Sequence[MeasuredLoad], metric: Callable[[MeasuredLoad], float]) -> float:
    """The median over the rounds."""
    return median(metric(each) for each in rounds)


def ratio(
    ours: Sequence[MeasuredLoad], theirs: Sequence[MeasuredLoad], metric: Callable[[MeasuredLoad], float]
) -> float:
    """The median of ours / theirs, round by round: what slows the machine for a while slows both."""
    return median(metric(a) / metric(b) for a, b in zip(ours, theirs, strict=True))


def cpu(measurement: MeasuredLoad) -> float:
    return measurement.cpu


def speed(measurement: MeasuredLoad) -> float:
    return measurement.load.rate


def p50(measurement: MeasuredLoad) -> float:
    return measurement.load.p50


def p99(measurement: MeasuredLoad) -> float:
    return measurement.load.p99
