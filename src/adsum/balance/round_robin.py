"""Smooth weighted round robin: in every cycle each endpoint gets exactly its weight, spread over the cycle.

The shares over a cycle are those of nginx's smooth weighted round robin, which looks at every peer for each pick. This
one is earliest deadline first. Endpoints of equal weight form a lane, and take turns. A lane of n endpoints of weight w
is due at the virtual times (k + ½) / (n·w). One cycle of integer weights takes a virtual time of 1. A pick costs
O(log lanes), and O(1) if all weights are equal.

The state is one mark in virtual time, so that a new picker goes on where the previous one was. The first mark is
random, so that many consumers do not start with the same endpoint.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from heapq import heapify, heapreplace
from random import Random
from threading import Lock
from typing import Final

from adsum.balance.load_tracker import LoadTracker
from adsum.balance.picker import EMPTY_PICKER, EXTRA_SAMPLES, NoEndpoint, Picker, all_equal, pickable, sample_remaining
from adsum.core.model import Endpoint
from adsum.core.weighted_endpoints import WeightedEndpoint, WeightedEndpoints

VirtualTime = tuple[float, float]
"""A deadline, and the negative weight of its lane: of equal deadlines, that of the heavier lane comes first. A `mark`
is the latest deadline that was served."""

MIN_WEIGHT_SHARE: Final = 1e-6
"""The lowest weight that counts for the random start, as a share of the highest weight. An endpoint of lower weight may
wait longer for its first pick than for later ones."""

PICKS_PER_BLOCK: Final = 64
"""The number of picks that are computed at a time if weights differ. A rebuild discards those that are left, and the
new picker computes them again."""


class RoundRobin:
    """The policy that picks the endpoints in turn, by weight."""

    keyed = False

    def build(
        self, choices: Sequence[WeightedEndpoint], loads: LoadTracker, rng: Random, previous: Picker | None = None
    ) -> Picker:
        if not choices:
            return EMPTY_PICKER
        given = WeightedEndpoints.of(choices)
        members, weights = pickable(given.by_id())
        if isinstance(previous, RotationPicker | WeightedRotationPicker):
            mark = previous.mark
        else:
            mark = _random_mark(weights, rng)
        if all_equal(weights):
            return RotationPicker(given, members, weights[0], mark)
        return WeightedRotationPicker(given, members, weights, mark, rng)


class RotationPicker:
    """Picks endpoints of equal weight in order. Two threads that pick at the same time may get the same one."""

    __slots__ = ("_members", "_next", "_weight", "choices")

    def __init__(
        self, choices: WeightedEndpoints, members: Sequence[Endpoint], weight: float, mark: VirtualTime
    ) -> None:
        self.choices = choices
        self._members = members
        self._weight = weight
        self._next = _served(weight * len(members), weight, mark) % len(members)

    @property
    def mark(self) -> VirtualTime:
        return (self._next - 0.5) / (self._weight * len(self._members)), -self._weight

    def pick(self, hash_key: bytes | str | None = None, exclude: Set[str] | None = None) -> Endpoint:
        members = self._members
        index = self._next
        self._next = index + 1 if index + 1 < len(members) else 0
        if exclude and members[index].id in exclude:
            return self._pick_other(index, exclude)
        return members[index]

    def _pick_other(self, index: int, exclude: Set[str]) -> Endpoint:
        """Returns the next endpoint in order that is not excluded: at most one step per excluded endpoint."""
        members = self._members
        for step in range(1, len(members)):
            other = (index + step) % len(members)
            if members[other].id not in exclude:
                self._next = (other + 1) % len(members)
                return members[other]
        raise NoEndpoint(f"all {len(members)} endpoints are excluded")


class WeightLane:
    """The endpoints of one weight, with the number of picks `served` so far and the picks per unit of virtual time."""

    __slots__ = ("members", "picks_per_cycle", "served", "weight")

    def __init__(self, weight: float, members: list[Endpoint], mark: VirtualTime) -> None:
        self.weight = weight
        self.members = members
        self.picks_per_cycle = weight * len(members)
        self.served = _served(self.picks_per_cycle, weight, mark)


class WeightedRotationPicker:
    """Picks endpoints of different weights: the next endpoint in order from the lane with the earliest deadline.

    Picks are computed a block at a time, so that most picks only take one from a list.
    """

    __slots__ = ("_heap", "_lock", "_marks", "_members", "_rng", "_upcoming", "_weights", "choices")

    def __init__(
        self,
        choices: WeightedEndpoints,
        members: Sequence[Endpoint],
        weights: Sequence[float],
        mark: VirtualTime,
        rng: Random,
    ) -> None:
        self.choices = choices
        self._members = members
        self._weights = weights
        self._rng = rng
        self._lock = Lock()
        self._upcoming: list[Endpoint] = []
        self._marks = [mark]
        by_weight: dict[float, list[Endpoint]] = {}
        for endpoint, weight in zip(members, weights, strict=True):
            by_weight.setdefault(weight, []).append(endpoint)
        lanes = [WeightLane(weight, endpoints, mark) for weight, endpoints in by_weight.items()]
        self._heap = [((lane.served + 0.5) / lane.picks_per_cycle, -lane.weight, lane) for lane in lanes]
        heapify(self._heap)

    @property
    def mark(self) -> VirtualTime:
        return self._marks[len(self._upcoming)]

    def pick(self, hash_key: bytes | str | None = None, exclude: Set[str] | None = None) -> Endpoint:
        try:
            endpoint = self._upcoming.pop()
        except IndexError:
            self._compute_block()
            return self.pick(hash_key, exclude)
        if exclude and endpoint.id in exclude:
            return self._pick_other(exclude)
        return endpoint

    def _pick_other(self, exclude: Set[str]) -> Endpoint:
        """Returns the next endpoint that is not excluded; excluded endpoints lose their turns."""
        for _ in range(EXTRA_SAMPLES + len(exclude)):
            endpoint = self.pick()
            if endpoint.id not in exclude:
                return endpoint
        return sample_remaining(self._members, self._weights, exclude, self._rng)

    def _compute_block(self) -> None:
        """Computes the next block of picks and the mark after each. Both lists are in reverse order."""
        with self._lock:
            if self._upcoming:
                return
            heap = self._heap
            marks = [self._marks[0]]
            upcoming = []
            for _ in range(PICKS_PER_BLOCK):
                deadline, order, lane = heap[0]
                marks.append((deadline, order))
                upcoming.append(lane.members[lane.served % len(lane.members)])
                lane.served += 1
                heapreplace(heap, ((lane.served + 0.5) / lane.picks_per_cycle, order, lane))
            self._marks = marks[::-1]
            self._upcoming = upcoming[::-1]


def _random_mark(weights: Sequence[float], rng: Random) -> VirtualTime:
    """Returns a random time within the cycle of the slowest lane."""
    return rng.random() / max(min(weights), max(weights) * MIN_WEIGHT_SHARE), 0.0


def _served(picks_per_cycle: float, weight: float, mark: VirtualTime) -> int:
    """Returns the number of picks that a lane has had at the mark.

    The number is found by comparing deadlines, so that no rounding error serves a pick twice.
    """
    served = max(0, int(mark[0] * picks_per_cycle) - 1)
    while ((served + 0.5) / picks_per_cycle, -weight) <= mark:
        served += 1
    return served
