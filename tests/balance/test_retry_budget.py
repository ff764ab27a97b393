from __future__ import annotations

import pytest

from adsum.balance.retry_budget import RetryBudget
from adsum.core.errors import Invalid


def retries(budget: RetryBudget, now: float, wanted: int = 10_000) -> int:
    return sum(budget.withdraw(now) for _ in range(wanted))


def test_a_fifth_of_the_calls_may_be_retried() -> None:
    budget = RetryBudget(floor=0.0)
    assert not budget.withdraw(0.0)
    for _ in range(1_000):
        budget.deposit(0.0)
    assert budget.left(0.0) == 200
    assert retries(budget, 1.0) == 200


def test_a_quiet_client_has_the_minimum_of_retries_in_each_window() -> None:
    budget = RetryBudget(floor=10.0, window=10.0)
    assert retries(budget, 0.0) == 100
    assert retries(budget, 9.0) == 0
    assert retries(budget, 10.0) == 100


def test_calls_are_forgotten_after_the_window() -> None:
    budget = RetryBudget(floor=0.0, window=10.0)
    for _ in range(100):
        budget.deposit(0.0)
    assert budget.left(9.9) == 20
    assert budget.left(10.0) == 0
    assert budget.left(1e6) == 0


def test_a_steady_outage_is_retried_at_the_ratio() -> None:
    budget = RetryBudget(ratio=0.2, floor=0.0)
    allowed = 0
    for call in range(10_000):
        now = 100.0 + call * 0.01
        budget.deposit(now)
        allowed += budget.withdraw(now)
    assert allowed == pytest.approx(2_000, rel=0.02)


def test_a_ratio_of_zero_leaves_the_minimum_per_second() -> None:
    budget = RetryBudget(ratio=0.0, floor=1.0)
    for _ in range(100):
        budget.deposit(0.0)
    assert retries(budget, 0.0) == 10


@pytest.mark.parametrize("wrong", [{"ratio": -1.0}, {"floor": -1.0}, {"window": 0.0}])
def test_a_budget_out_of_bounds_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(Invalid):
        RetryBudget(**wrong)
