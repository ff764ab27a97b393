"""The ejection of endpoints: its options, and the moves between active and ejected as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from types import MappingProxyType
from typing import Final

from adsum.core.errors import Invalid


class EjectionState(StrEnum):
    """The state of an endpoint at one consumer."""

    ACTIVE = "active"
    EJECTED = "ejected"


class EjectionCause(StrEnum):
    """The cause of a move."""

    CONSECUTIVE_FAILURES = "consecutive-failures"
    FAILURE_RATE = "failure-rate"
    """The failure rate of an interval reached the threshold."""
    ABOVE_MEAN_FAILURE_RATE = "above-mean-failure-rate"
    """The failure rate of an interval was far above the mean of all endpoints."""
    CALM_INTERVAL = "calm-interval"
    """An interval passed without an ejection."""
    TIME_SERVED = "time-served"
    """The time of the ejection is over."""
    LIMIT_LOWERED = "limit-lowered"
    """The service has fewer endpoints now, so fewer may be ejected."""
    PROCESS_REPLACED = "process-replaced"
    """Another process has the endpoint's id now."""


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
"""The state after each cause, and the change to the number of counted ejections.

Other pairs do not happen: calls that end while their endpoint is ejected are not counted, and the last three causes
only concern ejected endpoints.
"""


@dataclass(frozen=True, slots=True)
class OutlierOptions:
    """The options of outlier detection. Times are in seconds.

    - `consecutive_failures`: failures in a row that eject an endpoint; 0: off.
    - `interval`: the length of the intervals over which failure rates are judged.
    - `base_ejection_time`: the length of the first ejection. The n-th lasts n times as long, up to `max_ejection_time`.
    - `max_ejected_share`: the share of the endpoints that may be ejected at once. At least one may be, but never the
      only one.
    - `min_calls`: an endpoint with fewer calls in an interval is not judged by its rate.
    - `min_endpoints`: with fewer endpoints to judge, no rate is judged.
    - `failure_rate`: the share of failed calls that ejects an endpoint; 0: off.
    - `stdev_factor`: the number of standard deviations above the mean failure rate that ejects an endpoint; 0: off.
    """

    consecutive_failures: int = 5
    interval: float = 10.0
    base_ejection_time: float = 30.0
    max_ejection_time: float = 300.0
    max_ejected_share: float = 0.1
    min_calls: int = 50
    min_endpoints: int = 5
    failure_rate: float = 0.85
    stdev_factor: float = 1.9

    def __post_init__(self) -> None:
        for field, low, high in _RANGES:
            if not low <= getattr(self, field) <= high:
                raise Invalid(field, f"must be {low:g} to {high:g}")

    def max_ejected(self, endpoints: int) -> int:
        """Returns the number of endpoints that may be ejected at once if there are `endpoints` in all."""
        if not self.max_ejected_share:
            return 0
        return min(max(1, int(self.max_ejected_share * endpoints)), max(0, endpoints - 1))

    @property
    def max_counted_ejections(self) -> int:
        """The highest number of ejections that is counted: more would lengthen nothing and take longer to decay."""
        return max(1, ceil(self.max_ejection_time / self.base_ejection_time))

    def ejection_time(self, ejections: int) -> float:
        """Returns the length of the n-th ejection in seconds, where n is `ejections`."""
        longest = max(self.base_ejection_time, self.max_ejection_time)
        return min(self.base_ejection_time * ejections, longest)


_RANGES: Final = (
    ("consecutive_failures", 0, 1_000_000),
    ("interval", 0.1, 3_600.0),
    ("base_ejection_time", 0.1, 86_400.0),
    ("max_ejection_time", 0.1, 86_400.0),
    ("max_ejected_share", 0.0, 1.0),
    ("min_calls", 1, 1_000_000_000),
    ("min_endpoints", 1, 1_000_000),
    ("failure_rate", 0.0, 1.0),
    ("stdev_factor", 0.0, 1_000.0),
)


@dataclass(frozen=True, slots=True)
class EjectionEvent:
    """An endpoint was ejected until the time `until`, or is active again (`until` is None)."""

    id: str
    state: EjectionState
    cause: EjectionCause
    until: float | None = None
