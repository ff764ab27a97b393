"""Ejection: the moves of an endpoint between in and out, and their limits, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from types import MappingProxyType
from typing import Final

from adsum.core.errors import Invalid


class Place(StrEnum):
    """Where an endpoint is, as this consumer treats it."""

    IN = "in"
    OUT = "out"


class Cause(StrEnum):
    """What moves it."""

    FAILED_IN_A_ROW = "failed-in-a-row"
    FAILED_TOO_OFTEN = "failed-too-often"
    FAILED_MORE_THAN_OTHERS = "failed-more-than-others"
    CALM = "calm"
    SERVED = "served"
    SHARE_SHRANK = "share-shrank"
    REPLACED = "replaced"
    """Another process has its id now."""


MOVES: Final[Mapping[tuple[Place, Cause], tuple[Place, int]]] = MappingProxyType(
    {
        (Place.IN, Cause.FAILED_IN_A_ROW): (Place.OUT, +1),
        (Place.IN, Cause.FAILED_TOO_OFTEN): (Place.OUT, +1),
        (Place.IN, Cause.FAILED_MORE_THAN_OTHERS): (Place.OUT, +1),
        (Place.IN, Cause.CALM): (Place.IN, -1),
        (Place.OUT, Cause.SERVED): (Place.IN, 0),
        (Place.OUT, Cause.SHARE_SHRANK): (Place.IN, 0),
        (Place.OUT, Cause.REPLACED): (Place.IN, 0),
    }
)
"""Where each cause leads, and what it adds to the ejections counted.

A pair that is missing can't happen: calls that end while their endpoint is out are not counted, and only who is out can
serve its time or be replaced there.
"""


@dataclass(frozen=True, slots=True)
class Limits:
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

    def most_out(self, endpoints: int) -> int:
        """How many of so many endpoints may be out at once."""
        return min(max(1, int(self.share * endpoints)), max(0, endpoints - 1)) if self.share else 0

    @property
    def most_times(self) -> int:
        """The ejections that are counted at most: more would lengthen nothing, only be forgiven later."""
        return max(1, ceil(self.longest / self.base))

    def length(self, times: int) -> float:
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
class Event:
    """An endpoint went out, until an instant, or came back in (`until` is None)."""

    id: str
    place: Place
    cause: Cause
    until: float | None = None
