"""Ring hash: a key always goes to the same endpoint, and few keys move when endpoints come and go.

Like Ketama (R. Jones, libketama, 2007; D. Karger et al., "Consistent hashing and random trees", 1997): each endpoint
owns points on a ring in proportion to its weight, and a key belongs to the next point. When its share changes, an
endpoint only gains or loses its last points. More points make the shares more even (about ±8 % at 160 each). Maglev is
more even; the ring moves fewer keys.
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
from adsum.core.weighted_endpoints import WeightedEndpoint, WeightedEndpoints

POINTS_PER_ENDPOINT: Final = 160
"""The points of an endpoint of mean weight."""
MAX_RING_POINTS: Final = 65_536
"""The points on the ring. From 410 endpoints on, each gets fewer points, at least one, and shares become uneven."""


class RingHash:
    """The policy that picks by hash key, from a ring."""

    keyed = True

    def build(
        self, choices: Sequence[WeightedEndpoint], loads: LoadTracker, rng: Random, previous: Picker | None = None
    ) -> Picker:
        if not choices:
            return EMPTY_PICKER
        return RingHashPicker(
            WeightedEndpoints.of(choices), rng, previous if isinstance(previous, RingHashPicker) else None
        )


class RingHashPicker:
    """Picks from points in order, each owned by an endpoint. Unchanged points come from the previous picker."""

    __slots__ = ("_counts", "_endpoints", "_owner", "_points", "_rng", "choices")

    def __init__(self, choices: WeightedEndpoints, rng: Random, previous: RingHashPicker | None) -> None:
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
        """Removes the points of endpoints whose number of points has changed, and adds their new points."""
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
        points.sort()  # A long sorted run and a few more points: nearly linear.
        self._owner, self._points = owner, points

    def pick(self, hash_key: bytes | str | None = None, exclude: Set[str] | None = None) -> Endpoint:
        position = self._rng.random() if hash_key is None else ring_position(hash_key)
        points = self._points
        index = bisect_left(points, position)
        id = self._owner[points[index if index < len(points) else 0]]
        if exclude and id in exclude:
            return self._pick_other(index, exclude)
        return self._endpoints[id]

    def _pick_other(self, index: int, exclude: Set[str]) -> Endpoint:
        """Returns the first endpoint after the point `index` that is not excluded; the same for every consumer."""
        points = self._points
        for step in range(1, len(points)):
            id = self._owner[points[(index + step) % len(points)]]
            if id not in exclude:
                return self._endpoints[id]
        raise NoEndpoint(f"all {len(self._endpoints)} endpoints are excluded")


def _counts(weights: Sequence[float]) -> list[int]:
    """Returns the number of points of each endpoint."""
    per_weight = min(POINTS_PER_ENDPOINT * len(weights), MAX_RING_POINTS) / sum(weights)
    return [max(1, round(weight * per_weight)) for weight in weights]
