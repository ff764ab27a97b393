"""Least request: of two endpoints drawn by weight, the one with fewer calls in flight per weight."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from adsum.balance.load_tracker import Loads
from adsum.balance.p2c import TwoChoices
from adsum.balance.picker import NOBODY, Picker
from adsum.core.selection import Choice


class LeastRequest:
    """The less busy of two."""

    keyed = False

    def build(self, choices: Sequence[Choice], loads: Loads, rng: Random, previous: Picker | None = None) -> Picker:
        return Fewer(tuple(choices), loads, rng) if choices else NOBODY


class Fewer(TwoChoices):
    """Compares calls in flight."""

    __slots__ = ()

    def busier(self, first: int, second: int) -> bool:
        calls = self._loads[first].in_flight
        if not calls:
            return False
        weights = self._weights
        return calls * weights[second] > self._loads[second].in_flight * weights[first]
