"""Random samples of indices by weight in O(1), shared by the random policies.

The alias method: A. J. Walker, "An efficient method for generating discrete random variables with general
distributions" (1977), built in O(n) after M. D. Vose (1991).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final, Protocol

from adsum.balance.picker import all_equal

MAX_REDRAWS: Final = 4
"""The number of times that a second index is drawn while it equals the first; after that the first is used twice."""


class Sampler(Protocol):
    """Draws random indices."""

    def sample(self) -> int: ...

    def sample_pair(self) -> tuple[int, int]:
        """Returns two indices, different if possible; the first is drawn exactly by weight."""
        ...


def sampler(weights: Sequence[float], rng: Random) -> Sampler:
    """Returns the cheapest exact sampler for these weights. There is at least one, and all are above 0."""
    return UniformSampler(len(weights), rng) if all_equal(weights) else WeightedSampler(weights, rng)


class UniformSampler:
    """Draws every index with the same probability."""

    __slots__ = ("_count", "_random")

    def __init__(self, count: int, rng: Random) -> None:
        self._count = count
        self._random = rng.random

    def sample(self) -> int:
        return int(self._random() * self._count)

    def sample_pair(self) -> tuple[int, int]:
        count = self._count
        if count == 1:
            return 0, 0
        first = int(self._random() * count)
        second = int(self._random() * (count - 1))
        return first, second if second < first else second + 1


class WeightedSampler:
    """Draws indices by weight. Each column of the alias table holds one index, or parts of two."""

    __slots__ = ("_alias", "_bar", "_count", "_random")

    def __init__(self, weights: Sequence[float], rng: Random) -> None:
        self._count = len(weights)
        self._random = rng.random
        scale = len(weights) / sum(weights)
        self._bar = bar = [weight * scale for weight in weights]
        self._alias = alias = list(range(len(weights)))
        light = [index for index, height in enumerate(bar) if height < 1.0]
        heavy = [index for index, height in enumerate(bar) if height >= 1.0]
        while light and heavy:
            low, high = light.pop(), heavy[-1]
            alias[low] = high
            bar[high] -= 1.0 - bar[low]
            if bar[high] < 1.0:
                light.append(heavy.pop())

    def sample(self) -> int:
        position = self._random() * self._count
        index = int(position)
        return index if position - index < self._bar[index] else self._alias[index]

    def sample_pair(self) -> tuple[int, int]:
        draw, count, bar, alias = self._random, self._count, self._bar, self._alias
        position = draw() * count
        first = int(position)
        if position - first >= bar[first]:
            first = alias[first]
        for _ in range(MAX_REDRAWS):
            position = draw() * count
            second = int(position)
            if position - second >= bar[second]:
                second = alias[second]
            if second != first:
                return first, second
        return first, first
