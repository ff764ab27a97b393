"""Peak EWMA: of two endpoints drawn by weight, the one whose calls are likely to be done sooner.

After finagle's `loadbalancer/PeakEwma.scala` and linkerd: cost = peak EWMA of latency times (calls in flight + 1). An
endpoint never seen costs nothing while it is idle and a penalty while its first call is out, so that it is tried but
not flooded.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from random import Random
from typing import Final

from adsum.balance.load_tracker import EndpointLoad, LoadTracker
from adsum.balance.p2c import TwoChoicesPicker
from adsum.balance.picker import EMPTY_PICKER, Picker
from adsum.core.selection import WeightedEndpoint

UNSEEN_PENALTY: Final = 1e6
"""Seconds that an endpoint costs while its first call is out: more than any latency."""
MAX_AGE_EXPONENT: Final = 500.0
"""Bound of the exponent when two latencies' ages are compared; beyond it the older counts for nothing anyway."""


class PeakEwma:
    """The likely faster of two."""

    keyed = False

    def build(
        self, choices: Sequence[WeightedEndpoint], loads: LoadTracker, rng: Random, previous: Picker | None = None
    ) -> Picker:
        return PeakEwmaPicker(tuple(choices), loads, rng) if choices else EMPTY_PICKER


class PeakEwmaPicker(TwoChoicesPicker):
    """Compares cost.

    Both latencies sink by exp(-elapsed / decay) since they were last seen; in the comparison "now" cancels out, and
    only the difference of the two instants is left. So a pick needs no clock.
    """

    __slots__ = ("_decay",)

    def __init__(self, choices: tuple[WeightedEndpoint, ...], loads: LoadTracker, rng: Random) -> None:
        super().__init__(choices, loads, rng)
        self._decay = loads.decay

    def is_busier(self, first: int, second: int) -> bool:
        one, other = self._loads[first], self._loads[second]
        cost, rival = _cost(one), _cost(other)
        if not cost or not rival:
            return cost > rival
        if one.at != other.at and one.latency and other.latency:
            cost *= exp(max(-MAX_AGE_EXPONENT, min(MAX_AGE_EXPONENT, (one.at - other.at) / self._decay)))
        return cost * self._weights[second] > rival * self._weights[first]


def _cost(load: EndpointLoad) -> float:
    latency = load.latency
    return latency * (load.in_flight + 1) if latency else UNSEEN_PENALTY * load.in_flight
