from __future__ import annotations

import pytest

from adsum.core.weighted_endpoints import NO_ENDPOINTS, WeightedEndpoint, WeightedEndpoints
from tests.balance.builders import choice, choices


def test_they_are_a_sequence_of_endpoints_with_weights() -> None:
    pairs = choices(1, 2, 3)
    weighted = WeightedEndpoints.of(pairs)
    assert list(weighted) == pairs
    assert weighted[1] == pairs[1]
    assert isinstance(weighted[1], WeightedEndpoint)
    assert list(weighted[1:]) == pairs[1:]
    assert len(weighted) == 3
    assert pairs[2] in weighted
    assert WeightedEndpoints.of(weighted) is weighted
    with pytest.raises(IndexError):
        weighted[3]


def test_equal_endpoints_with_equal_weights_are_equal() -> None:
    assert WeightedEndpoints.of(choices(1, 2)) == WeightedEndpoints.of(choices(1, 2))
    assert WeightedEndpoints.of(choices(1, 2)) != WeightedEndpoints.of(choices(1, 3))
    assert WeightedEndpoints.of(choices(1)) != choices(1)
    assert WeightedEndpoints.of([]) == NO_ENDPOINTS
    assert not NO_ENDPOINTS


def test_by_id_sorts_them_unless_they_are_sorted() -> None:
    pairs = [choice("b", 2), choice("a", 1)]
    assert list(WeightedEndpoints.of(pairs).by_id()) == [choice("a", 1), choice("b", 2)]
    assert NO_ENDPOINTS.by_id() is NO_ENDPOINTS
