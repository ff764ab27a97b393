"""Weighted random: every pick is random in proportion to weight, and independent of the ones before."""

from __future__ import annotations

from collections.abc import Sequence, Set
from random import Random

from adsum.balance.load_tracker import LoadTracker
from adsum.balance.picker import EMPTY_PICKER, EXTRA_SAMPLES, Picker, pickable, sample_remaining
from adsum.balance.sampler import Sampler, sampler
from adsum.core.model import Endpoint
from adsum.core.weighted_endpoints import WeightedEndpoint, WeightedEndpoints


class WeightedRandom:
    """The policy that picks at random by weight."""

    keyed = False

    def build(
        self, choices: Sequence[WeightedEndpoint], loads: LoadTracker, rng: Random, previous: Picker | None = None
    ) -> Picker:
        return WeightedRandomPicker(WeightedEndpoints.of(choices), rng, previous) if choices else EMPTY_PICKER


class WeightedRandomPicker:
    """Samples endpoints by weight in O(1)."""

    __slots__ = ("_members", "_rng", "_sample", "_sampler", "_weights", "choices")

    def __init__(self, choices: WeightedEndpoints, rng: Random, previous: Picker | None = None) -> None:
        self.choices = choices
        self._members, self._weights = pickable(choices)
        self._rng = rng
        known = previous if isinstance(previous, WeightedRandomPicker) and previous._rng is rng else None
        is_reusable = known is not None and known._weights == self._weights
        self._sampler: Sampler = known._sampler if known and is_reusable else sampler(self._weights, rng)
        self._sample = self._sampler.sample

    def pick(self, hash_key: bytes | str | None = None, exclude: Set[str] | None = None) -> Endpoint:
        endpoint = self._members[self._sample()]
        if exclude and endpoint.id in exclude:
            return self._pick_other(exclude)
        return endpoint

    def _pick_other(self, exclude: Set[str]) -> Endpoint:
        for _ in range(EXTRA_SAMPLES + len(exclude)):
            endpoint = self._members[self._sample()]
            if endpoint.id not in exclude:
                return endpoint
        return sample_remaining(self._members, self._weights, exclude, self._rng)
