"""What every policy promises: a policy builds a picker from one set of choices; a picker picks and never waits."""

from __future__ import annotations

from collections.abc import Sequence, Set
from random import Random
from typing import Final, NoReturn, Protocol

from adsum.balance.load_tracker import LoadTracker
from adsum.core.errors import AdsumError
from adsum.core.model import Endpoint
from adsum.core.selection import WeightedEndpoint

EXTRA_SAMPLES: Final = 8
"""A chance policy draws this often, and once more per excluded endpoint, before it looks at every choice (O(n))."""


class NoEndpoint(AdsumError):
    """There is nothing to pick: no endpoint may be used, or each that may is excluded."""


class Picker(Protocol):
    """Chooses among one set of endpoints, which never changes. May be used from several threads."""

    @property
    def choices(self) -> tuple[WeightedEndpoint, ...]:
        """What it was built from."""
        ...

    def pick(self, hash_key: bytes | str | None = None, exclude: Set[str] | None = None) -> Endpoint:
        """Choose one, at once.

        Hash policies give the same endpoint for the same `hash_key` (without one: any, by weight); others ignore it.
        `exclude` holds ids not to be picked, such as those already tried. Raises `NoEndpoint` if none is left.
        """
        ...


class Policy(Protocol):
    """A named way to choose."""

    @property
    def keyed(self) -> bool:
        """Whether it chooses by `hash_key`; then slow start would move keys at each step, and is better left out."""
        ...

    def build(
        self, choices: Sequence[WeightedEndpoint], loads: LoadTracker, rng: Random, previous: Picker | None = None
    ) -> Picker:
        """A picker of `choices`, whose weights are at least 0; weight 0 is picked only if no other weight is there.

        `previous` is the picker that this one replaces: work and position are carried on where the algorithm allows.
        """
        ...


class EmptyPicker:
    """The picker of no choices."""

    choices: tuple[WeightedEndpoint, ...] = ()

    def pick(self, hash_key: bytes | str | None = None, exclude: Set[str] | None = None) -> NoReturn:
        raise NoEndpoint("there is no endpoint to pick")


EMPTY_PICKER: Final = EmptyPicker()


def pickable(choices: Sequence[WeightedEndpoint]) -> tuple[list[Endpoint], list[float]]:
    """The endpoints that can be picked and their weights: those above 0, or, if there are none, all of them alike."""
    weighted = [choice for choice in choices if choice.weight > 0.0]
    if not weighted:
        return [choice.endpoint for choice in choices], [1.0] * len(choices)
    return [choice.endpoint for choice in weighted], [choice.weight for choice in weighted]


def all_equal(weights: Sequence[float]) -> bool:
    """Whether all weights are the same, so that none has to be looked at."""
    return weights.count(weights[0]) == len(weights)


def sample_remaining(members: Sequence[Endpoint], weights: Sequence[float], exclude: Set[str], rng: Random) -> Endpoint:
    """One that is not excluded, by weight: the exact, O(n) resort when a few draws did not find one."""
    left = [index for index, endpoint in enumerate(members) if endpoint.id not in exclude]
    if not left:
        raise NoEndpoint(f"each of the {len(members)} endpoints is excluded")
    return members[rng.choices(left, [weights[index] for index in left])[0]]
