from __future__ import annotations

import pytest

from adsum.balance.slow_start import RAMP_INTERVAL, SlowStart, SlowStartTracker
from adsum.core.errors import Invalid


def test_the_factor_rises_from_its_minimum_to_one() -> None:
    slow = SlowStart(window=30.0)
    assert slow.factor(0.0) == 0.1
    assert slow.factor(15.0) == 0.5
    assert slow.factor(30.0) == slow.factor(1e9) == 1.0


def test_aggression_changes_the_curve() -> None:
    assert SlowStart(window=30.0, aggression=2.0).factor(7.5) == 0.5
    assert SlowStart(window=30.0, aggression=0.5).factor(15.0) == 0.25


def test_slow_start_is_off_by_default() -> None:
    tracker = SlowStartTracker(SlowStart())
    tracker.update_endpoints(["a"], [], 0.0)
    tracker.update_endpoints(["b"], [], 1.0)
    assert SlowStart().factor(0.0) == 1.0
    assert not tracker.factors(1.0)
    assert tracker.next_change() is None


def test_a_window_shorter_than_a_second_has_no_factor_above_one() -> None:
    assert SlowStart(window=0.5).factor(0.1) == 1.0


def test_endpoints_of_the_first_view_have_their_full_weight() -> None:
    tracker = SlowStartTracker(SlowStart(window=30.0))
    tracker.update_endpoints(["a", "b"], [], 100.0)
    assert not tracker.factors(100.0)


def test_a_later_endpoint_rises_step_by_step_to_its_full_weight() -> None:
    tracker = SlowStartTracker(SlowStart(window=30.0))
    tracker.update_endpoints(["a"], [], 100.0)
    tracker.update_endpoints(["b"], [], 200.0)
    assert tracker.factors(200.0) == {"b": 0.1}
    assert tracker.next_change() == 200.0 + RAMP_INTERVAL
    assert tracker.factors(215.0) == {"b": 0.5}
    assert not tracker.factors(230.0)
    assert tracker.next_change() is None


def test_a_later_view_does_not_restart_slow_start() -> None:
    tracker = SlowStartTracker(SlowStart(window=30.0))
    tracker.update_endpoints([], [], 0.0)
    tracker.update_endpoints(["a"], [], 10.0)
    tracker.update_endpoints(["b"], [], 25.0)
    assert tracker.factors(25.0) == {"a": 0.5, "b": 0.1}


def test_an_endpoint_that_was_unusable_starts_slowly_again() -> None:
    tracker = SlowStartTracker(SlowStart(window=30.0))
    tracker.update_endpoints(["a", "b"], [], 0.0)
    tracker.update_endpoints([], ["b"], 10.0)
    tracker.update_endpoints(["b"], [], 20.0)
    assert tracker.factors(20.0) == {"b": 0.1}
    tracker.update_endpoints([], ["b"], 21.0)
    assert not tracker.factors(21.0)


@pytest.mark.parametrize("wrong", [{"window": -1.0}, {"aggression": 0.0}, {"min_factor": 0.0}])
def test_a_slow_start_out_of_bounds_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(Invalid):
        SlowStart(**wrong)
