from collections.abc import Iterable

import pytest

from adsum.core.liveness.guard import Guard
from adsum.core.model import Key


def keys(count: int, service: str = "orders") -> list[Key]:
    return [Key(service, f"i{n}") for n in range(count)]


def guard_of(total: int, lapsed: int, hold: float | None = 3600.0, share: float = 0.5) -> Guard:
    guard = Guard(share, hold)
    for key in keys(total):
        guard.lease_added(key)
    lapse(guard, keys(lapsed))
    return guard


def lapse(guard: Guard, lapsing: Iterable[Key]) -> None:
    for key in lapsing:
        guard.lease_lapsed(key)


@pytest.mark.parametrize(("lapsed", "total"), [(1, 1), (1, 2), (2, 4), (1, 3), (5, 10)])
def test_up_to_half_expire_normally(lapsed: int, total: int) -> None:
    guard = guard_of(total, lapsed)
    assert all(guard.may_expire(key, 0.0) for key in keys(lapsed))
    assert guard.changed_counts() == {}


@pytest.mark.parametrize(("lapsed", "total"), [(2, 2), (3, 4), (2, 3), (6, 10), (10, 10)])
def test_a_mass_lapse_is_held_back(lapsed: int, total: int) -> None:
    guard = guard_of(total, lapsed)
    assert not any(guard.may_expire(key, 0.0) for key in keys(lapsed))
    assert guard.changed_counts() == {"orders": lapsed}
    assert guard.changed_counts() == {}


def test_services_are_guarded_one_by_one() -> None:
    guard = guard_of(4, 4)
    for key in keys(2, "users"):
        guard.lease_added(key)
    guard.lease_lapsed(Key("users", "i0"))
    assert not guard.may_expire(Key("orders", "i0"), 0.0)
    assert guard.may_expire(Key("users", "i0"), 0.0)


def test_when_enough_leases_renew_the_guard_disengages_and_the_rest_get_one_more_ttl() -> None:
    guard = guard_of(4, 3)
    a, b, c = keys(3)
    assert not any(guard.may_expire(key, 0.0) for key in (a, b, c))
    guard.lease_renewed(a)
    assert guard.held_count("orders") == 0
    assert guard.changed_counts() == {"orders": 0}
    assert not guard.may_expire(b, 30.0)
    assert guard.may_expire(b, 60.0)


def test_a_renewed_lease_is_not_counted_as_held_back() -> None:
    guard = guard_of(10, 10)
    for key in keys(10):
        guard.may_expire(key, 0.0)
    guard.lease_renewed(Key("orders", "i0"))
    guard.lease_removed(Key("orders", "i1"), lapsed=True)
    assert guard.held_count("orders") == 8
    assert guard.changed_counts() == {"orders": 8}


def test_a_mass_lapse_that_lasts_is_released_after_the_hold() -> None:
    guard = guard_of(4, 3, hold=100.0)
    a, b, c = keys(3)
    assert not guard.may_expire(a, 1000.0)
    assert not guard.may_expire(b, 1099.0)
    assert guard.may_expire(a, 1100.0)
    assert guard.engaged_seconds("orders", 1100.0) == 100.0
    guard.lease_removed(a, lapsed=True)
    assert guard.may_expire(b, 1100.0)
    assert guard.may_expire(c, 1100.0)


def test_the_hold_starts_again_with_the_next_mass_lapse() -> None:
    guard = guard_of(4, 3, hold=100.0)
    a, b, _ = keys(3)
    assert not guard.may_expire(a, 0.0)
    guard.lease_renewed(a)
    guard.lease_lapsed(a)
    assert not guard.may_expire(a, 500.0)
    assert not guard.may_expire(b, 599.0)
    assert guard.may_expire(b, 600.0)


def test_without_a_hold_a_mass_lapse_is_held_back_for_ever() -> None:
    guard = guard_of(2, 2, hold=None)
    assert not guard.may_expire(Key("orders", "i0"), 0.0)
    assert not guard.may_expire(Key("orders", "i0"), 1e9)


def test_a_share_of_one_turns_the_guard_off() -> None:
    guard = guard_of(10, 10, share=1.0)
    assert all(guard.may_expire(key, 0.0) for key in keys(10))


def test_new_instances_can_end_a_mass_lapse() -> None:
    guard = guard_of(4, 3)
    assert not guard.may_expire(Key("orders", "i0"), 0.0)
    for n in range(2):
        guard.lease_added(Key("orders", f"new{n}"))
    assert guard.changed_counts() == {"orders": 0}


def test_a_service_without_leases_is_forgotten() -> None:
    guard = guard_of(2, 2)
    for key in keys(2):
        assert not guard.may_expire(key, 0.0)
    for key in keys(2):
        guard.lease_removed(key, lapsed=True)
    assert guard.changed_counts() == {"orders": 0}
    assert guard.engaged_seconds("orders", 10.0) == 0.0
