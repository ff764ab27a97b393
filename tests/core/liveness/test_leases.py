import sys
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from adsum.core.errors import UnknownInstance
from adsum.core.liveness.guard import Guard
from adsum.core.liveness.leases import (
    MAX_STALE_LEASE_ENTRIES,
    MAX_TICK_DELAY,
    MAX_TICK_INTERVAL,
    MOVES,
    LeaseEvent,
    LeasePhase,
    Leases,
    LeaseTransition,
)
from adsum.core.model import Key

A, B = Key("orders", "a"), Key("orders", "b")
HELD, LAPSED, EXPIRED = LeasePhase.HELD, LeasePhase.LAPSED, LeasePhase.EXPIRED


def unguarded() -> Leases:
    return Leases(Guard(share=1.0))


def advance(leases: Leases, since: float, now: float, limit: int = 1000) -> list[LeaseTransition]:
    """Ticks every second, as the keeper does, and once more at `now`."""
    transitions, at = [], since
    while at < now:
        at = min(at + MAX_TICK_INTERVAL, now)
        transitions += leases.tick(at, limit)
        while (due := leases.next_deadline()) is not None and due <= at:
            transitions += leases.tick(at, limit)
    return transitions


def phases(transitions: list[LeaseTransition], key: Key) -> list[tuple[LeasePhase, LeasePhase]]:
    return [(transition.before, transition.after) for transition in transitions if transition.key == key]


def test_a_lease_is_held_until_its_deadline_and_lapsed_from_then_on() -> None:
    leases = unguarded()
    leases.grant(A, 30.0, 60.0, now=100.0)
    assert leases.deadline(A) == leases.next_deadline() == 130.0
    assert advance(leases, 100.0, 129.9) == []
    assert leases.phase(A) is HELD
    assert advance(leases, 129.9, 130.0) == [LeaseTransition(A, HELD, LAPSED, 0.0)]
    assert leases.phase(A) is LAPSED


def test_a_lapsed_lease_expires_once_its_grace_is_over() -> None:
    leases = unguarded()
    leases.grant(A, 30.0, 60.0, now=0.0)
    advance(leases, 0.0, 30.0)
    assert advance(leases, 30.0, 89.9) == []
    assert advance(leases, 89.9, 90.0) == [LeaseTransition(A, LAPSED, EXPIRED, 60.0)]


def test_a_renewal_moves_the_deadline_to_one_ttl_from_now() -> None:
    leases = unguarded()
    leases.grant(A, 30.0, 60.0, now=0.0)
    assert leases.renew(A, now=20.0) is None
    assert leases.deadline(A) == 50.0
    assert advance(leases, 0.0, 49.9) == []
    assert phases(advance(leases, 49.9, 50.0), A) == [(HELD, LAPSED)]


def test_a_lease_does_not_last_twice_its_ttl() -> None:
    """Eureka adds the length twice, so its leases last twice as long."""
    leases = unguarded()
    leases.grant(A, 30.0, 0.0, now=1000.0)
    for now in (1010.0, 1020.0, 1030.0):
        leases.renew(A, now)
    assert leases.deadline(A) == 1060.0
    transitions = advance(leases, 1030.0, 1062.0)
    assert phases(transitions, A) == [(HELD, LAPSED), (LAPSED, EXPIRED)]


def test_a_lapsed_lease_that_is_renewed_is_held_again() -> None:
    leases = unguarded()
    leases.grant(A, 30.0, 60.0, now=0.0)
    advance(leases, 0.0, 40.0)
    assert leases.renew(A, now=40.0) == LeaseTransition(A, LAPSED, HELD, -30.0)
    assert leases.deadline(A) == 70.0
    assert advance(leases, 40.0, 69.9) == []
    assert phases(advance(leases, 69.9, 70.0), A) == [(HELD, LAPSED)]
    assert phases(advance(leases, 70.0, 130.0), A) == [(LAPSED, EXPIRED)]


def test_an_unknown_lease_can_not_be_renewed() -> None:
    leases = unguarded()
    with pytest.raises(UnknownInstance):
        leases.renew(A, now=0.0)


def test_an_expired_lease_can_not_be_renewed() -> None:
    leases = unguarded()
    leases.grant(A, 1.0, 1.0, now=0.0)
    advance(leases, 0.0, 3.0)
    assert leases.phase(A) is EXPIRED
    with pytest.raises(UnknownInstance):
        leases.renew(A, now=3.0)


def test_a_postponed_expiry_can_be_renewed_or_expires_later() -> None:
    leases = unguarded()
    for key in (A, B):
        leases.grant(key, 1.0, 1.0, now=0.0)
    advance(leases, 0.0, 3.0)
    for key in (A, B):
        leases.postpone(key, until=10.0)
        assert leases.phase(key) is LAPSED
    leases.renew(A, now=9.0)
    transitions = advance(leases, 3.0, 10.0)
    assert phases(transitions, A) == [(HELD, LAPSED)]
    assert phases(transitions, B) == [(LAPSED, EXPIRED)]


def test_an_ended_lease_has_no_transitions() -> None:
    leases = unguarded()
    leases.grant(A, 30.0, 60.0, now=0.0)
    leases.end(A)
    leases.end(A)
    assert len(leases) == 0
    assert advance(leases, 0.0, 200.0) == []
    assert leases.next_deadline() is None


def test_another_grant_starts_again_with_the_new_ttl() -> None:
    leases = unguarded()
    leases.grant(A, 300.0, 60.0, now=0.0)
    advance(leases, 0.0, 10.0)
    leases.grant(A, 5.0, 60.0, now=10.0)
    assert phases(advance(leases, 10.0, 15.0), A) == [(HELD, LAPSED)]
    advance(leases, 15.0, 20.0)
    leases.grant(A, 100.0, 60.0, now=20.0)
    assert leases.phase(A) is HELD
    assert advance(leases, 20.0, 119.0) == []


def test_granting_the_same_again_is_a_renewal() -> None:
    leases = unguarded()
    leases.grant(A, 30.0, 60.0, now=0.0)
    leases.grant(A, 30.0, 60.0, now=20.0)
    assert leases.deadline(A) == 50.0


def test_a_lapsed_lease_gets_a_full_ttl_at_a_restart_before_it_may_expire() -> None:
    leases = unguarded()
    leases.grant(A, 30.0, 10.0, now=500.0, lapsed=True)
    assert leases.phase(A) is LAPSED
    assert advance(leases, 500.0, 539.0) == []
    assert phases(advance(leases, 539.0, 541.0), A) == [(LAPSED, EXPIRED)]


def test_a_lease_never_lapses_and_expires_in_the_same_tick() -> None:
    leases = unguarded()
    leases.grant(A, 1.0, 0.0, now=0.0)
    leases.tick(0.5, 1000)
    assert phases(leases.tick(5.0, 1000), A) == [(HELD, LAPSED)]
    assert phases(leases.tick(5.1, 1000), A) == [(LAPSED, EXPIRED)]


@pytest.mark.parametrize("gap", [MAX_TICK_INTERVAL + MAX_TICK_DELAY + 0.1, 8 * 3600.0])
def test_after_a_suspension_every_lease_gets_a_full_ttl(gap: float) -> None:
    leases = unguarded()
    leases.grant(A, 30.0, 10.0, now=0.0)
    leases.grant(B, 5.0, 30.0, now=0.0)
    advance(leases, 0.0, 29.0)
    now = 29.0 + gap
    assert leases.tick(now, 1000) == []
    assert (leases.phase(A), leases.phase(B)) == (HELD, LAPSED)
    assert advance(leases, now, now + 29.9) == []
    transitions = advance(leases, now + 29.9, now + 41.0)
    assert phases(transitions, A) == [(HELD, LAPSED), (LAPSED, EXPIRED)]
    assert phases(transitions, B) == [(LAPSED, EXPIRED)]


def test_a_suspension_before_the_first_tick_counts_too() -> None:
    leases = unguarded()
    leases.grant(A, 30.0, 10.0, now=0.0)
    assert leases.tick(100.0, 1000) == []
    assert leases.deadline(A) == 130.0


def test_a_slightly_late_tick_is_no_suspension() -> None:
    leases = unguarded()
    leases.grant(A, 30.0, 10.0, now=0.0)
    advance(leases, 0.0, 29.0)
    assert phases(leases.tick(29.0 + MAX_TICK_INTERVAL + MAX_TICK_DELAY, 1000), A) == [(HELD, LAPSED)]


def test_a_renewal_after_a_suspension_counts_from_the_renewal() -> None:
    leases = unguarded()
    leases.grant(A, 30.0, 10.0, now=0.0)
    leases.tick(1000.0, 1000)
    leases.renew(A, 1010.0)
    assert leases.deadline(A) == 1040.0


def test_a_tick_handles_no_more_than_its_limit_and_the_rest_follow() -> None:
    leases = unguarded()
    for n in range(100):
        leases.grant(Key("orders", f"i{n}"), 5.0, 1000.0, now=0.0)
    all_transitions = []
    for expected in (40, 40, 20, 0):
        transitions = leases.tick(5.0, 40)
        assert len(transitions) == expected
        all_transitions += transitions
    assert len({transition.key for transition in all_transitions}) == 100


def test_renewals_and_ends_do_not_grow_the_heap() -> None:
    leases = unguarded()
    for n in range(10_000):
        leases.grant(A, 86_400.0, 0.0, now=float(n))
        leases.renew(A, now=float(n))
    assert len(leases._heap) <= MAX_STALE_LEASE_ENTRIES + 3
    for n in range(10_000):
        leases.grant(Key("orders", f"i{n}"), 86_400.0, 0.0, now=0.0)
    for n in range(10_000):
        leases.end(Key("orders", f"i{n}"))
    assert len(leases._heap) <= MAX_STALE_LEASE_ENTRIES + 3


def test_the_guard_holds_back_the_expiries_of_a_mass_lapse_and_the_heap_is_idle() -> None:
    guard = Guard()
    leases = Leases(guard)
    for key in (A, B):
        leases.grant(key, 30.0, 60.0, now=0.0)
    assert len(advance(leases, 0.0, 30.0)) == 2
    assert advance(leases, 30.0, 1000.0) == []
    assert guard.held_count("orders") == 2
    assert leases.tick(1000.0, 1000) == []
    assert leases.next_deadline() is not None
    assert leases.next_deadline() > 1000.0  # type: ignore[operator]


def test_after_the_hold_the_leases_expire_with_the_guarded_time() -> None:
    leases = Leases(Guard(hold=600.0))
    for key in (A, B):
        leases.grant(key, 30.0, 60.0, now=0.0)
    transitions = advance(leases, 0.0, 30.0 + 60.0 + 600.0 + 30.0)
    expired = [transition for transition in transitions if transition.after is EXPIRED]
    assert {transition.key for transition in expired} == {A, B}
    assert all(transition.guarded_for >= 600.0 for transition in expired)


def test_leases_renewed_after_the_guard_disengaged_do_not_expire() -> None:
    leases = Leases(Guard())
    for key in (A, B):
        leases.grant(key, 30.0, 60.0, now=0.0)
    advance(leases, 0.0, 500.0)
    leases.renew(A, now=500.0)
    assert advance(leases, 500.0, 529.0) == []
    leases.renew(B, now=529.0)
    assert leases.phase(B) is HELD


def test_ending_a_lapsed_lease_is_never_held_back() -> None:
    leases = Leases(Guard())
    for key in (A, B):
        leases.grant(key, 30.0, 60.0, now=0.0)
    advance(leases, 0.0, 100.0)
    leases.end(A)
    assert leases.phase(A) is None


def test_the_table_of_transitions_has_only_intended_gaps() -> None:
    missing = {pair for pair in product(LeasePhase, LeaseEvent) if pair not in MOVES}
    assert missing == {
        (HELD, LeaseEvent.GRACE_OVER),
        (HELD, LeaseEvent.POSTPONED),
        (LAPSED, LeaseEvent.DEADLINE),
        (LAPSED, LeaseEvent.POSTPONED),
        (EXPIRED, LeaseEvent.RENEWED),
        (EXPIRED, LeaseEvent.DEADLINE),
        (EXPIRED, LeaseEvent.GRACE_OVER),
    }


def test_a_lease_is_small() -> None:
    leases = unguarded()
    leases.grant(A, 30.0, 60.0, now=0.0)
    assert sys.getsizeof(leases._leases[A]) <= 96
    assert not hasattr(leases._leases[A], "__dict__")


KEYS = [Key(service, str(n)) for service in ("orders", "users") for n in range(3)]


class LeasesMachine(RuleBasedStateMachine):
    """Compares the leases with a model that only knows the promises."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.leases = unguarded()
        self.promised: dict[Key, tuple[float, float, float]] = {}
        self.phases: dict[Key, LeasePhase] = {}

    @rule(key=st.sampled_from(KEYS), ttl=st.floats(1, 100), grace=st.floats(0, 100), lapsed=st.booleans())
    def grant(self, key: Key, ttl: float, grace: float, lapsed: bool) -> None:
        self.leases.grant(key, ttl, grace, self.now, lapsed=lapsed)
        self.promised[key] = (self.now, ttl, grace)
        self.phases[key] = LAPSED if lapsed else HELD

    @rule(key=st.sampled_from(KEYS))
    def renew(self, key: Key) -> None:
        if self.phases.get(key) in (None, EXPIRED):
            with pytest.raises(UnknownInstance):
                self.leases.renew(key, self.now)
            return
        transitions = self.leases.renew(key, self.now)
        assert (transitions is not None) == (self.phases[key] is LAPSED)
        self.promised[key] = (self.now, *self.promised[key][1:])
        self.phases[key] = HELD

    @rule(key=st.sampled_from(KEYS))
    def end(self, key: Key) -> None:
        self.leases.end(key)
        self.phases.pop(key, None)

    @rule(key=st.sampled_from(KEYS), wait=st.floats(0, 10))
    def postpone(self, key: Key, wait: float) -> None:
        self.leases.postpone(key, self.now + wait)
        if self.phases.get(key) is EXPIRED:
            self.phases[key] = LAPSED

    @rule(step=st.one_of(st.floats(0.0, 6.0), st.floats(6.1, 100_000.0)), limit=st.integers(1, 10))
    def tick(self, step: float, limit: int) -> None:
        self.now += step
        transitions = self.leases.tick(self.now, limit)
        assert len(transitions) <= limit
        for transition in transitions:
            self.check(transition)
            self.phases[transition.key] = transition.after

    def check(self, transition: LeaseTransition) -> None:
        renewed, ttl, grace = self.promised[transition.key]
        assert transition.before is self.phases[transition.key]
        assert (transition.before, transition.after) in ((HELD, LAPSED), (LAPSED, EXPIRED))
        promise = renewed + ttl if transition.after is LAPSED else renewed + ttl + grace
        assert self.now >= promise

    @precondition(lambda self: self.phases)
    @rule()
    def none_is_forgotten(self) -> None:
        for transition in advance(self.leases, self.now, self.now + 400.0, limit=3):
            assert transition.before is self.phases[transition.key]
            self.phases[transition.key] = transition.after
        self.now += 400.0
        assert set(self.phases.values()) == {EXPIRED}

    @invariant()
    def phases_agree(self) -> None:
        assert self.leases.lapsed_count == sum(phase is not HELD for phase in self.phases.values())
        assert len(self.leases) == len(self.phases)
        assert {key: self.leases.phase(key) for key in KEYS if self.leases.phase(key)} == self.phases


TestLeasesMachine = LeasesMachine.TestCase
TestLeasesMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(KEYS), st.floats(0.0, 5.0)), max_size=60))
def test_the_counts_of_the_guard_equal_a_recount(steps: list[tuple[Key, float]]) -> None:
    guard = Guard()
    leases, now = Leases(guard), 0.0
    for n, (key, step) in enumerate(steps):
        if n % 5 == 4:
            leases.end(key)
        elif n % 2 or leases.phase(key) in (None, EXPIRED):
            leases.grant(key, 4.0, 3.0, now)
        else:
            leases.renew(key, now)
        now += step
        leases.tick(now, 2)
        for service in ("orders", "users"):
            phases = [phase for key in KEYS if key.service == service and (phase := leases.phase(key)) is not None]
            counts = guard._services.get(service)
            counted = (counts.leases, counts.lapsed) if counts else (0, 0)
            assert counted == (len(phases), sum(phase is not HELD for phase in phases))
