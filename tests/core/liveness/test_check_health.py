from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.core.liveness.check_health import MOVES, CheckHealth, StreakThreshold
from adsum.core.model import Check, CheckKind, Result, Status

PASS, WARN, FAIL = Result.PASS, Result.WARN, Result.FAIL
STARTING, PASSING, WARNING, CRITICAL = Status.STARTING, Status.PASSING, Status.WARNING, Status.CRITICAL
EVIDENCE_STATUSES = (STARTING, PASSING, WARNING, CRITICAL)

streaks = st.integers(1, 6)
results = st.lists(st.sampled_from(Result), max_size=60)


def check(rise: int = 2, fall: int = 3) -> Check:
    return Check("up", CheckKind.TCP, rise=rise, fall=fall)


def statuses(health: CheckHealth, *outcomes: Result) -> list[Status]:
    return [health.observe(result) for result in outcomes]


def test_the_table_has_no_holes() -> None:
    assert set(MOVES) == set(product(EVIDENCE_STATUSES, Result))
    assert {status for status, _ in MOVES.values()} == {PASSING, WARNING, CRITICAL}


def test_the_first_pass_makes_a_starting_instance_passing_at_once() -> None:
    assert statuses(CheckHealth(check(rise=5)), PASS) == [PASSING]


def test_the_first_warning_makes_a_starting_instance_warning_at_once() -> None:
    assert statuses(CheckHealth(check(rise=5)), WARN) == [WARNING]


def test_a_starting_instance_is_critical_only_after_fall_fails() -> None:
    assert statuses(CheckHealth(check(fall=3)), FAIL, FAIL, FAIL) == [STARTING, STARTING, CRITICAL]


def test_a_starting_check_that_failed_is_still_passing_after_its_first_pass() -> None:
    assert statuses(CheckHealth(check(rise=5, fall=3)), FAIL, FAIL, PASS) == [STARTING, STARTING, PASSING]


@pytest.mark.parametrize("usable", [PASSING, WARNING])
def test_a_usable_instance_is_critical_after_fall_fails_in_a_row(usable: Status) -> None:
    assert statuses(CheckHealth(check(fall=3), usable), FAIL, FAIL, FAIL) == [usable, usable, CRITICAL]


def test_one_pass_in_between_starts_the_fall_anew() -> None:
    outcomes = (FAIL, FAIL, PASS, FAIL, FAIL, PASS)
    assert set(statuses(CheckHealth(check(fall=3), PASSING), *outcomes)) == {PASSING}


def test_a_critical_instance_is_passing_after_rise_passes_in_a_row() -> None:
    assert statuses(CheckHealth(check(rise=2), CRITICAL), PASS, FAIL, PASS, PASS) == [
        CRITICAL,
        CRITICAL,
        CRITICAL,
        PASSING,
    ]


def test_warnings_lead_back_from_critical_as_passes_do_and_the_last_outcome_decides() -> None:
    assert statuses(CheckHealth(check(rise=2), CRITICAL), PASS, WARN) == [CRITICAL, WARNING]
    assert statuses(CheckHealth(check(rise=2), CRITICAL), WARN, PASS) == [CRITICAL, PASSING]


def test_a_check_changes_between_passing_and_warning_at_once() -> None:
    assert statuses(CheckHealth(check(rise=5), PASSING), WARN, PASS, WARN) == [WARNING, PASSING, WARNING]


def test_the_first_fail_counts_with_a_fall_of_one() -> None:
    assert statuses(CheckHealth(check(fall=1), PASSING), FAIL) == [CRITICAL]


@pytest.mark.parametrize("declared", [Status.DRAINING, Status.MAINTENANCE])
def test_a_check_has_no_declared_status(declared: Status) -> None:
    with pytest.raises(ValueError, match="is no status of a check"):
        CheckHealth(check(), declared)


@given(streaks, streaks, st.sampled_from(EVIDENCE_STATUSES), results)
def test_fewer_fails_in_a_row_than_fall_never_make_critical(
    rise: int, fall: int, initial: Status, outcomes: list[Result]
) -> None:
    health, fails = CheckHealth(check(rise, fall), initial), 0
    for result in outcomes:
        before = health.status
        fails = fails + 1 if result is FAIL else 0
        after = health.observe(result)
        assert (after is CRITICAL) == (before is CRITICAL) or fails >= fall or before is CRITICAL
        if fails >= fall:
            assert after is CRITICAL


@given(streaks, streaks, results)
def test_fewer_than_rise_in_a_row_never_lead_back_from_critical(rise: int, fall: int, outcomes: list[Result]) -> None:
    health, good = CheckHealth(check(rise, fall), CRITICAL), 0
    for result in outcomes:
        before = health.status
        good = 0 if result is FAIL else good + 1
        after = health.observe(result)
        if before is CRITICAL:
            assert (after is not CRITICAL) == (good >= rise)


@given(streaks, streaks, st.sampled_from(EVIDENCE_STATUSES), results)
def test_an_outcome_changes_the_status_only_to_its_own(
    rise: int, fall: int, initial: Status, outcomes: list[Result]
) -> None:
    health = CheckHealth(check(rise, fall), initial)
    expected = {PASS: PASSING, WARN: WARNING, FAIL: CRITICAL}
    for result in outcomes:
        before = health.status
        assert health.observe(result) in (before, expected[result])


def test_a_move_with_a_threshold_of_one_needs_no_streak() -> None:
    at_once = {move for move, (_, threshold) in MOVES.items() if threshold is StreakThreshold.ONE}
    for initial, result in at_once:
        assert CheckHealth(check(rise=9, fall=9), initial).observe(result) is MOVES[initial, result][0]
