"""Services that stay empty are forgotten, and when their time starts again."""

from __future__ import annotations

from adsum.core.liveness.empty_services import MAX_DUE_SERVICES, EmptyServices
from adsum.core.model import Key
from adsum.core.provenance import Cause
from adsum.keeper.empty_services import FORGET_ROUND_INTERVAL
from adsum.keeper.keeper import SNAPSHOT_POLL_INTERVAL
from tests.keeper.world import KeeperWorld
from tests.support.fakes import FakeSharding

DAY = 90.0
"""Seconds; a short day."""
LATE = FORGET_ROUND_INTERVAL + 2 * SNAPSHOT_POLL_INTERVAL
"""Seconds by which a change may be late."""


async def _emptied(world: KeeperWorld, service: str = "orders") -> None:
    world.keeper.set_forget_after(DAY)
    await world.deregister(await world.register("o1", service, ttl=None))


def _known(world: KeeperWorld) -> set[str]:
    return set(world.registry.snapshot.services)


async def test_a_service_that_stays_empty_is_forgotten_with_cause_and_actor() -> None:
    async with KeeperWorld() as world:
        await world.register("u1", "users", ttl=None)
        await _emptied(world)
        await world.clock.advance(DAY - LATE)
        assert _known(world) == {"orders", "users"}
        await world.clock.advance(2 * LATE)
        assert _known(world) == {"users"}
        (change,) = [change for change in world.store.changes if change.forgets_service]
        assert (change.key, change.provenance.cause, change.provenance.actor) == (
            Key("orders", ""),
            Cause.FORGOTTEN,
            "registry",
        )
        assert change.provenance.reason == "no instance for 90 s"


async def test_a_new_instance_restarts_the_time() -> None:
    async with KeeperWorld() as world:
        await _emptied(world)
        await world.clock.advance(DAY - LATE)
        key = await world.register("o2", ttl=None)
        await world.clock.advance(2 * DAY)
        await world.deregister(key)
        await world.clock.advance(DAY - LATE)
        assert _known(world) == {"orders"}
        await world.clock.advance(2 * LATE)
        assert _known(world) == set()


async def test_a_referenced_service_stays_until_the_time_after_its_last_reference() -> None:
    async with KeeperWorld() as world:
        world.referenced = {"orders"}
        await _emptied(world)
        await world.clock.advance(3 * DAY + LATE)
        assert _known(world) == {"orders"}
        world.referenced = set()
        await world.clock.advance(DAY + LATE)
        assert _known(world) == set()


async def test_a_restart_restarts_the_time() -> None:
    async with KeeperWorld() as world:
        await _emptied(world)
        await world.clock.advance(DAY - LATE)
    async with KeeperWorld(world.store, world.clock) as again:
        again.keeper.set_forget_after(DAY)
        await again.clock.advance(DAY - LATE)
        assert _known(again) == {"orders"}
        await again.clock.advance(2 * LATE)
        assert _known(again) == set()


async def test_only_the_keeper_of_a_service_forgets_it() -> None:
    sharding = FakeSharding("users")
    async with KeeperWorld(sharding=sharding) as world:
        await _emptied(world)
        await _emptied(world, "users")
        await world.clock.advance(2 * DAY)
        assert _known(world) == {"orders"}
        sharding.set_kept("orders")
        await world.clock.advance(DAY - LATE)
        assert _known(world) == {"orders"}
        await world.clock.advance(2 * LATE)
        assert _known(world) == set()


def test_the_longest_empty_services_are_due_first_and_not_all_at_once() -> None:
    empty = EmptyServices()
    for number in range(MAX_DUE_SERVICES + 5):
        empty.update(f"s{number}", 0, float(number))
    empty.update("s1", 2, 5.0)
    empty.update("s3", None, 5.0)
    empty.update("s0", 0, 50.0)
    assert empty.due(9.0, 5.0) == ["s0", "s2", "s4"]
    assert len(empty.due(1e6, 5.0)) == MAX_DUE_SERVICES
    empty.restart("s0", 8.0)
    empty.restart("s1", 8.0)
    assert empty.due(9.0, 5.0) == ["s2", "s4"]
    assert len(empty) == MAX_DUE_SERVICES + 3
