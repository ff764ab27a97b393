from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adsum.consul.blocking_query import BURST, RATE, Answered, Pace, Query


def test_an_index_that_moves_is_a_change_and_one_that_stays_is_none() -> None:
    query = Query()
    assert [query.take(index) for index in (7, 7, 9)] == [Answered.CHANGED, Answered.SAME, Answered.CHANGED]
    assert (query.index, query.histories) == (9, 0)


def test_an_index_that_goes_back_begins_a_new_history() -> None:
    query = Query()
    query.take(9)
    assert query.take(4) is Answered.BACK
    assert (query.index, query.histories) == (0, 1)
    assert query.take(4) is Answered.CHANGED


def test_an_index_below_one_is_asked_with_as_one() -> None:
    query = Query()
    assert query.take(0) is Answered.CHANGED
    assert query.index == 1


def test_what_is_known_from_earlier_tells_a_state_that_was_lost_meanwhile() -> None:
    assert Query(2, 50).take(50) is Answered.CHANGED
    query = Query(2, 50)
    assert query.take(49) is Answered.BACK
    assert query.histories == 3


@given(st.lists(st.floats(0.0, 2.0), max_size=60))
def test_nobody_asks_more_often_than_he_may(lags: list[float]) -> None:
    pace, now, asked = Pace(0.0), 0.0, []
    for lag in lags:
        now += lag
        now += pace.pause(now)
        asked.append(now)
    for n, first in enumerate(asked):
        for count, last in enumerate(asked[n:], 1):
            assert count <= BURST + (last - first) * RATE + 1.001


def test_who_asks_now_and_then_never_waits() -> None:
    pace = Pace(0.0)
    assert all(pace.pause(n * 1.0) == 0.0 for n in range(100))
