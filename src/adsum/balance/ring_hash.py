"""Ring hash: a key always goes to the same endpoint, and few keys move when endpoints come and go.

Like Ketama (R. Jones, libketama, 2007; D. Karger et al., "Consistent hashing and random trees", 1997): each endpoint
owns points on a ring in proportion to its weight, and a key belongs to the next point. When its share changes, an
endpoint only gains or loses its last points. More points make the shares more even (about ±8 % at 160 each). Maglev is
more even; the ring moves fewer keys.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence, Set
from random import Random
from typing import Final

from adsum.balance.hashing import ring_position, ring_positions
from adsum.balance.load_tracker import LoadTracker
from adsum.balance.picker import EMPTY_PICKER, NoEndpoint, Picker, all_equal, pickable
from adsum.core.endpoint_changes import endpoint_changes
from adsum.core.model import Endpoint
from adsum.core.weighted_endpoints import WeightedEndpoint, WeightedEndpoints

POINTS_PER_ENDPOINT: Final = 160
"""The points of an endpoint of mean weight."""
MAX_RING_POINTS: Final = 65_536
"""The points on the ring. From 410 endpoints on, each gets fewer points, at least one, and shares become uneven."""

MAX_POINTS_INSERTED: Final = 256
"""Points that are removed and inserted one by one. With more, all points are sorted again."""


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

    __slots__ = ("_counts", "_endpoints", "_equal_count", "_members", "_owner", "_points", "_rng", "choices")

    def __init__(self, choices: WeightedEndpoints, rng: Random, previous: RingHashPicker | None) -> None:
        self.choices = choices
        self._rng = rng
        self._members, weights = pickable(choices)
        counts = _counts(weights)
        self._equal_count = counts[0] if all_equal(counts) else None
        self._owner: dict[float, str] = previous._owner if previous else {}
        self._points: list[float] = previous._points if previous else []
        before: Mapping[str, int] = previous._counts if previous else {}
        if previous is not None and self._equal_count is not None and self._equal_count == previous._equal_count:
            changed = self._take_over(previous, self._equal_count)
        else:
            self._endpoints = {endpoint.instance.id: endpoint for endpoint in self._members}
            self._counts: dict[str, int] = dict(zip(self._endpoints, counts, strict=True))
            changed = {id for id, count in self._counts.items() if before.get(id) != count}
            changed |= before.keys() - self._counts.keys()
        if changed:
            self._redraw(before, sorted(changed))

    def _take_over(self, previous: RingHashPicker, count: int) -> set[str]:
        """Takes over the endpoints of the previous picker, which had as many points each. Returns the changed ids."""
        endpoints, counts = previous._endpoints.copy(), previous._counts.copy()
        changes = endpoint_changes(previous._members, self._members)
        gone = {before.id for _, before, _ in changes if before is not None}
        came = {after.id: after for _, _, after in changes if after is not None}
        for id in gone - came.keys():
            del endpoints[id], counts[id]
        endpoints |= came
        counts |= dict.fromkeys(came, count)
        self._endpoints, self._counts = endpoints, counts
        return gone ^ came.keys()

    def _redraw(self, before: Mapping[str, int], changed: Sequence[str]) -> None:
        """Removes the points of endpoints whose number of points has changed, and adds their new points."""
        owner = self._owner.copy()
        dropped = [point for id in changed for point in ring_positions(id, before.get(id, 0))]
        for point in dropped:
            owner.pop(point, None)
        added: list[float] = []
        for id in changed:
            points = ring_positions(id, self._counts.get(id, 0))
            owner.update(dict.fromkeys(points, id))
            added += points
        if len(dropped) + len(added) <= MAX_POINTS_INSERTED:
            self._points = _with_points(self._points, dropped, added)
        else:
            remaining = [point for point in self._points if point in owner]
            self._points = sorted(remaining + added)  # A long sorted run and more points: nearly linear.
        self._owner = owner

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
    counts = {weight: max(1, round(weight * per_weight)) for weight in set(weights)}
    return list(map(counts.__getitem__, weights))


def _with_points(points: list[float], dropped: Iterable[float], added: Iterable[float]) -> list[float]:
    """Returns the points, in order, without those that are dropped and with those that are added."""
    points = points.copy()
    for point in dropped:
        place = bisect_left(points, point)
        del points[place : bisect_right(points, point, place)]
    for point in added:
        insort(points, point)
    return points
