"""Maglev: the same key goes to the same endpoint, shares are even to a slot, and a pick is one look-up.

D. E. Eisenbud et al., "Maglev: a fast and reliable software network load balancer" (NSDI 2016), section 3.4: each
endpoint has its own order of preference over the table's slots and takes its next free one when it is its turn. With
weights, as Envoy does it, the k-th turn of an endpoint comes at k / weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from heapq import heapify, heapreplace
from random import Random
from typing import Final

from adsum.balance.hashing import hash64, hash_pair
from adsum.balance.load_tracker import LoadTracker
from adsum.balance.picker import EMPTY_PICKER, NoEndpoint, Picker, pickable
from adsum.core.model import Endpoint
from adsum.core.selection import WeightedEndpoint

TABLE_SIZE: Final = 65_537
"""The paper's smaller table, a prime. Endpoints beyond so many get no slot."""

_FREE: Final = -1


class Maglev:
    """By key, in a table."""

    keyed = True

    def build(
        self, choices: Sequence[WeightedEndpoint], loads: LoadTracker, rng: Random, previous: Picker | None = None
    ) -> Picker:
        if not choices:
            return EMPTY_PICKER
        members, weights = pickable(sorted(choices, key=_id))
        old = previous if isinstance(previous, MaglevPicker) and previous.shape == _shape(members, weights) else None
        return MaglevPicker(tuple(choices), members, weights, old.slots if old else _fill(members, weights), rng)


class MaglevPicker:
    """Slots that hold indices of members. They are shared with a previous picker of the same ids and weights."""

    __slots__ = ("_members", "_rng", "choices", "shape", "slots")

    def __init__(
        self,
        choices: tuple[WeightedEndpoint, ...],
        members: list[Endpoint],
        weights: list[float],
        slots: Sequence[int],
        rng: Random,
    ) -> None:
        self.choices = choices
        self.shape = _shape(members, weights)
        self.slots = slots
        self._members = members
        self._rng = rng

    def pick(self, hash_key: bytes | str | None = None, exclude: Set[str] | None = None) -> Endpoint:
        spot = (self._rng.getrandbits(64) if hash_key is None else hash64(hash_key)) % TABLE_SIZE
        endpoint = self._members[self.slots[spot]]
        if exclude and endpoint.id in exclude:
            return self._pick_other(spot, exclude)
        return endpoint

    def _pick_other(self, spot: int, exclude: Set[str]) -> Endpoint:
        """Who has the next slot and is not excluded: the same for every consumer, at most once around."""
        for step in range(1, TABLE_SIZE):
            endpoint = self._members[self.slots[(spot + step) % TABLE_SIZE]]
            if endpoint.id not in exclude:
                return endpoint
        raise NoEndpoint(f"each of the {len(self._members)} endpoints is excluded")


def _shape(members: list[Endpoint], weights: list[float]) -> tuple[list[str], list[float]]:
    return [endpoint.id for endpoint in members], weights


def _fill(members: list[Endpoint], weights: list[float]) -> list[int]:
    """The table: for each slot the index of the member that it belongs to."""
    numbers = [hash_pair(endpoint.id) for endpoint in members]
    spots = [one % TABLE_SIZE for one, _ in numbers]
    skips = [other % (TABLE_SIZE - 1) + 1 for _, other in numbers]
    slots = [_FREE] * TABLE_SIZE
    turns = _turns(weights)
    for _ in range(TABLE_SIZE):
        index = next(turns)
        spot, skip = spots[index], skips[index]
        while slots[spot] != _FREE:
            spot += skip
            if spot >= TABLE_SIZE:
                spot -= TABLE_SIZE
        slots[spot] = index
        spots[index] = spot
    return slots


def _turns(weights: list[float]) -> Iterator[int]:
    """Whose turn it is to take a slot, for ever. Everyone has a first turn before anyone has a second.

    Members of one weight have their turns together, so that the heap holds the different weights only.
    """
    lanes: dict[float, list[int]] = {}
    for index, weight in enumerate(weights):
        lanes.setdefault(weight, []).append(index)
    due = [(0.0, -weight, 0) for weight in lanes]
    heapify(due)
    while True:
        _, order, turn = due[0]
        yield from lanes[-order]
        heapreplace(due, ((turn + 1) / -order, order, turn + 1))


def _id(choice: WeightedEndpoint) -> str:
    return choice.endpoint.instance.id
