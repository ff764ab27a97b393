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

from adsum.balance.hashing import position, positions
from adsum.balance.loads import Loads
from adsum.balance.picker import NOBODY, NoEndpoint, Picker, standing
from adsum.core.model import Endpoint
from adsum.core.selection import Choice

POINTS: Final = 160
"""Points of an endpoint of mean weight."""
MAX_RING: Final = 65_536
"""Points on the ring; beyond it (410 endpoints) all get fewer, one at least, and shares become uneven."""


class RingHash:
    """By key, on a ring."""

    keyed = True

    def build(self, choices: Sequence[Choice], loads: Loads, rng: Random, previous: Picker | None = None) -> Picker:  # noqa: ARG002
        if not choices:
            return NOBODY
        return Ring(tuple(choices), rng, previous if isinstance(previous, Ring) else None)


class Ring:
    """Sorted points, and whose each is."""

    __slots__ = ("_owner", "_points", "_rng", "_series", "choices")

    def __init__(self, choices: tuple[Choice, ...], rng: Random, previous: Ring | None) -> None:
        self.choices = choices
        self._rng = rng
        members, weights = standing(choices)
        self._series: dict[str, list[int]] = _series(members, weights, previous._series if previous else {})
        self._owner: dict[int, Endpoint] = {}
        for endpoint in sorted(members, key=_id):
            self._owner.update(dict.fromkeys(self._series[endpoint.id], endpoint))
        self._points: list[int] = _sorted(self._owner, previous._points if previous else [])

    def pick(self, hash_key: bytes | str | None = None, exclude: Set[str] | None = None) -> Endpoint:
        points = self._points
        spot = self._rng.getrandbits(64) if hash_key is None else position(hash_key)
        index = bisect_left(points, spot)
        endpoint = self._owner[points[index if index < len(points) else 0]]
        if exclude and endpoint.id in exclude:
            return self._pick_other(index, exclude)
        return endpoint

    def _pick_other(self, index: int, exclude: Set[str]) -> Endpoint:
        """The owner of the next point that is not excluded's: the same for every consumer, at most once around."""
        points, owner = self._points, self._owner
        for step in range(1, len(points)):
            endpoint = owner[points[(index + step) % len(points)]]
            if endpoint.id not in exclude:
                return endpoint
        raise NoEndpoint(f"each of the {len(self.choices)} endpoints is excluded")


def _series(members: list[Endpoint], weights: list[float], known: dict[str, list[int]]) -> dict[str, list[int]]:
    """Each endpoint's points by id; those known are not hashed again."""
    per_weight = min(POINTS * len(members), MAX_RING) / sum(weights)
    series = {}
    for endpoint, weight in zip(members, weights, strict=True):
        count = max(1, round(weight * per_weight))
        old = known.get(endpoint.id)
        series[endpoint.id] = old if old and len(old) == count else positions(endpoint.id, count)
    return series


def _sorted(points: dict[int, Endpoint], before: list[int]) -> list[int]:
    """The points in order. What was in order before is kept so: sorting a run and a few more is linear."""
    order = [point for point in before if point in points]
    order += sorted(points.keys() - set(order)) if order else points
    order.sort()
    return order


def _id(endpoint: Endpoint) -> str:
    return endpoint.instance.id
