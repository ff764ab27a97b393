"""Leases and checks of instances at a place that another process has taken."""

from __future__ import annotations

import asyncio

import pytest

from adsum.core.errors import Overloaded, ProbeUnavailable
from adsum.core.model import Check, CheckKind, Result, Status
from adsum.core.provenance import Cause
from adsum.keeper import place_prober
from tests.keeper.world import KeeperWorld
from tests.support.fakes import run_until_idle

HERE = "127.0.0.1"
CHECK = Check("web", CheckKind.TCP, interval=5.0, rise=1)


async def test_an_instance_is_removed_as_it_lapses_if_another_service_has_its_place() -> None:
    async with KeeperWorld() as world:
        dead = await world.register("o1", holder="h1", ttl=15.0, address=HERE)
        await world.register("u1", "users", holder="h2", ttl=60.0, address=HERE)
        await world.clock.advance(14.0)
        assert world.status(dead) is Status.PASSING
        await world.clock.advance(2.0)
        assert world.find(dead) is None
        assert world.causes(dead)[-1] is Cause.SUPERSEDED
        assert "users/u1" in world.reason(dead)


async def test_the_guard_does_not_hold_back_instances_whose_places_others_have() -> None:
    async with KeeperWorld() as world:
        dead = [await world.register(f"o{n}", holder=f"o{n}", ttl=2.0, grace=2.0, port=n, address="h") for n in (1, 2)]
        for n in (1, 2):
            await world.register(f"u{n}", "users", holder=f"u{n}", ttl=60.0, port=n, address="h")
        await world.clock.advance(6.0)
        assert [world.find(key) for key in dead] == [None, None]


async def test_two_services_that_have_both_renewed_at_one_place_keep_guard_and_grace() -> None:
    async with KeeperWorld() as world:
        first = await world.register("o1", holder="h1", ttl=5.0, grace=30.0, address=HERE)
        second = await world.register("u1", "users", holder="h2", ttl=60.0, address=HERE)
        await world.clock.advance(2.0)
        world.keeper.renew(first)
        await world.clock.advance(6.0)
        assert world.status(first) is Status.CRITICAL, "it may come back: both have lived there"
        world.keeper.renew(second)
        await world.clock.advance(31.0)
        assert world.find(first) is None
        assert world.causes(first)[-1] is Cause.SUPERSEDED


async def test_a_restarted_registry_still_removes_instances_whose_places_others_have() -> None:
    async with KeeperWorld() as world:
        dead = await world.register("o1", holder="h1", ttl=15.0, address=HERE)
        await world.clock.advance(10.0)
        living = await world.register("u1", "users", holder="h2", ttl=60.0, address=HERE)
    async with KeeperWorld(world.store, world.clock) as again:
        await again.clock.advance(14.0)
        again.keeper.renew(living)
        assert again.status(dead) is Status.PASSING
        await again.clock.advance(2.0)
        assert again.find(dead) is None
        assert again.causes(dead)[-1] is Cause.SUPERSEDED


async def test_after_a_restart_no_instance_is_removed_for_one_that_has_not_renewed_either() -> None:
    async with KeeperWorld() as world:
        first = await world.register("o1", holder="h1", ttl=15.0, address=HERE)
        await world.register("u1", "users", holder="h2", ttl=60.0, address=HERE)
        world.keeper.renew(first)
    async with KeeperWorld(world.store, world.clock) as again:
        await again.clock.advance(16.0)
        assert again.status(first) is Status.CRITICAL, "their network may be cut off"


async def test_after_the_grace_the_guard_does_not_hold_back_an_instance_whose_place_another_has() -> None:
    async with KeeperWorld() as world:
        keys = [await world.register(f"o{n}", holder=f"o{n}", ttl=5.0, grace=10.0, port=n, address="h") for n in (1, 2)]
        others = [await world.register(f"u{n}", "users", holder=f"u{n}", port=n, address="h") for n in (1, 2)]
        await world.clock.advance(1.0)
        for key in keys:
            world.keeper.renew(key)
        for _ in range(4):
            await world.clock.advance(5.0)
            for key in others:
                world.keeper.renew(key)
        assert [world.find(key) for key in keys] == [None, None]


async def test_a_new_holder_is_starting_and_checked_at_once() -> None:
    async with KeeperWorld() as world:
        key = await world.register("o1", holder="h1", checks=(CHECK,), address=HERE)
        await world.clock.advance(6.0)
        assert world.status(key) is Status.PASSING
        world.probe.results["o1"] = Result.FAIL
        await world.register("o1", holder="h2", checks=(CHECK,), address=HERE)
        await world.clock.advance(1.0)
        assert world.status(key) is Status.STARTING
        world.probe.results["o1"] = Result.PASS
        await world.clock.advance(5.5)
        assert world.status(key) is Status.PASSING


async def test_a_probe_that_started_before_the_new_process_does_not_apply_to_it() -> None:
    async with KeeperWorld() as world:
        world.probe.took = 3.0
        key = await world.register("o1", holder="h1", checks=(CHECK,), address=HERE)
        await world.clock.advance(2.9)
        assert world.probe.running == 1
        await world.register("o1", holder="h2", checks=(CHECK,), address=HERE)
        await world.clock.advance(1.0)
        assert world.status(key) is Status.STARTING
        await world.clock.advance(20.0)
        assert world.status(key) is Status.PASSING, "by its own first pass"


async def test_the_checks_of_a_process_that_registers_again_go_on() -> None:
    async with KeeperWorld() as world:
        key = await world.register("o1", holder="h1", checks=(CHECK,), address=HERE)
        await world.clock.advance(6.0)
        world.probe.results["o1"] = Result.FAIL
        for ttl in (20.0, 25.0, 30.0):
            await world.register("o1", holder="h1", checks=(CHECK,), ttl=ttl, address=HERE)
            await world.clock.advance(0.5)
            assert world.status(key) is Status.PASSING


async def test_concurrent_requests_for_an_id_share_one_probe() -> None:
    async with KeeperWorld() as world:
        world.probe.took = 0.5
        listing = world.find(await world.register("o1", holder="h1"))
        assert listing is not None
        for result, is_reachable in ((Result.FAIL, False), (Result.PASS, True)):
            world.probe.results["o1"] = result
            requests = [asyncio.create_task(world.keeper.is_reachable(listing)) for _ in range(5)]
            await run_until_idle()
            before = len(world.probe.starts)
            await world.clock.advance(0.6)
            assert [await request for request in requests] == [is_reachable] * 5
            assert (len(world.probe.starts), world.probe.max_running) == (before, 1)


async def test_a_place_counts_as_reachable_if_the_probe_can_not_be_run() -> None:
    async with KeeperWorld() as world:
        world.probe.unavailable = ProbeUnavailable("no sockets left")
        listing = world.find(await world.register("o1", holder="h1"))
        assert listing is not None
        assert await world.keeper.is_reachable(listing)


async def test_a_bounded_number_of_places_is_probed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place_prober, "MAX_CONCURRENT_PLACE_PROBES", 1)
    async with KeeperWorld() as world:
        world.probe.took = 60.0
        first, second = [world.find(await world.register(id, holder=id)) for id in ("o1", "o2")]
        assert first is not None
        assert second is not None
        request = asyncio.create_task(world.keeper.is_reachable(first))
        await run_until_idle()
        with pytest.raises(Overloaded):
            await world.keeper.is_reachable(second)
        await world.clock.advance(61.0)
        assert await request
