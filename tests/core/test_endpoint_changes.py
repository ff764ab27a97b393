from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adsum.core.endpoint_changes import amended, endpoint_changes
from adsum.core.model import Endpoint, Instance, Status


def endpoint(id: str, port: int = 80, status: Status = Status.PASSING) -> Endpoint:
    return Endpoint(Instance("orders", id, "10.0.0.1", port), status)


VIEWS = st.dictionaries(st.integers(0, 400).map(lambda n: f"i-{n:03}"), st.integers(1, 3), max_size=60)
UNSORTED = st.lists(st.builds(endpoint, st.sampled_from("abcdef"), st.integers(1, 2)), max_size=12)


def view(ports: dict[str, int]) -> tuple[Endpoint, ...]:
    return tuple(endpoint(id, ports[id]) for id in sorted(ports))


@given(VIEWS, VIEWS)
def test_each_id_of_two_views_has_its_one_change(before: dict[str, int], after: dict[str, int]) -> None:
    changes = endpoint_changes(view(before), view(after))
    found = {
        (old or new).id: (old and old.port, new and new.port)  # type: ignore[union-attr]
        for _, old, new in changes
    }
    differing = {id for id in before.keys() | after.keys() if before.get(id) != after.get(id)}
    assert len(changes) == len(found)
    assert found == {id: (before.get(id), after.get(id)) for id in differing}


@given(st.sets(st.integers(0, 2_999), max_size=12), st.sets(st.integers(0, 2_999), max_size=12))
def test_a_few_changes_are_found_in_a_large_view(left: set[int], moved: set[int]) -> None:
    before = LARGE
    after = tuple(
        endpoint(one.id, 81) if number in moved else one for number, one in enumerate(before) if number not in left
    )
    changes = endpoint_changes(before, after)
    assert [change.place for change in changes] == sorted(left | moved)
    assert amended(before, changes, lambda one: one) == list(after)


LARGE = tuple(endpoint(f"i-{number:04}") for number in range(3_000))


@given(UNSORTED, UNSORTED)
def test_the_changes_turn_any_sequence_into_the_other(before: list[Endpoint], after: list[Endpoint]) -> None:
    changes = endpoint_changes(before, after)
    assert amended(before, changes, lambda one: one) == after
    places = [f"{one.id}{one.port}" for one in before]
    assert amended(places, changes, lambda one: f"{one.id}{one.port}") == [f"{one.id}{one.port}" for one in after]


def test_equal_endpoints_are_no_change_and_their_items_stay() -> None:
    before, after = view({"a": 1, "b": 1}), view({"a": 1, "b": 1})
    assert before[0] is not after[0]
    assert endpoint_changes(before, after) == []
    assert endpoint_changes(before, before) == endpoint_changes((), ()) == []
