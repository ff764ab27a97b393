"""A keeper that is one of several: the instances that it takes over and hands over."""

from __future__ import annotations

from random import Random

from adsum.core.liveness.leases import LeasePhase
from adsum.core.model import Check, CheckKind, Key, LeaseState, Result, Status
from adsum.core.provenance import Cause
from adsum.keeper import Keeper
from adsum.keeper.keeper import SNAPSHOT_POLL_INTERVAL
from tests.keeper.world import KeeperWorld, ScriptedProbe
from tests.support.fakes import FakeSharding

HTTP = Check("http", CheckKind.HTTP, interval=10.0, rise=1, fall=1)
TCP = Check("tcp", CheckKind.TCP, interval=10.0)
ROUND = 12.0
"""Longer than one interval with its jitter."""


async def test_an_instance_of_another_keeper_is_neither_checked_nor_lapses_here() -> None:
    async with KeeperWorld(sharding=FakeSharding("users")) as world:
        ours = await world.register("u", "users", ttl=5.0, checks=(HTTP,))
        theirs = await world.register("o", "orders", ttl=5.0, checks=(HTTP,))
        assert (world.keeper.keeps("users"), world.keeper.keeps("orders")) == (True, False)
        await world.clock.advance(300.0)
        assert {key for _, key in world.probe.starts} == {ours}
        assert (world.find(ours), world.status(theirs)) == (None, Status.STARTING)


async def test_an_adopted_instance_gets_a_full_ttl_and_its_checks_start_from_the_listed_status() -> None:
    sharding = FakeSharding()
    async with KeeperWorld(sharding=sharding) as world:
        key = await world.register("o", ttl=30.0, checks=(HTTP, TCP))
        await world.clock.advance(3600.0)
        assert (len(world.keeper.leases), world.keeper.check_count) == (0, 0)
        sharding.set_kept("orders")
        await world.clock.advance(SNAPSHOT_POLL_INTERVAL)
        assert 30.0 - SNAPSHOT_POLL_INTERVAL <= _seconds_left(world, world.keeper, key) <= 30.0
        assert world.keeper.keeps("orders")
        await world.clock.advance(ROUND)
        assert {probed for _, probed in world.probe.starts} == {key}
        assert world.status(key) is Status.PASSING
        await world.clock.advance(29.0 - ROUND)
        assert world.status(key) is Status.PASSING
        await world.clock.advance(2.0)
        assert world.status(key) is Status.CRITICAL, "it has lapsed and not expired"


async def test_a_lapsed_instance_is_adopted_as_lapsed_and_may_renew_for_a_full_ttl_and_grace() -> None:
    sharding = FakeSharding("orders")
    async with KeeperWorld(sharding=sharding) as world:
        key = await world.register("o", ttl=10.0, grace=10.0)
        await world.clock.advance(15.0)
        sharding.set_kept()
        await world.clock.advance(60.0)
        listing = world.find(key)
        assert listing is not None
        assert listing.lease is LeaseState.LAPSED, "no node expires it meanwhile"
        sharding.set_kept("orders")
        await world.clock.advance(9.0)
        assert world.keeper.leases.phase(key) is LeasePhase.LAPSED
        assert world.find(key) is not None
        world.keeper.renew(key)
        await world.clock.advance(1.0)
        assert world.status(key) is Status.PASSING


async def test_an_instance_handed_over_is_released_and_the_outcome_of_its_running_probe_is_ignored() -> None:
    sharding = FakeSharding("orders", "users")
    async with KeeperWorld(sharding=sharding) as world:
        lost = await world.register("o", "orders", ttl=5.0, checks=(HTTP, TCP))
        kept = await world.register("u", "users", ttl=None, checks=(HTTP,))
        await world.clock.advance(2.0)
        world.probe.took, world.probe.results = 5.0, {"o": Result.FAIL}
        while world.probe.running < 3:
            await world.clock.advance(1.0)
            world.keeper.renew(lost)
        written = len(world.causes(lost))
        sharding.set_kept("users")
        assert not world.keeper.keeps("orders"), "at once, before the keeper has looked"
        await world.clock.advance(SNAPSHOT_POLL_INTERVAL)
        assert (len(world.keeper.leases), world.keeper.check_count, world.probe.running) == (0, 1, 1)
        begun = len(world.probe.starts)
        await world.clock.advance(300.0)
        assert {key for _, key in world.probe.starts[begun:]} == {kept}
        assert (world.status(lost), len(world.causes(lost))) == (Status.PASSING, written)


async def test_an_unwritten_status_is_not_written_after_another_node_has_taken_over() -> None:
    """The new keeper decides: to a node that hung, or was cut off, every instance seemed dead."""
    sharding = FakeSharding("orders")
    async with KeeperWorld(sharding=sharding) as world:
        key = await world.register("o", ttl=None, checks=(HTTP,))
        await world.clock.advance(2.0)
        world.store.is_unavailable, world.probe.results = True, {"o": Result.FAIL}
        await world.clock.advance(ROUND)
        sharding.set_kept()
        await world.clock.advance(SNAPSHOT_POLL_INTERVAL)
        world.store.is_unavailable = False
        await world.clock.advance(60.0)
        assert world.causes(key) == [Cause.REGISTERED, Cause.CHECK_PASSING]


async def test_a_shard_that_comes_and_goes_leaves_nothing_behind() -> None:
    sharding = FakeSharding("orders")
    async with KeeperWorld(sharding=sharding) as world:
        key = await world.register("o", ttl=30.0, checks=(HTTP,))
        for _ in range(20):
            await world.clock.advance(7.0)
            sharding.set_kept("users")
            await world.clock.advance(3.0)
            sharding.set_kept("orders", "users")
        await world.clock.advance(1.0)
        assert (len(world.keeper.leases), world.keeper.check_count) == (1, 1)
        assert world.status(key) is Status.PASSING, "it gets a full ttl each time"


async def test_an_instance_handed_over_is_checked_by_one_node_and_stays_listed() -> None:
    """A shard moves as in etcd: it is released before it is taken."""
    sharding, other_sharding = FakeSharding("orders"), FakeSharding()
    async with KeeperWorld(sharding=sharding) as world:
        probe = ScriptedProbe(world.clock)
        other_keeper = Keeper(world.registry, probe, world.clock, world.observer, Random(2), sharding=other_sharding)
        await other_keeper.start()
        key = await world.register("o", ttl=60.0, checks=(HTTP,))
        first = (world.keeper, world.probe, sharding)
        for from_node, to_node in (
            (first, (other_keeper, probe, other_sharding)),
            ((other_keeper, probe, other_sharding), first),
        ):
            await world.clock.advance(20.0)
            from_node[2].set_kept()
            await world.clock.advance(SNAPSHOT_POLL_INTERVAL)
            to_node[2].set_kept("orders")
            await world.clock.advance(SNAPSHOT_POLL_INTERVAL)
            assert (from_node[0].keeps("orders"), to_node[0].keeps("orders")) == (False, True)
            assert 60.0 - SNAPSHOT_POLL_INTERVAL <= _seconds_left(world, to_node[0], key) <= 60.0
            from_starts, to_starts = len(from_node[1].starts), len(to_node[1].starts)
            await world.clock.advance(ROUND)
            assert len(from_node[1].starts) == from_starts
            assert len(to_node[1].starts) > to_starts
        assert world.status(key) is Status.PASSING
        await other_keeper.stop()


def _seconds_left(world: KeeperWorld, keeper: Keeper, key: Key) -> float:
    """The seconds until the lease lapses at the keeper."""
    return (keeper.leases.deadline(key) or 0.0) - world.clock.now()
