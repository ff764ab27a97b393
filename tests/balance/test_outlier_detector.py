from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.balance.ejection import MOVES, EjectionCause, EjectionEvent, EjectionState, OutlierOptions
from adsum.balance.outlier_detector import OutlierDetector
from adsum.core.errors import Invalid

TEN = [f"i-{index}" for index in range(10)]


def detector(ids: list[str] = TEN, **options: float) -> OutlierDetector:
    outliers = OutlierDetector(OutlierOptions(**options))  # type: ignore[arg-type]
    outliers.update_endpoints(ids)
    return outliers


def fail(outliers: OutlierDetector, id: str, now: float, times: int = 5) -> EjectionEvent | None:
    """Returns the last event after `times` failures."""
    return [outliers.record_call(id, False, now) for _ in range(times)][-1]


def calls(outliers: OutlierDetector, id: str, passed: int, failed: int, now: float) -> None:
    """Failures and successes in turn, so that failures are not consecutive."""
    for index in range(passed + failed):
        outliers.record_call(id, (index + 1) * failed // (passed + failed) == index * failed // (passed + failed), now)


def test_five_failures_in_a_row_eject() -> None:
    outliers = detector()
    assert fail(outliers, "i-3", 100.0, times=4) is None
    event = outliers.record_call("i-3", False, 100.0)
    assert event == EjectionEvent("i-3", EjectionState.EJECTED, EjectionCause.CONSECUTIVE_FAILURES, until=130.0)
    assert outliers.ejected == {"i-3"}


def test_a_success_resets_consecutive_failures() -> None:
    outliers = detector()
    fail(outliers, "i-3", 0.0, times=4)
    outliers.record_call("i-3", True, 0.0)
    assert fail(outliers, "i-3", 0.0, times=4) is None


def test_an_endpoint_returns_with_an_empty_record_after_its_ejection() -> None:
    outliers = detector()
    fail(outliers, "i-3", 0.0)
    assert not [event for event in outliers.tick(29.9) if event.state is EjectionState.ACTIVE]
    assert outliers.tick(30.0) == [EjectionEvent("i-3", EjectionState.ACTIVE, EjectionCause.TIME_SERVED)]
    assert not outliers.ejected
    assert fail(outliers, "i-3", 30.0, times=4) is None


def test_calls_that_end_after_the_ejection_do_not_lengthen_it() -> None:
    outliers = detector()
    fail(outliers, "i-3", 0.0)
    assert fail(outliers, "i-3", 10.0, times=20) is None
    assert [event.id for event in outliers.tick(30.0)] == ["i-3"]


def test_each_ejection_lasts_longer_up_to_the_longest() -> None:
    outliers = detector(base_ejection_time=30.0, max_ejection_time=100.0, interval=1000.0)
    now, lengths = 0.0, []
    for _ in range(5):
        event = fail(outliers, "i-3", now)
        assert event is not None
        assert event.until is not None
        lengths.append(event.until - now)
        now = event.until
        outliers.tick(now)
    assert lengths == [30.0, 60.0, 90.0, 100.0, 100.0]


def test_calm_intervals_lower_the_count_of_ejections() -> None:
    outliers = detector(base_ejection_time=30.0, interval=10.0)
    fail(outliers, "i-3", 0.0)
    outliers.tick(30.0)
    now = 30.0
    while (deadline := outliers.next_deadline()) is not None:
        now = deadline
        outliers.tick(now)
    assert now <= 60.0
    event = fail(outliers, "i-3", now)
    assert event is not None
    assert event.until == now + 30.0


def test_a_sweep_does_not_reset_consecutive_failures() -> None:
    outliers = detector(base_ejection_time=5.0)
    fail(outliers, "i-3", 0.0)
    outliers.tick(5.0)
    fail(outliers, "i-3", 9.0, times=4)
    outliers.tick(10.0)
    assert fail(outliers, "i-3", 11.0, times=1) is not None


@pytest.mark.parametrize(("endpoints", "ejected"), [(0, 0), (1, 0), (2, 1), (5, 1), (19, 1), (20, 2), (100, 10)])
def test_a_tenth_may_be_ejected_at_least_one_but_never_the_only_one(endpoints: int, ejected: int) -> None:
    ids = [f"i-{index}" for index in range(endpoints)]
    outliers = detector(ids)
    for id in ids:
        fail(outliers, id, 0.0)
    assert len(outliers.ejected) == OutlierOptions().max_ejected(endpoints) == ejected


def test_an_endpoint_that_still_fails_is_ejected_when_there_is_room() -> None:
    outliers = detector()
    fail(outliers, "i-1", 0.0)
    assert fail(outliers, "i-2", 0.0) is None
    outliers.tick(30.0)
    assert fail(outliers, "i-2", 30.0, times=1) is not None


def test_when_fewer_may_be_ejected_those_whose_time_ends_first_return() -> None:
    outliers = detector([f"i-{index}" for index in range(20)])
    fail(outliers, "i-3", 0.0)
    fail(outliers, "i-4", 1.0)
    assert outliers.update_endpoints([], [f"i-{index}" for index in range(10, 20)]) == [
        EjectionEvent("i-3", EjectionState.ACTIVE, EjectionCause.LIMIT_LOWERED)
    ]
    assert outliers.ejected == {"i-4"}


def test_the_record_of_an_endpoint_that_left_is_dropped() -> None:
    outliers = detector()
    fail(outliers, "i-3", 0.0)
    assert outliers.update_endpoints([], ["i-3"]) == []
    assert not outliers.ejected
    assert outliers.record_call("i-3", False, 0.0) is None
    outliers.update_endpoints(["i-3"])
    assert fail(outliers, "i-3", 0.0, times=4) is None


def test_a_high_failure_rate_ejects_at_the_sweep() -> None:
    outliers = detector(consecutive_failures=0, stdev_factor=0.0)
    for id in TEN:
        calls(outliers, id, *((5, 45) if id == "i-7" else (50, 0)), now=0.0)
    assert outliers.tick(9.9) == []
    assert outliers.tick(10.0) == [EjectionEvent("i-7", EjectionState.EJECTED, EjectionCause.FAILURE_RATE, until=40.0)]


def test_a_failure_rate_far_above_the_mean_ejects_at_the_sweep() -> None:
    outliers = detector(consecutive_failures=0)
    for id in TEN:
        calls(outliers, id, *((70, 30) if id == "i-7" else (99, 1)), now=0.0)
    assert outliers.tick(10.0) == [
        EjectionEvent("i-7", EjectionState.EJECTED, EjectionCause.ABOVE_MEAN_FAILURE_RATE, until=40.0)
    ]


def test_no_endpoint_is_an_outlier_if_all_fail_alike() -> None:
    outliers = detector(consecutive_failures=0)
    for id in TEN:
        calls(outliers, id, 70, 30, now=0.0)
    assert outliers.tick(10.0) == []


def test_the_worst_endpoint_is_ejected_if_only_one_may_be() -> None:
    outliers = detector(consecutive_failures=0)
    for id in TEN:
        calls(outliers, id, *{"i-2": (4, 46), "i-7": (0, 50)}.get(id, (50, 0)), now=0.0)
    assert [event.id for event in outliers.tick(10.0)] == ["i-7"]


def test_rates_of_few_calls_or_few_endpoints_are_not_judged() -> None:
    few_calls = detector(consecutive_failures=0)
    for id in TEN:
        calls(few_calls, id, *((0, 49) if id == "i-7" else (49, 0)), now=0.0)
    few_endpoints = detector(TEN[:4], consecutive_failures=0)
    for id in TEN[:4]:
        calls(few_endpoints, id, *((0, 100) if id == "i-2" else (100, 0)), now=0.0)
    assert few_calls.tick(10.0) == few_endpoints.tick(10.0) == []


def test_each_interval_is_judged_alone() -> None:
    outliers = detector(consecutive_failures=0)
    for now in (0.0, 10.0):
        for id in TEN:
            calls(outliers, id, *((0, 30) if id == "i-7" else (30, 0)), now=now)
        assert outliers.tick(now + 10.0) == []


def test_an_idle_consumer_waits_for_nothing() -> None:
    outliers = detector()
    assert outliers.next_deadline() is None
    outliers.record_call("i-1", True, 5.0)
    assert outliers.next_deadline() == 15.0
    outliers.tick(15.0)
    outliers.tick(25.0)
    assert outliers.next_deadline() is None


def test_the_next_deadline_is_the_first_end_of_an_ejection_or_sweep() -> None:
    outliers = detector(base_ejection_time=3.0)
    fail(outliers, "i-1", 5.0)
    assert outliers.next_deadline() == 8.0
    outliers.tick(8.0)
    assert outliers.next_deadline() == 15.0


def test_every_cause_has_a_move_and_only_ejections_are_counted() -> None:
    assert {cause for _, cause in MOVES} == set(EjectionCause)
    for (before, _), (after, change) in MOVES.items():
        ejects = (before, after) == (EjectionState.ACTIVE, EjectionState.EJECTED)
        assert change == (1 if ejects else -1 if before is after else 0)


ACTIONS = st.lists(st.tuples(st.integers(0, 29), st.booleans(), st.floats(0.0, 20.0)), max_size=150)


@given(ACTIONS, st.integers(1, 30), st.integers(1, 30), st.floats(0.0, 1.0))
def test_never_more_than_the_bounded_share_is_ejected(
    actions: list[tuple[int, bool, float]], before: int, after: int, share: float
) -> None:
    outliers = detector(
        [], consecutive_failures=2, base_ejection_time=7.0, max_ejected_share=share, min_calls=2, min_endpoints=2
    )
    now, listed = 0.0, set[str]()
    for step, (index, ok, passed) in enumerate(actions):
        endpoints = before if step < len(actions) // 2 else after
        ids = {f"i-{number}" for number in range(endpoints)}
        outliers.update_endpoints(ids - listed, listed - ids)
        listed = ids
        outliers.record_call(f"i-{index}", ok, now)
        outliers.record_call(f"i-{index}", ok, now)
        assert len(outliers.ejected) <= OutlierOptions(max_ejected_share=share).max_ejected(endpoints)
        now += passed
        outliers.tick(now)
        assert len(outliers.ejected) <= OutlierOptions(max_ejected_share=share).max_ejected(endpoints)
        assert (deadline := outliers.next_deadline()) is None or deadline > now


@pytest.mark.parametrize(
    "wrong", [{"max_ejected_share": 1.5}, {"interval": 0.0}, {"min_endpoints": 0}, {"consecutive_failures": -1}]
)
def test_outlier_options_out_of_bounds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(Invalid):
        OutlierOptions(**wrong)  # type: ignore[arg-type]
