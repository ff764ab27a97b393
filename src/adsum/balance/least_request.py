"""Least request: of two endpoints drawn by weight, pick the one with fewer calls in flight per weight."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from adsum.balance.load_tracker import LoadTracker
from adsum.balance.p2c import TwoChoicesPicker
from adsum.balance.picker import EMPTY_PICKER, Picker
from adsum.core.weighted_endpoints import WeightedEndpoint, WeightedEndpoints


class LeastRequest:
    """The policy that picks the less busy of two endpoints."""

    keyed = False

    def build(
        self, choices: Sequence[WeightedEndpoint], loads: LoadTracker, rng: Random, previous: Picker | None = None
    ) -> Picker:
        return LeastRequestPicker(WeightedEndpoints.of(choices), loads, rng, previous) if choices else EMPTY_PICKER


class LeastRequestPicker(TwoChoicesPicker):
    """Compares the calls in flight."""

    __slots__ = ()

    def is_busier(self, first: int, second: int) -> bool:
        calls = self._loads[first].in_flight
        if not calls:
            return False
        weights = self._weights
        return calls * weights[second] > self._loads[second].in_flight * weights[first]
