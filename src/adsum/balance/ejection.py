"""Ejection: the moves of an endpoint between in and out, and their limits, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from types import MappingProxyType
from typing import Final

from adsum.core.errors import Invalid


class EjectionState(StrEnum):
    """Where an endpoint is, as this consumer treats it."""

    ACTIVE = "in"
    EJECTED = "out"


class EjectionCause(StrEnum):
    """What moves it."""

    CONSECUTIVE_FAILURES = "failed-in-a-row"
    FAILURE_RATE = "failed-too-often"
    ABOVE_MEAN_FAILURE_RATE = "failed-more-than-others"
    CALM_INTERVAL = "calm"
    TIME_SERVED = "served"
    LIMIT_LOWERED = "share-shrank"
    PROCESS_REPLACED = "replaced"
    """Another process has its id now."""


MOVES: Final[Mapping[tuple[EjectionState, EjectionCause], tuple[EjectionState, int]]] = MappingProxyType(
    {
        (EjectionState.ACTIVE, EjectionCause.CONSECUTIVE_FAILURES): (EjectionState.EJECTED, +1),
        (EjectionState.ACTIVE, EjectionCause.FAILURE_RATE): (EjectionState.EJECTED, +1),
        (EjectionState.ACTIVE, EjectionCause.ABOVE_MEAN_FAILURE_RATE): (EjectionState.EJECTED, +1),
        (EjectionState.ACTIVE, EjectionCause.CALM_INTERVAL): (EjectionState.ACTIVE, -1),
        (EjectionState.EJECTED, EjectionCause.TIME_SERVED): (EjectionState.ACTIVE, 0),
        (EjectionState.EJECTED, EjectionCause.LIMIT_LOWERED): (EjectionState.ACTIVE, 0),
        (EjectionState.EJECTED, EjectionCause.PROCESS_REPLACED): (EjectionState.ACTIVE, 0),
    }
)
"""Where each cause leads, and what it adds to the ejections counted.

A pair that is missing can't happen: calls that end while their endpoint is out are not counted, and only who is out can
serve its time or be replaced there.
"""


@dataclass(frozen=True, slots=True)
class OutlierOptions:
    """When to eject and for how long. Lengths are seconds; 0 for `consecutive`, `most_failures` or `deviations` is off.

    Rates are judged over one `interval`, among endpoints with at least `volume` calls in it, if there are at least
    `hosts` of these: `most_failures` is the share of failures that ejects, `deviations` how many standard deviations
    below the mean success rate. `share` bounds how many are out: at least one may be, but never the only one.
    """

    consecutive: int = 5
    interval: float = 10.0
    base: float = 30.0
    longest: float = 300.0
    share: float = 0.1
    volume: int = 50
    hosts: int = 5
    most_failures: float = 0.85
    deviations: float = 1.9

    def __post_init__(self) -> None:
        for field, low, high in _RANGES:
            if not low <= getattr(self, field) <= high:
                raise Invalid(field, f"must be {low:g} to {high:g}")

    def max_ejected(self, endpoints: int) -> int:
        """How many of so many endpoints may be out at once."""
        return min(max(1, int(self.share * endpoints)), max(0, endpoints - 1)) if self.share else 0

    @property
    def max_counted_ejections(self) -> int:
        """The ejections that are counted at most: more would lengthen nothing, only be forgiven later."""
        return max(1, ceil(self.longest / self.base))

    def ejection_time(self, times: int) -> float:
        """How long the so-manieth ejection lasts."""
        return min(self.base * times, max(self.base, self.longest))


_RANGES: Final = (
    ("consecutive", 0, 1_000_000),
    ("interval", 0.1, 3_600.0),
    ("base", 0.1, 86_400.0),
    ("longest", 0.1, 86_400.0),
    ("share", 0.0, 1.0),
    ("volume", 1, 1_000_000_000),
    ("hosts", 1, 1_000_000),
    ("most_failures", 0.0, 1.0),
    ("deviations", 0.0, 1_000.0),
)


@dataclass(frozen=True, slots=True)
class EjectionEvent:
    """An endpoint went out, until an instant, or came back in (`until` is None)."""

    id: str
    state: EjectionState
    cause: EjectionCause
    until: float | None = None
