from __future__ import annotations

import asyncio

import pytest

from adsum.core.errors import LeaseLost, UnknownInstance
from adsum.core.liveness.leases import LeasePhase
from adsum.core.model import Key, LeaseState, Status
from adsum.core.provenance import Cause
from tests.keeper.world import KeeperWorld
from tests.support.fakes import run_until_idle

REGISTERED, LAPSED, RENEWED, EXPIRED = Cause.REGISTERED, Cause.LEASE_LAPSED, Cause.LEASE_RENEWED, Cause.LEASE_EXPIRED


async def test_a_lapsed_lease_is_critical_before_it_is_gone() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=30.0, grace=60.0)
        await world.clock.advance(29.5)
        assert world.status(key) is Status.PASSING
        await world.clock.advance(1.0)
        assert world.status(key) is Status.CRITICAL
        assert world.reason(key) == "not renewed within its ttl of 30 s"
        await world.clock.advance(59.0)
        assert world.status(key) is Status.CRITICAL
        await world.clock.advance(1.5)
        assert world.find(key) is None
        assert world.causes(key) == [REGISTERED, LAPSED, EXPIRED]
        assert world.reason(key).endswith("grace 60 s")
        assert len(world.keeper.leases) == 0


async def test_renewals_keep_an_instance_listed_and_write_nothing() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=3.0)
        for _ in range(30):
            await world.clock.advance(1.0)
            world.keeper.renew(key)
        assert world.status(key) is Status.PASSING
        assert world.store.revision == 1


async def test_a_lapsed_instance_that_renews_is_listed_as_held_again() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=3.0)
        await world.clock.advance(10.0)
        assert world.status(key) is Status.CRITICAL
        world.keeper.renew(key)
        await run_until_idle()
        assert world.status(key) is Status.PASSING
        assert world.causes(key) == [REGISTERED, LAPSED, RENEWED]


async def test_registering_the_same_again_renews_a_lapsed_lease() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=3.0)
        await world.clock.advance(10.0)
        await world.register("a", ttl=3.0)
        await world.clock.advance(2.5)
        assert world.status(key) is Status.PASSING
        await world.clock.advance(1.5)
        assert world.causes(key) == [REGISTERED, LAPSED, RENEWED, LAPSED]


async def test_an_instance_may_be_renewed_the_moment_it_is_listed() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a")
        world.keeper.renew(key)
        assert world.keeper.leases.phase(key) is LeasePhase.HELD


async def test_an_instance_without_ttl_has_no_lease_and_needs_none() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=None)
        world.keeper.renew(key)
        await world.clock.advance(600.0)
        assert world.status(key) is Status.PASSING
        assert len(world.keeper.leases) == 0


async def test_an_unlisted_instance_can_not_be_renewed() -> None:
    async with KeeperWorld() as world:
        with pytest.raises(UnknownInstance):
            world.keeper.renew(Key("orders", "a"))
        key = await world.register("a")
        await world.deregister(key)
        with pytest.raises(UnknownInstance):
            world.keeper.renew(key)


async def test_a_predecessor_can_not_renew_the_lease_of_its_successor() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", holder="first")
        await world.register("a", holder="second")
        with pytest.raises(LeaseLost):
            world.keeper.renew(key, "first")
        world.keeper.renew(key, "second")
        world.keeper.renew(key)


async def test_a_new_ttl_counts_from_the_new_registration() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=300.0)
        await world.clock.advance(10.0)
        await world.register("a", ttl=5.0)
        await world.clock.advance(6.0)
        assert world.status(key) is Status.CRITICAL
        await world.register("a", ttl=None)
        await world.clock.advance(600.0)
        assert world.status(key) is Status.PASSING


async def test_a_mass_lapse_is_held_back_and_reported() -> None:
    async with KeeperWorld() as world:
        keys = [await world.register(id) for id in "abcd"]
        other = await world.register("x", "users")
        for _ in range(8):
            await world.clock.advance(10.0)
            world.keeper.renew(keys[0])
        await world.clock.advance(20.0)
        assert [world.status(key) for key in keys[1:]] == [Status.CRITICAL] * 3
        assert world.find(other) is None
        assert world.observer.guards[-1] == ("orders", 3)
        world.keeper.renew(keys[1])
        await world.clock.advance(1.5)
        assert world.observer.guards[-1] == ("orders", 0)


async def test_a_held_back_instance_that_deregisters_is_removed_at_once() -> None:
    async with KeeperWorld() as world:
        keys = [await world.register(id) for id in "ab"]
        await world.clock.advance(200.0)
        assert [world.status(key) for key in keys] == [Status.CRITICAL] * 2
        await world.deregister(keys[0])
        assert world.find(keys[0]) is None


async def test_the_reason_of_an_expiry_names_the_guard() -> None:
    async with KeeperWorld() as world:
        keys = [await world.register(id, ttl=5.0, grace=5.0) for id in "ab"]
        await world.clock.advance(10.0 + 3600.0 + 10.0)
        assert [world.find(key) for key in keys] == [None, None]
        assert any("the guard held it back for 36" in world.reason(key) for key in keys)


async def test_a_restart_grants_every_lease_a_full_ttl_and_nothing_flaps() -> None:
    async with KeeperWorld() as world:
        held = await world.register("a", ttl=30.0)
        lapsed = await world.register("b", ttl=3.0, grace=60.0)
        await world.register("c", ttl=None)
        await world.clock.advance(29.0)
    world.clock.jump(3600.0)
    before = world.store.revision
    async with KeeperWorld(world.store, world.clock) as again:
        await again.clock.advance(29.0)
        assert again.status(held) is Status.PASSING
        assert again.status(lapsed) is Status.CRITICAL
        assert again.store.revision == before
        again.keeper.renew(lapsed)
        await again.clock.advance(2.0)
        assert again.status(held) is Status.CRITICAL
        assert again.status(lapsed) is Status.PASSING


async def test_a_suspension_of_the_process_lapses_no_lease() -> None:
    async with KeeperWorld() as world:
        keys = [await world.register(str(n), ttl=15.0, grace=1.0) for n in range(20)]
        await world.clock.advance(14.0)
        world.clock.jump(8 * 3600.0)
        await world.clock.advance(5.0)
        assert {world.status(key) for key in keys} == {Status.PASSING}


async def test_while_the_store_is_away_nothing_expires_and_a_renewal_still_counts() -> None:
    async with KeeperWorld() as world:
        alive, dead, *others = [await world.register(id, ttl=10.0, grace=10.0) for id in "abcdef"]

        async def pass_time(seconds: int, *keys: Key) -> None:
            for _ in range(seconds // 5):
                for key in keys:
                    world.keeper.renew(key)
                await world.clock.advance(5.0)

        await pass_time(15, *others)
        assert [world.status(key) for key in (alive, dead)] == [Status.CRITICAL] * 2
        world.store.is_unavailable = True
        await pass_time(100, *others)
        assert [world.status(key) for key in (alive, dead)] == [Status.CRITICAL] * 2
        await pass_time(10, alive, *others)
        world.store.is_unavailable = False
        await pass_time(40, alive, *others)
        assert world.status(alive) is Status.PASSING
        assert world.causes(alive) == [REGISTERED, LAPSED, RENEWED]
        assert world.causes(dead) == [REGISTERED, LAPSED, EXPIRED]


async def test_a_lapse_while_the_store_was_away_is_not_written_if_the_lease_was_renewed_meanwhile() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=5.0)
        world.store.is_unavailable = True
        await world.clock.advance(8.0)
        assert world.keeper.leases.phase(key) is LeasePhase.LAPSED
        world.keeper.renew(key)
        world.store.is_unavailable = False
        await world.clock.advance(4.0)
        assert world.causes(key) == [REGISTERED]


async def test_the_catalog_is_corrected_where_it_disagrees_with_the_lease() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=5.0)
        await world.clock.advance(6.0)
        assert world.status(key) is Status.CRITICAL
        listing = world.find(key)
        assert listing is not None
        assert listing.lease is LeaseState.LAPSED
        world.keeper.leases.renew(key, world.clock.now())
        await world.override(key, None)
        await world.clock.advance(1.0)
        listing = world.find(key)
        assert listing is not None
        assert listing.lease is LeaseState.HELD


async def test_a_thousand_lapses_are_written_in_few_batches() -> None:
    async with KeeperWorld() as world:
        keys = await asyncio.gather(*(world.register(f"i{n}", f"s{n % 50}") for n in range(2500)))
        before = world.store.revision
        await world.clock.advance(32.0)
        assert {world.status(key) for key in keys} == {Status.CRITICAL}
        assert world.store.revision - before <= 6


async def test_an_override_ends_when_its_length_is_over() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=None)
        await world.override(key, 60.0)
        await world.clock.advance(59.0)
        assert world.status(key) is Status.MAINTENANCE
        await world.clock.advance(2.5)
        assert world.status(key) is Status.PASSING
        assert world.causes(key)[-1] is Cause.OVERRIDE_EXPIRED


async def test_a_later_override_is_not_ended_by_the_length_of_an_earlier_one() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=None)
        await world.override(key, 60.0)
        await world.clock.advance(30.0)
        await world.override(key, 600.0)
        await world.clock.advance(598.0)
        assert world.status(key) is Status.MAINTENANCE
        await world.clock.advance(4.0)
        assert world.status(key) is Status.PASSING
        await world.override(key, 60.0)
        await world.clock.advance(30.0)
        await world.override(key, None)
        await world.clock.advance(3600.0)
        assert world.status(key) is Status.MAINTENANCE


async def test_the_length_of_an_override_starts_again_at_a_restart() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=None)
        await world.override(key, 60.0)
        await world.clock.advance(50.0)
    async with KeeperWorld(world.store, world.clock) as again:
        await again.clock.advance(58.0)
        assert again.status(key) is Status.MAINTENANCE
        await again.clock.advance(4.0)
        assert again.status(key) is Status.PASSING


async def test_an_override_that_could_not_be_ended_is_ended_when_the_store_is_back() -> None:
    async with KeeperWorld() as world:
        key = await world.register("a", ttl=None)
        await world.override(key, 10.0)
        world.store.is_unavailable = True
        await world.clock.advance(60.0)
        assert world.status(key) is Status.MAINTENANCE
        world.store.is_unavailable = False
        await world.clock.advance(20.0)
        assert world.status(key) is Status.PASSING
