"""Services that stay empty are forgotten, and when that is counted anew."""

from __future__ import annotations

from adsum.core.liveness.empty_services import MOST_AT_ONCE, Vacancies
from adsum.core.model import Cause, Key
from adsum.keeper.empty_services import PULSE
from adsum.keeper.keeper import LOOK
from tests.keeper.world import World
from tests.support.fakes import FakeShares

DAY = 90.0
"""A short one."""
LATE = PULSE + 2 * LOOK
"""By how much what is due may be late."""


async def _emptied(world: World, service: str = "orders") -> None:
    world.keeper.forget_after(DAY)
    await world.deregister(await world.register("o1", service, ttl=None))


def _known(world: World) -> set[str]:
    return set(world.registry.snapshot.services)


async def test_a_service_that_was_empty_for_long_is_forgotten_with_cause_and_actor() -> None:
    async with World() as world:
        await world.register("u1", "users", ttl=None)
        await _emptied(world)
        await world.clock.advance(DAY - LATE)
        assert _known(world) == {"orders", "users"}
        await world.clock.advance(2 * LATE)
        assert _known(world) == {"users"}
        (change,) = [each for each in world.store.changes if each.forgets]
        assert (change.key, change.why.cause, change.why.actor) == (Key("orders", ""), Cause.FORGOTTEN, "registry")
        assert change.why.reason == "no instance for 90 s"


async def test_an_instance_that_comes_has_the_time_begin_anew() -> None:
    async with World() as world:
        await _emptied(world)
        await world.clock.advance(DAY - LATE)
        key = await world.register("o2", ttl=None)
        await world.clock.advance(2 * DAY)
        await world.deregister(key)
        await world.clock.advance(DAY - LATE)
        assert _known(world) == {"orders"}
        await world.clock.advance(2 * LATE)
        assert _known(world) == set()


async def test_a_service_that_somebody_names_stays_until_long_after_nobody_does() -> None:
    async with World() as world:
        world.mentioned = {"orders"}
        await _emptied(world)
        await world.clock.advance(3 * DAY + LATE)
        assert _known(world) == {"orders"}
        world.mentioned = set()
        await world.clock.advance(DAY + LATE)
        assert _known(world) == set()


async def test_a_restart_has_the_time_begin_anew() -> None:
    async with World() as world:
        await _emptied(world)
        await world.clock.advance(DAY - LATE)
    async with World(world.store, world.clock) as again:
        again.keeper.forget_after(DAY)
        await again.clock.advance(DAY - LATE)
        assert _known(again) == {"orders"}
        await again.clock.advance(2 * LATE)
        assert _known(again) == set()


async def test_only_the_node_that_keeps_a_service_has_it_forgotten() -> None:
    shares = FakeShares("users")
    async with World(shares=shares) as world:
        await _emptied(world)
        await _emptied(world, "users")
        await world.clock.advance(2 * DAY)
        assert _known(world) == {"orders"}
        shares.keep("orders")
        await world.clock.advance(DAY - LATE)
        assert _known(world) == {"orders"}
        await world.clock.advance(2 * LATE)
        assert _known(world) == set()


def test_those_that_have_been_empty_for_longest_are_due_first_and_not_all_at_once() -> None:
    vacancies = Vacancies()
    for number in range(MOST_AT_ONCE + 5):
        vacancies.follow(f"s{number}", 0, float(number))
    vacancies.follow("s1", 2, 5.0)
    vacancies.follow("s3", None, 5.0)
    vacancies.follow("s0", 0, 50.0)
    assert vacancies.due(9.0, 5.0) == ["s0", "s2", "s4"]
    assert len(vacancies.due(1e6, 5.0)) == MOST_AT_ONCE
    vacancies.begin_again("s0", 8.0)
    vacancies.begin_again("s1", 8.0)
    assert vacancies.due(9.0, 5.0) == ["s2", "s4"]
    assert len(vacancies) == MOST_AT_ONCE + 3
