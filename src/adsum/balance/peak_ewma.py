"""Peak EWMA: of two endpoints drawn by weight, pick the one whose calls are likely to end sooner.

After finagle's `loadbalancer/PeakEwma.scala` and linkerd: cost = peak EWMA of latency * (calls in flight + 1). An
endpoint without a latency costs nothing while it is idle, and a penalty while its first call is in flight, so that it
is tried but not flooded.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from random import Random
from typing import Final

from adsum.balance.load_tracker import EndpointLoad, LoadTracker
from adsum.balance.p2c import TwoChoicesPicker
from adsum.balance.picker import EMPTY_PICKER, Picker
from adsum.core.weighted_endpoints import WeightedEndpoint, WeightedEndpoints

UNSEEN_PENALTY: Final = 1e6
"""Seconds, the cost of an endpoint while its first call is in flight: more than any latency."""
MAX_AGE_EXPONENT: Final = 500.0
"""The bound of the exponent when the ages of two latencies are compared; beyond it the older one is negligible."""


class PeakEwma:
    """The policy that picks the endpoint of two that is likely to be faster."""

    keyed = False

    def build(
        self, choices: Sequence[WeightedEndpoint], loads: LoadTracker, rng: Random, previous: Picker | None = None
    ) -> Picker:
        return PeakEwmaPicker(WeightedEndpoints.of(choices), loads, rng, previous) if choices else EMPTY_PICKER


class PeakEwmaPicker(TwoChoicesPicker):
    """Compares the cost of two endpoints.

    Both latencies have fallen by exp(-elapsed / decay) since they were observed. In the comparison the current time
    cancels out: only the difference between the two times of observation counts. So a pick needs no clock.
    """

    __slots__ = ("_decay",)

    def __init__(
        self, choices: WeightedEndpoints, loads: LoadTracker, rng: Random, previous: Picker | None = None
    ) -> None:
        super().__init__(choices, loads, rng, previous)
        self._decay = loads.decay

    def is_busier(self, first: int, second: int) -> bool:
        load, other = self._loads[first], self._loads[second]
        cost, other_cost = _cost(load), _cost(other)
        if not cost or not other_cost:
            return cost > other_cost
        if load.observed_at != other.observed_at and load.latency and other.latency:
            exponent = (load.observed_at - other.observed_at) / self._decay
            cost *= exp(max(-MAX_AGE_EXPONENT, min(MAX_AGE_EXPONENT, exponent)))
        return cost * self._weights[second] > other_cost * self._weights[first]


def _cost(load: EndpointLoad) -> float:
    latency = load.latency
    return latency * (load.in_flight + 1) if latency else UNSEEN_PENALTY * load.in_flight
