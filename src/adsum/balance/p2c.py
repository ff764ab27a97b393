"""The power of two choices: draw two endpoints by weight, and pick the one with the lower load.

M. Mitzenmacher, "The power of two choices in randomized load balancing" (2001). The policy defines load; it is compared
per weight, as in nginx's `random two least_conn`. The first draw wins a tie, so that the picks of an idle consumer are
exactly by weight.
"""

from __future__ import annotations

from collections.abc import Set
from random import Random

from adsum.balance.load_tracker import EndpointLoad, LoadTracker
from adsum.balance.picker import EXTRA_SAMPLES, Picker, pickable, sample_remaining
from adsum.balance.sampler import Sampler, sampler
from adsum.core.endpoint_changes import amended, endpoint_changes
from adsum.core.model import Endpoint
from adsum.core.weighted_endpoints import WeightedEndpoints


class TwoChoicesPicker:
    """The picker of the policies that compare two endpoints. The policy defines `is_busier`."""

    __slots__ = ("_loads", "_members", "_rng", "_sample_pair", "_sampler", "_tracker", "_weights", "choices")

    def __init__(
        self, choices: WeightedEndpoints, loads: LoadTracker, rng: Random, previous: Picker | None = None
    ) -> None:
        """The loads of members that `previous` has, too, come from there."""
        self.choices = choices
        self._members, self._weights = pickable(choices)
        self._tracker = loads
        self._rng = rng
        known = previous if isinstance(previous, TwoChoicesPicker) and previous._tracker is loads else None
        self._loads = self._loads_of_members(known)
        is_reusable = known is not None and known._rng is rng and known._weights == self._weights
        self._sampler: Sampler = known._sampler if known and is_reusable else sampler(self._weights, rng)
        self._sample_pair = self._sampler.sample_pair

    def _loads_of_members(self, known: TwoChoicesPicker | None) -> list[EndpointLoad]:
        load_of = self._tracker.load_of
        if known is None:
            return [load_of(endpoint.instance.id) for endpoint in self._members]
        changes = endpoint_changes(known._members, self._members)
        return amended(known._loads, changes, lambda endpoint: load_of(endpoint.instance.id))

    def pick(self, hash_key: bytes | str | None = None, exclude: Set[str] | None = None) -> Endpoint:
        if exclude:
            return self._pick_other(exclude)
        first, second = self._sample_pair()
        return self._members[second if self.is_busier(first, second) else first]

    def is_busier(self, first: int, second: int) -> bool:
        """Returns whether the first of two members, given by index, has the higher load per weight. False for a tie."""
        raise NotImplementedError

    def _pick_other(self, exclude: Set[str]) -> Endpoint:
        """Returns the less busy of the first two samples that are not excluded, or the only one that was found.

        The number of draws is bounded. If no sample can be used, every endpoint is looked at.
        """
        found = -1
        for _ in range(EXTRA_SAMPLES + len(exclude)):
            for index in self._sample_pair():
                if self._members[index].id in exclude or index == found:
                    continue
                if found >= 0:
                    return self._members[index if self.is_busier(found, index) else found]
                found = index
        if found >= 0:
            return self._members[found]
        return sample_remaining(self._members, self._weights, exclude, self._rng)
