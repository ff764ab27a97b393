"""What a load is and what it found: so many callers at a time, each asking again once it has its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import Final

from benchmarks.harness.processes import Child

CALLERS: Final = 64
"""How many ask at the same time, of every server alike."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a run found. Lengths are seconds; `answer` is the bytes of one answer's body."""

    requests: int
    failed: int
    took: float
    p50: float
    p99: float
    answer: float

    @property
    def rate(self) -> float:
        return self.requests / self.took


@dataclass(frozen=True, slots=True)
class Measured:
    """A load and what it cost the server: seconds of processor time a request."""

    load: Load
    cpu: float


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the sorted values don't exceed; 0.0 of none."""
    return values[max(0, ceil(share * len(values)) - 1)] if values else 0.0


def measured(server: Child, run: Callable[[], Load]) -> Measured:
    """Run a load and look at what it cost. Raises `WrongAnswers` if not every request was answered well."""
    before = server.cpu()
    load = run()
    spent = server.cpu() - before
    if load.failed or not load.requests:
        raise WrongAnswers(f"{server.name}: {load.failed} of {load.requests + load.failed} requests failed")
    return Measured(load, spent / load.requests)


class WrongAnswers(Exception):
    """Errors are quick: what failed is not counted as speed."""


def typical(rounds: Sequence[Measured], of: Callable[[Measured], float]) -> float:
    """The median over the rounds."""
    return median(of(each) for each in rounds)


def ratio(ours: Sequence[Measured], theirs: Sequence[Measured], of: Callable[[Measured], float]) -> float:
    """The median of ours / theirs, round by round: what slows the machine for a while slows both."""
    return median(of(a) / of(b) for a, b in zip(ours, theirs, strict=True))


def cpu(each: Measured) -> float:
    return each.cpu


def speed(each: Measured) -> float:
    return each.load.rate


def p50(each: Measured) -> float:
    return each.load.p50


def p99(each: Measured) -> float:
    return each.load.p99
