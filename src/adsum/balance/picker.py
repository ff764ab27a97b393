"""The interfaces of load balancing: a policy builds a picker for a set of endpoints, and the picker never waits."""

from __future__ import annotations

from collections.abc import Sequence, Set
from itertools import compress
from random import Random
from typing import Final, NoReturn, Protocol

from adsum.balance.load_tracker import LoadTracker
from adsum.core.errors import AdsumError
from adsum.core.model import Endpoint
from adsum.core.weighted_endpoints import NO_ENDPOINTS, WeightedEndpoint, WeightedEndpoints

EXTRA_SAMPLES: Final = 8
"""The number of draws, plus one for each excluded endpoint, after which a policy looks at every endpoint (O(n))."""


class NoEndpoint(AdsumError):
    """No endpoint can be picked: none is usable, or all that are usable are excluded."""


class Picker(Protocol):
    """Picks from one fixed set of endpoints. It may be used from several threads."""

    @property
    def choices(self) -> WeightedEndpoints:
        """The endpoints and weights from which it was built."""
        ...

    def pick(self, hash_key: bytes | str | None = None, exclude: Set[str] | None = None) -> Endpoint:
        """Picks an endpoint, without waiting.

        Hash policies return the same endpoint for the same `hash_key`, and any endpoint by weight without one; other
        policies ignore it. The ids in `exclude` are not picked, for example those already tried. Raises `NoEndpoint`
        if no endpoint is left.
        """
        ...


class Policy(Protocol):
    """A load balancing policy."""

    @property
    def keyed(self) -> bool:
        """True if the policy picks by `hash_key`. Slow start is then off, since it would move keys at each step."""
        ...

    def build(
        self, choices: Sequence[WeightedEndpoint], loads: LoadTracker, rng: Random, previous: Picker | None = None
    ) -> Picker:
        """Builds a picker of `choices`, whose weights are at least 0.

        Endpoints of weight 0 are picked only if no other weight is there. `previous` is the picker that this one
        replaces; where the algorithm allows, its work and its position are carried over.
        """
        ...


class EmptyPicker:
    """The picker for an empty set of endpoints."""

    choices: WeightedEndpoints = NO_ENDPOINTS

    def pick(self, hash_key: bytes | str | None = None, exclude: Set[str] | None = None) -> NoReturn:
        raise NoEndpoint("there is no endpoint to pick")


EMPTY_PICKER: Final = EmptyPicker()


def pickable(choices: WeightedEndpoints) -> tuple[Sequence[Endpoint], Sequence[float]]:
    """Returns the endpoints that can be picked, and their weights: those with a weight above 0.

    If there are none, all endpoints can be picked, with the same weight.
    """
    endpoints, weights = choices.endpoints, choices.weights
    if weights and weights[0] > 0.0 and (all_equal(weights) or min(weights) > 0.0):
        return endpoints, weights
    if not any(weights):
        return endpoints, (1.0,) * len(endpoints)
    return tuple(compress(endpoints, weights)), tuple(filter(None, weights))


def all_equal(weights: Sequence[float]) -> bool:
    """Returns whether all weights are the same."""
    return weights.count(weights[0]) == len(weights)


def sample_remaining(members: Sequence[Endpoint], weights: Sequence[float], exclude: Set[str], rng: Random) -> Endpoint:
    """Returns a random endpoint by weight that is not excluded. O(n), for when a few samples found none.

    Raises `NoEndpoint` if all are excluded.
    """
    remaining = [index for index, endpoint in enumerate(members) if endpoint.id not in exclude]
    if not remaining:
        raise NoEndpoint(f"all {len(members)} endpoints are excluded")
    return members[rng.choices(remaining, [weights[index] for index in remaining])[0]]
