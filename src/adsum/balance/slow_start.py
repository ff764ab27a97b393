"""Slow start: an endpoint that has just become usable gets few calls at first, and gradually more.

The factor is Envoy's ("Slow start mode"): max(min_factor, (max(age, 1 s) / window) ** (1 / aggression)).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import Final

from adsum.core.errors import Invalid

RAMP_INTERVAL: Final = 1.0
"""Seconds between two changes of the factors: the picker is rebuilt this often while a factor rises."""
MAX_WINDOW: Final = 3_600.0
"""Seconds; a longer window is refused."""

_NO_FACTORS: Final[Mapping[str, float]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SlowStart:
    """The options of slow start: over `window` seconds (0.0: off) the factor rises from `min_factor` to 1.0.

    An `aggression` above 1.0 makes it rise sooner.
    """

    window: float = 0.0
    aggression: float = 1.0
    min_factor: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 <= self.window <= MAX_WINDOW:
            raise Invalid("window", f"must be 0 to {MAX_WINDOW:g} seconds")
        if not 0.01 <= self.aggression <= 100.0:
            raise Invalid("aggression", "must be 0.01 to 100")
        if not 0.0 < self.min_factor <= 1.0:
            raise Invalid("min_factor", "must be a share above 0, at most 1")

    def factor(self, age: float) -> float:
        """Returns the factor for the weight of an endpoint that became usable `age` seconds ago."""
        if age >= self.window:
            return 1.0
        risen: float = (max(age, 1.0) / self.window) ** (1.0 / self.aggression)
        return min(1.0, max(self.min_factor, risen))


class SlowStartTracker:
    """Tracks since when each endpoint is usable. The channel passes it every view."""

    def __init__(self, slow_start: SlowStart) -> None:
        self._slow_start = slow_start
        self._since: dict[str, float] | None = None
        self._ramping: set[str] = set()
        self._updated_at = -inf

    def update_endpoints(self, came: Iterable[str], gone: Iterable[str], now: float) -> None:
        """Adds the ids that are usable from now on, or whose process was replaced; drops those no longer usable.

        Endpoints of the first view have the factor 1.0, since it is not known for how long they have been usable. An
        endpoint that stops being usable starts again when it is usable again.
        """
        if not self._slow_start.window:
            return
        if self._since is None:
            self._since = dict.fromkeys(came, -inf)
            return
        for id in gone:
            self._since.pop(id, None)
            self._ramping.discard(id)
        for id in came:
            self._since[id] = now
            self._ramping.add(id)

    def factors(self, now: float) -> Mapping[str, float]:
        """Returns the factor of each endpoint that is still rising; all others have 1.0."""
        if not self._ramping or self._since is None:
            return _NO_FACTORS
        self._updated_at = now
        ages = {id: now - self._since[id] for id in self._ramping}
        self._ramping = {id for id, age in ages.items() if age < self._slow_start.window}
        return {id: self._slow_start.factor(ages[id]) for id in self._ramping}

    def next_change(self) -> float | None:
        """Returns the time at which to call `factors` again and rebuild the picker; None if no factor rises."""
        return self._updated_at + RAMP_INTERVAL if self._ramping else None
