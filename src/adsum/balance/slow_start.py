"""Slow start: an endpoint that just became usable takes its share of calls little by little.

The factor is Envoy's (envoyproxy.io, "Slow start mode"): max(least, (max(age, 1 s) / window) ** (1 / aggression)).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import Final

from adsum.core.errors import Invalid

RAMP_INTERVAL: Final = 1.0
"""Seconds between two changes of warmth: a picker is rebuilt this often while somebody is ramping."""
MAX_WINDOW: Final = 3_600.0

_ALL_WARM: Final[Mapping[str, float]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SlowStart:
    """How slowly: over `window` seconds (0.0: off), from the factor `least`; `aggression` above 1.0 rises sooner."""

    window: float = 0.0
    aggression: float = 1.0
    least: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 <= self.window <= MAX_WINDOW:
            raise Invalid("window", f"must be 0 to {MAX_WINDOW:g} seconds")
        if not 0.01 <= self.aggression <= 100.0:
            raise Invalid("aggression", "must be 0.01 to 100")
        if not 0.0 < self.least <= 1.0:
            raise Invalid("least", "must be a share above 0, at most 1")

    def factor(self, age: float) -> float:
        """What to multiply the weight by, `age` seconds after the endpoint became usable."""
        if age >= self.window:
            return 1.0
        risen: float = (max(age, 1.0) / self.window) ** (1.0 / self.aggression)
        return min(1.0, max(self.least, risen))


class SlowStartTracker:
    """Who became usable when. Kept by the channel, which tells it every view."""

    def __init__(self, slow_start: SlowStart) -> None:
        self._slow_start = slow_start
        self._since: dict[str, float] | None = None
        self._ramping: set[str] = set()
        self._stepped = -inf

    def update_endpoints(self, usable: Iterable[str], now: float, replaced: Set[str] = frozenset()) -> None:
        """The ids that are usable from now on. Those in `replaced` are other processes than before, and start anew.

        Those of the first view of all count as warm: nobody knows for how long they have been usable. Who stops being
        usable starts anew when it is again.
        """
        if not self._slow_start.window:
            return
        if self._since is None:
            self._since = dict.fromkeys(usable, -inf)
            return
        before = {id: since for id, since in self._since.items() if id not in replaced}
        self._since = {id: before.get(id, now) for id in usable}
        self._ramping = {id for id in self._ramping if id in self._since} | (self._since.keys() - before.keys())

    def factors(self, now: float) -> Mapping[str, float]:
        """The factor of each endpoint that is still ramping; everyone else's is 1.0."""
        if not self._ramping or self._since is None:
            return _ALL_WARM
        self._stepped = now
        ages = {id: now - self._since[id] for id in self._ramping}
        self._ramping = {id for id, age in ages.items() if age < self._slow_start.window}
        return {id: self._slow_start.factor(ages[id]) for id in self._ramping}

    def next_change(self) -> float | None:
        """When to ask for `warmth` again and rebuild the picker; None if nobody is ramping."""
        return self._stepped + RAMP_INTERVAL if self._ramping else None
