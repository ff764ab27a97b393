"""Endpoints with their weights: what a selection returns, and what a picker is built from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, overload

from adsum.core.model import Endpoint


class WeightedEndpoint(NamedTuple):
    """An endpoint and its weight in the selection: its declared weight, scaled by zone and slow start."""

    endpoint: Endpoint
    weight: float


class WeightedEndpoints(Sequence[WeightedEndpoint]):
    """Endpoints with their weights, kept in two tuples of the same length, which others share.

    `is_by_id` states that the endpoints are in the order of their ids.
    """

    __slots__ = ("endpoints", "is_by_id", "weights")

    def __init__(self, endpoints: tuple[Endpoint, ...], weights: tuple[float, ...], *, is_by_id: bool = False) -> None:
        self.endpoints = endpoints
        self.weights = weights
        self.is_by_id = is_by_id

    @staticmethod
    def of(choices: Iterable[WeightedEndpoint]) -> WeightedEndpoints:
        """Returns these endpoints with their weights."""
        if isinstance(choices, WeightedEndpoints):
            return choices
        pairs = tuple(choices)
        return WeightedEndpoints(tuple(pair.endpoint for pair in pairs), tuple(pair.weight for pair in pairs))

    def by_id(self) -> WeightedEndpoints:
        """Returns them in the order of their ids."""
        if self.is_by_id:
            return self
        return WeightedEndpoints.of(sorted(self, key=lambda pair: pair.endpoint.instance.id))

    def __len__(self) -> int:
        return len(self.endpoints)

    def __iter__(self) -> Iterator[WeightedEndpoint]:
        return map(WeightedEndpoint, self.endpoints, self.weights)

    @overload
    def __getitem__(self, place: int) -> WeightedEndpoint: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[WeightedEndpoint]: ...
    def __getitem__(self, place: int | slice) -> WeightedEndpoint | Sequence[WeightedEndpoint]:
        if isinstance(place, slice):
            return WeightedEndpoints(self.endpoints[place], self.weights[place])
        return WeightedEndpoint(self.endpoints[place], self.weights[place])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WeightedEndpoints):
            return NotImplemented
        return self.endpoints == other.endpoints and self.weights == other.weights

    def __hash__(self) -> int:
        return hash(self.weights)  # Endpoints have no hash.


NO_ENDPOINTS: Final = WeightedEndpoints((), (), is_by_id=True)
