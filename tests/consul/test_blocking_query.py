from __future__ import annotations

from adsum.consul.blocking_query import BlockingQuery, IndexChange


def test_a_higher_index_is_a_change_and_the_same_index_is_none() -> None:
    query = BlockingQuery()
    assert [query.update(index) for index in (7, 7, 9)] == [IndexChange.CHANGED, IndexChange.SAME, IndexChange.CHANGED]
    assert (query.index, query.resets) == (9, 0)


def test_a_lower_index_is_a_reset() -> None:
    query = BlockingQuery()
    query.update(9)
    assert query.update(4) is IndexChange.WENT_BACK
    assert (query.index, query.resets) == (0, 1)
    assert query.update(4) is IndexChange.CHANGED


def test_an_index_below_one_is_queried_as_one() -> None:
    query = BlockingQuery()
    assert query.update(0) is IndexChange.CHANGED
    assert query.index == 1


def test_an_index_known_from_earlier_detects_a_lost_state() -> None:
    assert BlockingQuery(2, 50).update(50) is IndexChange.CHANGED
    query = BlockingQuery(2, 50)
    assert query.update(49) is IndexChange.WENT_BACK
    assert query.resets == 3
