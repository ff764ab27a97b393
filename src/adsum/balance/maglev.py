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

from adsum.balance.hashing import number, pair
from adsum.balance.load_tracker import Loads
from adsum.balance.picker import NOBODY, NoEndpoint, Picker, standing
from adsum.core.model import Endpoint
from adsum.core.selection import Choice

SLOTS: Final = 65_537
"""The paper's smaller table, a prime. Endpoints beyond so many get no slot."""

_FREE: Final = -1


class Maglev:
    """By key, in a table."""

    keyed = True

    def build(self, choices: Sequence[Choice], loads: Loads, rng: Random, previous: Picker | None = None) -> Picker:
        if not choices:
            return NOBODY
        members, weights = standing(sorted(choices, key=_id))
        old = previous if isinstance(previous, Table) and previous.shape == _shape(members, weights) else None
        return Table(tuple(choices), members, weights, old.slots if old else _fill(members, weights), rng)


class Table:
    """Slots that hold indices of members. They are shared with a previous picker of the same ids and weights."""

    __slots__ = ("_members", "_rng", "choices", "shape", "slots")

    def __init__(
        self,
        choices: tuple[Choice, ...],
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
        spot = (self._rng.getrandbits(64) if hash_key is None else number(hash_key)) % SLOTS
        endpoint = self._members[self.slots[spot]]
        if exclude and endpoint.id in exclude:
            return self._pick_other(spot, exclude)
        return endpoint

    def _pick_other(self, spot: int, exclude: Set[str]) -> Endpoint:
        """Who has the next slot and is not excluded: the same for every consumer, at most once around."""
        for step in range(1, SLOTS):
            endpoint = self._members[self.slots[(spot + step) % SLOTS]]
            if endpoint.id not in exclude:
                return endpoint
        raise NoEndpoint(f"each of the {len(self._members)} endpoints is excluded")


def _shape(members: list[Endpoint], weights: list[float]) -> tuple[list[str], list[float]]:
    return [endpoint.id for endpoint in members], weights


def _fill(members: list[Endpoint], weights: list[float]) -> list[int]:
    """The table: for each slot the index of the member that it belongs to."""
    numbers = [pair(endpoint.id) for endpoint in members]
    spots = [one % SLOTS for one, _ in numbers]
    skips = [other % (SLOTS - 1) + 1 for _, other in numbers]
    slots = [_FREE] * SLOTS
    turns = _turns(weights)
    for _ in range(SLOTS):
        index = next(turns)
        spot, skip = spots[index], skips[index]
        while slots[spot] != _FREE:
            spot += skip
            if spot >= SLOTS:
                spot -= SLOTS
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


def _id(choice: Choice) -> str:
    return choice.endpoint.instance.id
