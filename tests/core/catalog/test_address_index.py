"""The index of instances by address and port."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.core.catalog import address_index
from adsum.core.catalog.address_index import EMPTY_ADDRESS_INDEX, AddressIndex
from adsum.core.identity import HostPort
from adsum.core.model import Key

KEYS = [Key(service, str(n)) for service in ("orders", "users") for n in range(4)]
PLACES = [HostPort(address, port) for address in ("10.0.0.1", "10.0.0.2") for port in (1, 2)]

moves = st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from([None, *PLACES])), max_size=30)


@pytest.fixture(autouse=True, scope="module")
def small_shards() -> Iterator[None]:
    """Shards of one address, so that each index is spread over more of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(address_index, "MAX_ADDRESSES_PER_SHARD", 1)
        patch.setattr(address_index, "SHARDS_PER_GROUP", 2)
        yield


@given(st.lists(moves, max_size=4))
def test_the_candidates_are_the_keys_in_the_order_in_which_they_came(batches: list[list[tuple[Key, HostPort]]]) -> None:
    index, listed = AddressIndex((({},),)), dict[Key, HostPort]()
    for batch in batches:
        steps = []
        for key, after in batch:
            before = listed.get(key)
            steps.append((key, before, after))
            if before != after:
                listed.pop(key, None)
                listed |= {key: after} if after is not None else {}
        earlier, index = index, index.with_moves(steps)
        assert (index is earlier) is all(before == after for _, before, after in steps)
        addresses = [place.address for place in listed.values()]
        assert index.neighbor_count >= len(addresses) - len(set(addresses))
        assert index.neighbor_count <= len(addresses)
        for place in PLACES:
            candidates = index.candidates(place)
            assert [key for key in candidates if listed[key] == place] == [k for k, at in listed.items() if at == place]
            strangers = [key for key in candidates if listed[key] != place]
            assert len(strangers) <= 1, "one key of another port of the address, at most"
            assert all(listed[key].address == place.address for key in strangers)


def test_many_instances_of_one_host_are_found_without_a_look_at_each_other() -> None:
    places = {Key("orders", str(port)): HostPort("10.0.0.1", port) for port in range(1, 3_000)}
    index = EMPTY_ADDRESS_INDEX.with_moves((key, None, place) for key, place in places.items())
    for key, place in places.items():
        candidates = index.candidates(place)
        assert key in candidates
        assert len(candidates) <= 2
    empty = index.with_moves((key, place, None) for key, place in places.items())
    assert not any(map(empty.candidates, places.values()))
    assert (index.neighbor_count, empty.neighbor_count) == (2_998, 0)
