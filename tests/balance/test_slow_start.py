from __future__ import annotations

import pytest

from adsum.balance.slow_start import STEP, Ramps, SlowStart
from adsum.core.errors import Invalid


def test_the_factor_rises_from_the_least_to_one() -> None:
    slow = SlowStart(window=30.0)
    assert slow.factor(0.0) == 0.1
    assert slow.factor(15.0) == 0.5
    assert slow.factor(30.0) == slow.factor(1e9) == 1.0


def test_aggression_bends_the_rise() -> None:
    assert SlowStart(window=30.0, aggression=2.0).factor(7.5) == 0.5
    assert SlowStart(window=30.0, aggression=0.5).factor(15.0) == 0.25


def test_slow_start_is_off_unless_asked_for() -> None:
    ramps = Ramps(SlowStart())
    ramps.view(["a"], 0.0)
    ramps.view(["a", "b"], 1.0)
    assert SlowStart().factor(0.0) == 1.0
    assert not ramps.warmth(1.0)
    assert ramps.next_change() is None


def test_a_window_shorter_than_a_second_is_no_ramp_above_one() -> None:
    assert SlowStart(window=0.5).factor(0.1) == 1.0


def test_the_first_view_is_warm() -> None:
    ramps = Ramps(SlowStart(window=30.0))
    ramps.view(["a", "b"], 100.0)
    assert not ramps.warmth(100.0)


def test_who_comes_later_ramps_step_by_step_and_is_warm_in_the_end() -> None:
    ramps = Ramps(SlowStart(window=30.0))
    ramps.view(["a"], 100.0)
    ramps.view(["a", "b"], 200.0)
    assert ramps.warmth(200.0) == {"b": 0.1}
    assert ramps.next_change() == 200.0 + STEP
    assert ramps.warmth(215.0) == {"b": 0.5}
    assert not ramps.warmth(230.0)
    assert ramps.next_change() is None


def test_a_later_view_does_not_start_a_ramp_anew() -> None:
    ramps = Ramps(SlowStart(window=30.0))
    ramps.view([], 0.0)
    ramps.view(["a"], 10.0)
    ramps.view(["a", "b"], 25.0)
    assert ramps.warmth(25.0) == {"a": 0.5, "b": 0.1}


def test_who_was_out_ramps_again() -> None:
    ramps = Ramps(SlowStart(window=30.0))
    ramps.view(["a", "b"], 0.0)
    ramps.view(["a"], 10.0)
    ramps.view(["a", "b"], 20.0)
    assert ramps.warmth(20.0) == {"b": 0.1}
    ramps.view(["a"], 21.0)
    assert not ramps.warmth(21.0)


@pytest.mark.parametrize("wrong", [{"window": -1.0}, {"aggression": 0.0}, {"least": 0.0}])
def test_a_slow_start_out_of_bounds_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(Invalid):
        SlowStart(**wrong)
