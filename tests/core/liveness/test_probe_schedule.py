from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from adsum.core.liveness.probe_schedule import (
    LATE_SHARE,
    MAX_COUNTED_OVERDUE,
    MAX_FIRST_DELAY,
    MAX_STALE_CHECK_ENTRIES,
    PROBE_JITTER,
    SCATTER_JITTER,
    ProbeSchedule,
    ScheduledCheck,
)
from adsum.core.model import Check, CheckKind, Key

A, B = Key("orders", "a"), Key("orders", "b")
ALL = 1_000_000


def check(name: str = "up", interval: float = 10.0) -> Check:
    return Check(name, CheckKind.TCP, interval=interval)


def schedule(seed: int = 1) -> ProbeSchedule:
    return ProbeSchedule(Random(seed))


def deadline(schedule: ProbeSchedule) -> float:
    due = schedule.next_deadline()
    assert due is not None
    return due


def start(schedule: ProbeSchedule) -> tuple[ScheduledCheck, float]:
    """Starts the next check at its instant."""
    now = deadline(schedule)
    [scheduled] = schedule.start_due(now, 1)
    return scheduled, now


@given(st.integers(0, 1000), st.floats(0.1, 3600.0))
def test_a_newly_listed_check_starts_soon(seed: int, interval: float) -> None:
    checks = schedule(seed)
    checks.add(A, check(interval=interval), now=50.0, soon=True)
    assert 50.0 <= deadline(checks) <= 50.0 + min(interval, MAX_FIRST_DELAY)


def test_after_a_restart_the_first_starts_are_spread_over_the_whole_interval() -> None:
    checks = schedule()
    for n in range(1000):
        checks.add(Key("orders", str(n)), check(interval=10.0), now=0.0, soon=False)
    started = [len(checks.start_due(float(second), ALL)) for second in range(1, 11)]
    assert sum(started) == 1000
    assert min(started) >= 60
    assert max(started) <= 140


def test_nothing_is_due_before_its_instant_and_a_running_check_is_not_due_again() -> None:
    checks = schedule()
    checks.add(A, check(), now=0.0, soon=False)
    due = deadline(checks)
    assert checks.start_due(due - 0.001, ALL) == []
    [scheduled] = checks.start_due(due, ALL)
    assert (scheduled.key, scheduled.check) == (A, check())
    assert checks.start_due(due + 1000.0, ALL) == []
    assert checks.next_deadline() is None


@given(st.integers(0, 1000), st.floats(0.1, 3600.0), st.floats(0.0, 1.0))
def test_the_interval_is_from_start_to_start_however_long_the_probe_takes(
    seed: int, interval: float, share: float
) -> None:
    checks = schedule(seed)
    checks.add(A, check(interval=interval), now=0.0, soon=False)
    scheduled, first = start(checks)
    checks.finish(scheduled, first + share * interval * (1 - PROBE_JITTER))
    gap = deadline(checks) - first
    assert interval * (1 - PROBE_JITTER) - 1e-6 <= gap <= interval * (1 + PROBE_JITTER) + 1e-6


def test_a_probe_that_takes_longer_than_the_interval_is_followed_by_one_probe_not_by_a_burst() -> None:
    checks = schedule()
    checks.add(A, check(interval=1.0), now=0.0, soon=False)
    scheduled, first = start(checks)
    checks.finish(scheduled, first + 60.0)
    assert deadline(checks) == first + 60.0
    assert checks.start_due(first + 60.0, ALL) == [scheduled]
    assert checks.start_due(first + 60.0, ALL) == []


@given(st.integers(0, 1000), st.floats(LATE_SHARE + 0.01, 50.0))
def test_checks_that_started_late_together_are_scattered(seed: int, late: float) -> None:
    checks = schedule(seed)
    checks.add(A, check(interval=10.0), now=0.0, soon=False)
    now = deadline(checks) + late * 10.0
    [scheduled] = checks.start_due(now, 1)
    checks.finish(scheduled, now)
    gap = deadline(checks) - now
    assert 10.0 * (1 - SCATTER_JITTER) - 1e-6 <= gap <= 10.0 * (1 + SCATTER_JITTER) + 1e-6


def test_many_checks_listed_at_once_are_soon_spread_evenly() -> None:
    checks = schedule()
    for n in range(1000):
        checks.add(Key("orders", str(n)), check(interval=10.0), now=0.0, soon=True)
    now, starts_by_second = 0.0, Counter[int]()
    while now < 60.0:
        now += 0.05
        for scheduled in checks.start_due(now, ALL):
            starts_by_second[int(now)] += 1
            checks.finish(scheduled, now)
    steady = [starts_by_second[second] for second in range(20, 60)]
    assert min(steady) >= 50
    assert max(steady) <= 150


def test_at_most_the_limit_start_the_most_overdue_first() -> None:
    checks = schedule()
    for n in range(10):
        checks.add(Key("orders", str(n)), check(), now=0.0, soon=False)
    first, rest = checks.start_due(20.0, 3), checks.start_due(20.0, ALL)
    assert (len(first), len(rest)) == (3, 7)
    assert checks.start_due(20.0, 0) == []


def test_a_removed_check_never_starts() -> None:
    checks = schedule()
    checks.add(A, check("up"), now=0.0, soon=True)
    checks.add(A, check("deep"), now=0.0, soon=True)
    checks.add(B, check("up"), now=0.0, soon=True)
    checks.remove(A, "up")
    assert [scheduled.check.name for scheduled in checks.start_due(5.0, ALL) if scheduled.key == A] == ["deep"]
    checks.remove(B)
    checks.remove(B)
    assert len(checks) == 1


def test_finishing_a_removed_or_replaced_check_returns_false() -> None:
    checks = schedule()
    checks.add(A, check(), now=0.0, soon=True)
    old, now = start(checks)
    checks.add(A, check(interval=20.0), now, soon=True)
    assert not checks.finish(old, now + 1.0)
    [new] = checks.start_due(now + 1.0, ALL)
    assert new is not old
    checks.remove(A)
    assert not checks.finish(new, now + 2.0)
    assert len(checks) == 0
    assert checks.next_deadline() is None


def test_finishing_twice_plans_the_check_once() -> None:
    checks = schedule()
    checks.add(A, check(), now=0.0, soon=True)
    scheduled, now = start(checks)
    assert checks.finish(scheduled, now)
    assert checks.finish(scheduled, now)
    assert checks.start_due(now + 100.0, ALL) == [scheduled]
    assert checks.start_due(now + 100.0, ALL) == []


def test_lag_is_the_worst_delay_since_the_last_call_and_the_overdue_count() -> None:
    checks = schedule()
    checks.add(A, check(), now=0.0, soon=False)
    checks.add(B, check(), now=0.0, soon=False)
    first = deadline(checks)
    [scheduled] = checks.start_due(first + 20.0, 1)
    second = deadline(checks)
    assert checks.lag(first + 20.0) == (20.0, 1)
    assert checks.lag(first + 21.0) == (first + 21.0 - second, 1)
    checks.start_due(second + 30.0, ALL)
    assert checks.lag(second + 30.0) == (30.0, 0)
    assert checks.lag(second + 30.0) == (0.0, 0)
    assert checks.finish(scheduled, second + 30.0)


def test_removed_checks_are_neither_late_nor_overdue() -> None:
    checks = schedule()
    for n in range(100):
        checks.add(Key("orders", str(n)), check(), now=0.0, soon=True)
    for n in range(1, 100):
        checks.remove(Key("orders", str(n)))
    assert checks.lag(50.0)[1] == 1
    checks.remove(Key("orders", "0"))
    assert checks.lag(50.0) == (0.0, 0)


def test_overdue_checks_are_counted_up_to_a_bound() -> None:
    checks = schedule()
    for n in range(MAX_COUNTED_OVERDUE + 10):
        checks.add(Key("orders", str(n)), check(), now=0.0, soon=True)
    assert checks.lag(50.0)[1] == MAX_COUNTED_OVERDUE


def test_removed_checks_do_not_accumulate() -> None:
    checks = schedule()
    for n in range(20 * MAX_STALE_CHECK_ENTRIES):
        checks.add(A, check(interval=3600.0), now=float(n), soon=False)
    assert len(checks) == 1
    assert len(checks._heap) <= 2 * MAX_STALE_CHECK_ENTRIES


class ScheduleMachine(RuleBasedStateMachine):
    """Plans, removes, starts and finishes checks in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.checks = schedule()
        self.planned: dict[tuple[Key, str], ScheduledCheck] = {}
        self.running: list[ScheduledCheck] = []
        self.started: dict[ScheduledCheck, float] = {}

    @rule(n=st.integers(0, 4), name=st.sampled_from(["x", "y"]), soon=st.booleans(), interval=st.floats(0.1, 20.0))
    def add(self, n: int, name: str, soon: bool, interval: float) -> None:
        key = Key("orders", str(n))
        self.planned[key, name] = self.checks.add(key, check(name, interval), self.now, soon=soon)

    @rule(n=st.integers(0, 4), name=st.sampled_from(["x", "y", None]))
    def remove(self, n: int, name: str | None) -> None:
        key = Key("orders", str(n))
        self.checks.remove(key, name)
        self.planned = {
            at: scheduled for at, scheduled in self.planned.items() if at[0] != key or name not in (None, at[1])
        }

    @rule(length=st.floats(0.0, 30.0), limit=st.integers(0, 5))
    def start_due(self, length: float, limit: int) -> None:
        self.now += length
        waiting = [
            scheduled
            for scheduled in self.planned.values()
            if scheduled not in self.running and scheduled.due <= self.now
        ]
        checks = self.checks.start_due(self.now, limit)
        assert len(checks) == min(limit, len(waiting))
        assert len(set(checks)) == len(checks)
        for scheduled in checks:
            assert scheduled in waiting
            if scheduled in self.started:
                assert self.now - self.started[scheduled] >= scheduled.check.interval * (1 - SCATTER_JITTER) - 1e-6
            self.started[scheduled] = self.now
            self.running.append(scheduled)

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        if self.running:
            scheduled = data.draw(st.sampled_from(self.running))
            self.running.remove(scheduled)
            planned = scheduled in self.planned.values()
            assert self.checks.finish(scheduled, self.now) == planned
            assert not planned or scheduled.due >= self.now

    @invariant()
    def the_count_is_what_is_planned(self) -> None:
        assert len(self.checks) == len(self.planned)

    @invariant()
    def the_next_deadline_is_the_earliest_that_waits(self) -> None:
        waiting = [scheduled.due for scheduled in self.planned.values() if scheduled not in self.running]
        assert self.checks.next_deadline() == min(waiting, default=None)
        assert self.checks.lag(self.now)[1] == sum(due < self.now for due in waiting)


ScheduleMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSchedule = ScheduleMachine.TestCase
