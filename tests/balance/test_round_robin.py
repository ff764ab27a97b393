from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.balance.builders import build, choice, choices, picks

WEIGHTS = st.lists(st.integers(1, 12), min_size=1, max_size=8)


@given(WEIGHTS, st.integers(0, 1_000), st.integers(0, 50))
def test_every_cycle_gives_every_endpoint_exactly_its_weight(weights: list[int], seed: int, skipped: int) -> None:
    picker = build("round_robin", choices(*weights), seed)
    picks(picker, skipped)
    for _ in range(3):
        counts = Counter(picks(picker, sum(weights)))
        assert counts == {f"i-{index:03}": weight for index, weight in enumerate(weights)}


@given(WEIGHTS, st.integers(0, 1_000))
def test_rebuilding_before_each_pick_changes_nothing(weights: list[int], seed: int) -> None:
    picker = build("round_robin", choices(*weights), seed)
    steady = picks(build("round_robin", choices(*weights), seed), 2 * sum(weights))
    rebuilt = []
    for _ in steady:
        picker = build("round_robin", choices(*weights), previous=picker)
        rebuilt += picks(picker, 1)
    assert rebuilt == steady


@pytest.mark.parametrize("seed", range(10))
def test_a_heavy_endpoint_is_spread_over_the_cycle(seed: int) -> None:
    order = "".join(id[-1] for id in picks(build("round_robin", choices(5, 1, 1), seed), 70))
    assert "0000" not in order
    assert "11" not in order


def test_equal_endpoints_take_turns_in_a_fixed_order() -> None:
    order = picks(build("round_robin", choices(1, 1, 1)), 9)
    assert order[:3] == order[3:6] == order[6:]
    assert sorted(order[:3]) == ["i-000", "i-001", "i-002"]


def test_the_order_of_the_view_does_not_matter() -> None:
    candidates = choices(1, 2, 3, 1)
    assert picks(build("round_robin", candidates), 50) == picks(build("round_robin", candidates[::-1]), 50)


@pytest.mark.parametrize("weight", [1, 3])
def test_a_rebuilt_picker_goes_on_where_the_previous_one_was(weight: float) -> None:
    old = build("round_robin", choices(*[1.0] * 9, weight))
    last = [int(id[2:]) for id in picks(old, 500) if id != "i-009"][-1]
    new = build("round_robin", [*choices(*[1.0] * 9, weight), choice("late")], previous=old)
    following = [int(id[2:]) for id in picks(new, 4) if id not in ("late", "i-009")]
    assert (following[0] - last) % 9 <= 2


@pytest.mark.parametrize("weights", [(1, 2, 3, 4), (0.5, 0.25, 1.75)])
def test_threads_that_pick_at_once_share_one_schedule(weights: tuple[float, ...]) -> None:
    picker = build("round_robin", choices(*weights))
    with ThreadPoolExecutor(4) as pool:
        counts = Counter(id for ids in pool.map(lambda _: picks(picker, 1_000), range(10)) for id in ids)
    for index, weight in enumerate(weights):
        assert counts[f"i-{index:03}"] == pytest.approx(10_000 * weight / sum(weights), abs=1)


def test_shares_of_fractional_weights_are_exact_to_a_pick() -> None:
    weights = [0.1, 0.37, 1.0, 2.5]
    picker = build("round_robin", choices(*weights))
    counts = Counter(picks(picker, 3_970))
    for index, weight in enumerate(weights):
        assert counts[f"i-{index:03}"] == pytest.approx(1_000 * weight, abs=2)


def test_a_tiny_weight_does_not_disturb_the_other_shares() -> None:
    counts = Counter(picks(build("round_robin", choices(1e-9, 1.0, 1.0)), 1_000))
    assert abs(counts["i-001"] - counts["i-002"]) <= 1
    assert counts["i-000"] <= 1
