"""Maglev: a key always goes to the same endpoint, shares are exact to one slot, and a pick is one look-up.

D. E. Eisenbud et al., "Maglev: a fast and reliable software network load balancer" (NSDI 2016), section 3.4: each
endpoint has its own order of preference over the slots of a table, and takes its next free slot in its turn. With
weights, as in Envoy, the k-th turn of an endpoint comes at the time k / weight.
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
from adsum.core.weighted_endpoints import WeightedEndpoint, WeightedEndpoints

TABLE_SIZE: Final = 65_537
"""The smaller table of the paper, a prime number. With more endpoints than slots, some get no slot."""

_FREE: Final = -1


class Maglev:
    """The policy that picks by hash key, from a table."""

    keyed = True

    def build(
        self, choices: Sequence[WeightedEndpoint], loads: LoadTracker, rng: Random, previous: Picker | None = None
    ) -> Picker:
        if not choices:
            return EMPTY_PICKER
        given = WeightedEndpoints.of(choices)
        members, weights = pickable(given.by_id())
        old = previous if isinstance(previous, MaglevPicker) and previous.shape == _shape(members, weights) else None
        return MaglevPicker(given, members, weights, old.slots if old else _fill(members, weights), rng)


class MaglevPicker:
    """Picks from slots that hold indices of members. Pickers of the same ids and weights share their slots."""

    __slots__ = ("_members", "_rng", "choices", "shape", "slots")

    def __init__(
        self,
        choices: WeightedEndpoints,
        members: Sequence[Endpoint],
        weights: Sequence[float],
        slots: Sequence[int],
        rng: Random,
    ) -> None:
        self.choices = choices
        self.shape = _shape(members, weights)
        self.slots = slots
        self._members = members
        self._rng = rng

    def pick(self, hash_key: bytes | str | None = None, exclude: Set[str] | None = None) -> Endpoint:
        slot = (self._rng.getrandbits(64) if hash_key is None else hash64(hash_key)) % TABLE_SIZE
        endpoint = self._members[self.slots[slot]]
        if exclude and endpoint.id in exclude:
            return self._pick_other(slot, exclude)
        return endpoint

    def _pick_other(self, slot: int, exclude: Set[str]) -> Endpoint:
        """Returns the first endpoint after `slot` that is not excluded; the same for every consumer."""
        for step in range(1, TABLE_SIZE):
            endpoint = self._members[self.slots[(slot + step) % TABLE_SIZE]]
            if endpoint.id not in exclude:
                return endpoint
        raise NoEndpoint(f"all {len(self._members)} endpoints are excluded")


def _shape(members: Sequence[Endpoint], weights: Sequence[float]) -> tuple[list[str], list[float]]:
    return [endpoint.instance.id for endpoint in members], list(weights)


def _fill(members: Sequence[Endpoint], weights: Sequence[float]) -> list[int]:
    """Returns the table: for each slot, the index of its member."""
    hashes = [hash_pair(endpoint.id) for endpoint in members]
    next_slots = [first % TABLE_SIZE for first, _ in hashes]
    skips = [second % (TABLE_SIZE - 1) + 1 for _, second in hashes]
    slots = [_FREE] * TABLE_SIZE
    turns = _turns(weights)
    for _ in range(TABLE_SIZE):
        index = next(turns)
        slot, skip = next_slots[index], skips[index]
        while slots[slot] != _FREE:
            slot += skip
            if slot >= TABLE_SIZE:
                slot -= TABLE_SIZE
        slots[slot] = index
        next_slots[index] = slot
    return slots


def _turns(weights: Sequence[float]) -> Iterator[int]:
    """Yields the index of the next member for ever. Every member has its first turn before any has its second.

    Members of equal weight have their turns together, so that the heap holds each weight only once.
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
