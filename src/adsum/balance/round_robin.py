"""Smooth weighted round robin: in every cycle each endpoint gets exactly its weight, spread out.

The same shares over a cycle as nginx's smooth weighted round robin (which looks at every peer for each pick), by
earliest deadline first: endpoints of equal weight form a lane; a lane of n endpoints of weight w is due at the
instants (k + ½) / (n·w) of a virtual time in which one cycle of whole weights takes 1, and its endpoints take turns.
A pick costs O(log lanes), and O(1) if all weights are equal.

The state is one mark in virtual time, so that a rebuild goes on where the previous picker was; the first mark is
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
from adsum.core.selection import WeightedEndpoint

VirtualTime = tuple[float, float]
"""The last deadline that was served and the negative weight of its lane: equal deadlines are served heavy first."""

MIN_WEIGHT_SHARE: Final = 1e-6
"""Share of the greatest weight: an endpoint with a lesser one may wait longer for its first pick than for the next."""

PICKS_PER_BLOCK: Final = 64
"""Picks that are worked out at a time if weights differ; a rebuild wastes at most so many."""


class RoundRobin:
    """Everyone in turn, by weight."""

    keyed = False

    def build(
        self, choices: Sequence[WeightedEndpoint], loads: LoadTracker, rng: Random, previous: Picker | None = None
    ) -> Picker:
        if not choices:
            return EMPTY_PICKER
        members, weights = pickable(sorted(choices, key=_id))
        mark = (
            previous.mark if isinstance(previous, RotationPicker | WeightedRotationPicker) else _anywhere(weights, rng)
        )
        if all_equal(weights):
            return RotationPicker(tuple(choices), members, weights[0], mark)
        return WeightedRotationPicker(tuple(choices), members, weights, mark, rng)


class RotationPicker:
    """Equal weights: the next in order, round and round. Two threads at the same instant may get the same one."""

    __slots__ = ("_members", "_next", "_weight", "choices")

    def __init__(
        self, choices: tuple[WeightedEndpoint, ...], members: list[Endpoint], weight: float, mark: VirtualTime
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
        """The next that is not excluded: at most one step per excluded one."""
        members = self._members
        for step in range(1, len(members)):
            at = (index + step) % len(members)
            if members[at].id not in exclude:
                self._next = (at + 1) % len(members)
                return members[at]
        raise NoEndpoint(f"each of the {len(members)} endpoints is excluded")


class WeightLane:
    """Endpoints of one weight: how many picks it has had, and how many it gets in a unit of virtual time."""

    __slots__ = ("members", "pace", "served", "weight")

    def __init__(self, weight: float, members: list[Endpoint], mark: VirtualTime) -> None:
        self.weight = weight
        self.members = members
        self.pace = weight * len(members)
        self.served = _served(self.pace, weight, mark)


class WeightedRotationPicker:
    """Different weights: the lane with the earliest deadline, and in it the next in order.

    The next picks are worked out a block at a time, so that most picks take one off a list.
    """

    __slots__ = ("_heap", "_lock", "_marks", "_members", "_rng", "_upcoming", "_weights", "choices")

    def __init__(
        self,
        choices: tuple[WeightedEndpoint, ...],
        members: list[Endpoint],
        weights: list[float],
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
        lanes: dict[float, list[Endpoint]] = {}
        for endpoint, weight in zip(members, weights, strict=True):
            lanes.setdefault(weight, []).append(endpoint)
        made = [WeightLane(weight, of, mark) for weight, of in lanes.items()]
        self._heap = [((lane.served + 0.5) / lane.pace, -lane.weight, lane) for lane in made]
        heapify(self._heap)

    @property
    def mark(self) -> VirtualTime:
        return self._marks[len(self._upcoming)]

    def pick(self, hash_key: bytes | str | None = None, exclude: Set[str] | None = None) -> Endpoint:
        try:
            endpoint = self._upcoming.pop()
        except IndexError:
            self._work_ahead()
            return self.pick(hash_key, exclude)
        if exclude and endpoint.id in exclude:
            return self._pick_other(exclude)
        return endpoint

    def _pick_other(self, exclude: Set[str]) -> Endpoint:
        """The next that is not excluded; who is passed over loses a turn."""
        for _ in range(EXTRA_SAMPLES + len(exclude)):
            endpoint = self.pick()
            if endpoint.id not in exclude:
                return endpoint
        return sample_remaining(self._members, self._weights, exclude, self._rng)

    def _work_ahead(self) -> None:
        """Refill the upcoming picks, last first, and the marks that they leave, after the one left before."""
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
                heapreplace(heap, ((lane.served + 0.5) / lane.pace, order, lane))
            self._marks = marks[::-1]
            self._upcoming = upcoming[::-1]


def _anywhere(weights: list[float], rng: Random) -> VirtualTime:
    """A random instant within the slowest lane's cycle."""
    return rng.random() / max(min(weights), max(weights) * MIN_WEIGHT_SHARE), 0.0


def _served(pace: float, weight: float, mark: VirtualTime) -> int:
    """How many picks a lane has had at the mark. Compared, not computed, so that rounding can't serve one twice."""
    served = max(0, int(mark[0] * pace) - 1)
    while ((served + 0.5) / pace, -weight) <= mark:
        served += 1
    return served


def _id(choice: WeightedEndpoint) -> str:
    return choice.endpoint.instance.id
