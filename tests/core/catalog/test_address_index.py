"""The index of instances by address and port."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.core.catalog import address_index
from adsum.core.catalog.address_index import AddressIndex
from adsum.core.identity import HostPort
from adsum.core.model import Key

_PLACES = st.one_of(st.none(), st.builds(HostPort, st.sampled_from(["a", "b"]), st.integers(1, 3)))
_MOVES = st.lists(st.tuples(st.builds(Key, st.just("s"), st.sampled_from("123456")), _PLACES), max_size=40)


@given(_MOVES, st.integers(1, 5))
def test_an_index_knows_the_keys_of_each_place_and_how_many_places_are_shared(
    moves: list[tuple[Key, HostPort | None]], batch_size: int
) -> None:
    index, places = AddressIndex((({},),)), dict[Key, HostPort | None]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(address_index, "MAX_ADDRESSES_PER_SHARD", 1)  # So that the index is spread.
        patch.setattr(address_index, "SHARDS_PER_GROUP", 2)
        for start in range(0, len(moves), batch_size):
            steps = []
            for key, place in moves[start : start + batch_size]:
                steps.append((key, places.get(key), place))
                places[key] = place
            before, index = index, index.with_moves(steps)
            assert before.with_moves([]) is before
    everywhere = [HostPort(address, port) for address in ("a", "b") for port in (1, 2, 3)]
    expected = {place: {key for key in places if places[key] == place} for place in everywhere}
    assert {place: set(index.keys_at(place)) for place in everywhere} == expected
    assert index.shared_count == sum(len(keys) > 1 for keys in expected.values())
