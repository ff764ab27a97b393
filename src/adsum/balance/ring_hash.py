"""Ring hash: the same key goes to the same endpoint, and few keys move when endpoints come and go.

Ketama-like (R. Jones, libketama, 2007; D. Karger et al., "Consistent hashing and random trees", 1997): each endpoint
owns points on a ring in proportion to its weight; a key belongs to the next point. When shares change an endpoint
gains or loses its last points only. Shares are as even as the points are many (about ±8 % at 160 each); maglev is more
even, the ring moves fewer keys.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence, Set
from random import Random
from typing import Final

from adsum.balance.hashing import ring_position, ring_positions
from adsum.balance.load_tracker import LoadTracker
from adsum.balance.picker import EMPTY_PICKER, NoEndpoint, Picker, pickable
from adsum.core.model import Endpoint
from adsum.core.selection import WeightedEndpoint

POINTS_PER_ENDPOINT: Final = 160
"""Points of an endpoint of mean weight."""
MAX_RING_POINTS: Final = 65_536
"""Points on the ring; beyond it (410 endpoints) all get fewer, one at least, and shares become uneven."""


class RingHash:
    """By key, on a ring."""

    keyed = True

    def build(
        self, choices: Sequence[WeightedEndpoint], loads: LoadTracker, rng: Random, previous: Picker | None = None
    ) -> Picker:
        if not choices:
            return EMPTY_PICKER
        return RingHashPicker(tuple(choices), rng, previous if isinstance(previous, RingHashPicker) else None)


class RingHashPicker:
    """Points in order, and whose id each is. What is the same in the picker that this one replaces is taken over."""

    __slots__ = ("_counts", "_endpoints", "_owner", "_points", "_rng", "choices")

    def __init__(self, choices: tuple[WeightedEndpoint, ...], rng: Random, previous: RingHashPicker | None) -> None:
        self.choices = choices
        self._rng = rng
        members, weights = pickable(choices)
        self._endpoints = {endpoint.id: endpoint for endpoint in members}
        self._counts: dict[str, int] = dict(zip(self._endpoints, _counts(weights), strict=True))
        self._owner: dict[float, str] = previous._owner if previous else {}
        self._points: list[float] = previous._points if previous else []
        before: dict[str, int] = previous._counts if previous else {}
        if before != self._counts:
            self._redraw(before)

    def _redraw(self, before: dict[str, int]) -> None:
        """Take away the points of those whose count changed, and add theirs anew."""
        owner = self._owner.copy()
        changed = sorted({id for id, _ in before.items() ^ self._counts.items()})
        for id in changed:
            for point in ring_positions(id, before.get(id, 0)):
                owner.pop(point, None)
        points = [point for point in self._points if point in owner]
        for id in changed:
            added = ring_positions(id, self._counts.get(id, 0))
            owner.update(dict.fromkeys(added, id))
            points += added
        points.sort()  # a long run in order and a few more: nearly linear
        self._owner, self._points = owner, points

    def pick(self, hash_key: bytes | str | None = None, exclude: Set[str] | None = None) -> Endpoint:
        spot = self._rng.random() if hash_key is None else ring_position(hash_key)
        points = self._points
        index = bisect_left(points, spot)
        id = self._owner[points[index if index < len(points) else 0]]
        if exclude and id in exclude:
            return self._pick_other(index, exclude)
        return self._endpoints[id]

    def _pick_other(self, index: int, exclude: Set[str]) -> Endpoint:
        """The owner of the next point that is not excluded's: the same for every consumer, at most once around."""
        points = self._points
        for step in range(1, len(points)):
            id = self._owner[points[(index + step) % len(points)]]
            if id not in exclude:
                return self._endpoints[id]
        raise NoEndpoint(f"each of the {len(self._endpoints)} endpoints is excluded")


def _counts(weights: list[float]) -> list[int]:
    """How many points each gets."""
    per_weight = min(POINTS_PER_ENDPOINT * len(weights), MAX_RING_POINTS) / sum(weights)
    return [max(1, round(weight * per_weight)) for weight in weights]
