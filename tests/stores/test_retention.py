"""The retention of recorded changes: by service, and of all services."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import given
from hypothesis import strategies as st

from adsum.stores.retention import Retention


def test_a_service_loses_its_oldest_past_its_own_bound() -> None:
    retention = Retention[int](max_per_service=2, max_total=100)
    for number in range(4):
        retention.add("a", number)
    retention.add("b", 4)
    assert retention.trim() == [0, 1]
    assert (list(retention.newest_first("a")), list(retention.newest_first("b")), retention.oldest("a")) == (
        [3, 2],
        [4],
        2,
    )


def test_past_the_total_bound_the_largest_service_loses_its_oldest_change() -> None:
    retention = Retention[int](max_per_service=100, max_total=4)
    for number, service in enumerate(["a", "b", "b", "c", "b", "c", "d"]):
        retention.add(service, number)
    assert retention.trim() == [1, 3, 2], "b has three, then c and b have two; c has had them for longer than b"
    assert [list(retention.newest_first(service)) for service in "abcd"] == [[0], [4], [5], [6]]


def test_among_equal_services_the_one_that_changed_longest_ago_loses_a_change() -> None:
    retention = Retention[str](max_per_service=10, max_total=2)
    for service in "abc":
        retention.add(service, service)
    assert retention.trim() == ["a"]
    assert (list(retention.newest_first("a")), retention.oldest("a"), len(retention)) == ([], None, 2)


def test_an_entry_of_several_changes_is_trimmed_only_when_all_are_beyond_the_bound() -> None:
    retention = Retention[str](max_per_service=5, max_total=100)
    for entry in "xyz":
        retention.add("a", entry, 3)
    assert retention.trim() == ["x"]
    assert len(retention) == 6


def test_slack_postpones_trimming() -> None:
    retention = Retention[int](max_per_service=2, max_total=100)
    for number in range(5):
        retention.add("a", number)
    assert not retention.is_over_bounds(slack=3)
    assert retention.is_over_bounds(slack=2)


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 4))), st.integers(1, 9), st.integers(1, 20))
def test_the_newest_of_every_service_are_kept_within_the_bounds(
    added: list[tuple[str, int]], max_per_service: int, max_total: int
) -> None:
    retention = Retention[int](max_per_service, max_total)
    entries: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, (service, changes) in enumerate(added):
        retention.add(service, number, changes)
        entries[service].append((number, changes))
        for trimmed in retention.trim():
            owner = next(name for name in entries if entries[name] and entries[name][0][0] == trimmed)
            entries[owner].pop(0)
        counts = Counter({name: sum(changes for _, changes in owned) for name, owned in entries.items()})
        assert len(retention) == counts.total()
        assert all(
            list(retention.newest_first(name)) == [number for number, _ in reversed(owned)]
            for name, owned in entries.items()
        )
        assert counts.total() < max_total + 4
        assert max(counts.values()) < max_per_service + 4
