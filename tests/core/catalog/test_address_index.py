"""The index of instances by address and port."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adsum.core.catalog.address_index import EMPTY_ADDRESS_INDEX
from adsum.core.identity import HostPort
from adsum.core.model import Key

KEYS = [Key(service, str(n)) for service in ("orders", "users") for n in range(4)]
PLACES = [HostPort(address, port) for address in ("10.0.0.1", "10.0.0.2") for port in (1, 2)]

moves = st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from([None, *PLACES])), max_size=30)


@given(st.lists(moves, max_size=4))
def test_the_candidates_are_the_keys_in_the_order_in_which_they_came(batches: list[list[tuple[Key, HostPort]]]) -> None:
    index, listed = EMPTY_ADDRESS_INDEX, dict[Key, HostPort]()
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
