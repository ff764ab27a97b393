"""Weighted random: every pick by chance, in proportion to weight, independent of the last."""

from __future__ import annotations

from collections.abc import Sequence, Set
from random import Random

from adsum.balance.load_tracker import Loads
from adsum.balance.picker import EXTRA_DRAWS, NOBODY, Picker, spare, standing
from adsum.balance.sampler import draw
from adsum.core.model import Endpoint
from adsum.core.selection import Choice


class WeightedRandom:
    """Anyone, by weight."""

    keyed = False

    def build(self, choices: Sequence[Choice], loads: Loads, rng: Random, previous: Picker | None = None) -> Picker:
        return Lottery(tuple(choices), rng) if choices else NOBODY


class Lottery:
    """Draws by weight in O(1)."""

    __slots__ = ("_draw", "_members", "_rng", "_weights", "choices")

    def __init__(self, choices: tuple[Choice, ...], rng: Random) -> None:
        self.choices = choices
        self._members, self._weights = standing(choices)
        self._rng = rng
        self._draw = draw(self._weights, rng).one

    def pick(self, hash_key: bytes | str | None = None, exclude: Set[str] | None = None) -> Endpoint:
        endpoint = self._members[self._draw()]
        if exclude and endpoint.id in exclude:
            return self._pick_other(exclude)
        return endpoint

    def _pick_other(self, exclude: Set[str]) -> Endpoint:
        for _ in range(EXTRA_DRAWS + len(exclude)):
            endpoint = self._members[self._draw()]
            if endpoint.id not in exclude:
                return endpoint
        return spare(self._members, self._weights, exclude, self._rng)
