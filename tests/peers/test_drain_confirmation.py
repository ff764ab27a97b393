"""The confirmation of drains across fake nodes, under a fake clock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from adsum import wire
from adsum.client.errors import RegistryUnavailable
from adsum.consumers import Consumer, ConsumerHints, Consumers, build_report
from adsum.core.nodes.sharding import Peer
from adsum.peers.drain_confirmation import MAX_ANSWER_DELAY, DrainConfirmation, QueriedPeer
from tests.support.fakes import FakeClock, run_until_idle

W = 7.5
ORDERS = frozenset({"orders"})
A, B = Consumer("a", "web"), Consumer("b", "shop")


class FakePeerNode:
    """A node with real consumers, which can hang and refuse."""

    def __init__(self, name: str, clock: FakeClock) -> None:
        self.peer = Peer(f"run-of-{name}", name, f"http://{name}")
        self.consumers = Consumers(clock, W)
        self.is_hanging = self.is_away = False
        self.queries = 0
        self._clock = clock

    async def query(
        self, service: str, revision: int, wait: float, ids: Sequence[str], hints: ConsumerHints
    ) -> wire.AcknowledgementReport:
        self.queries += 1
        if self.is_away:
            raise RegistryUnavailable("connection refused")
        if self.is_hanging:
            await asyncio.Event().wait()
        self.consumers.apply_hints(service, revision, hints)
        status = await self.consumers.wait_for_acknowledgements(service, revision, wait)
        hints = self.consumers.hints_for(ids, service, revision)
        report = build_report(status, self.peer.name, "e1", revision, now=self._clock.now(), wall=self._clock.wall())
        return wire.AcknowledgementReport(
            report.epoch,
            report.revision,
            report.unacknowledged,
            report.waiting,
            report.lost,
            report.lost_count,
            report.ids,
            list(hints.acknowledged),
            list(hints.goodbyes),
        )


class DrainWorld:
    """Three nodes. Drains are requested at `here`."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.here, self.one, self.two = (FakePeerNode(name, self.clock) for name in ("here", "one", "two"))
        self.confirmation = DrainConfirmation(self.clock, W)
        self.queried_peers = [QueriedPeer(node.peer, node.query) for node in (self.one, self.two)]

    async def drain(self, wait: float) -> asyncio.Task[wire.AcknowledgementReport]:
        confirmation = self.confirmation.wait_for_acknowledgements(
            self.here.query, lambda: self.queried_peers, "orders", 7, wait
        )
        task = asyncio.create_task(confirmation)
        await run_until_idle()
        return task

    async def time_to_finish(self, drain: asyncio.Task[wire.AcknowledgementReport], at_most: float) -> float:
        """Advances the clock until the drain has ended. Returns the seconds."""
        started_at = self.clock.now()
        while not drain.done():
            await self.clock.advance(0.1)
            assert self.clock.now() - started_at <= at_most + 0.2
        return self.clock.now() - started_at


@pytest.fixture
def world() -> DrainWorld:
    return DrainWorld()


def names(views: Sequence[wire.ConsumerView]) -> list[str]:
    return sorted(view.name for view in views)


async def test_a_drain_is_confirmed_when_the_consumers_of_every_node_have_acknowledged(world: DrainWorld) -> None:
    at_one, at_two = world.one.consumers.connect(A, ORDERS), world.two.consumers.connect(B, ORDERS)
    drain = await world.drain(10.0)
    world.one.consumers.acknowledge(at_one, 7)
    await world.clock.advance(1.0)
    assert not drain.done()
    world.two.consumers.acknowledge(at_two, 7)
    await world.clock.advance(0.6)
    assert (await drain).unacknowledged == 0


async def test_a_drain_ends_within_its_wait_and_names_the_consumers_with_their_nodes(world: DrainWorld) -> None:
    world.one.consumers.connect(A, ORDERS)
    world.here.consumers.connect(B, ORDERS)
    drain = await world.drain(3.0)
    assert 3.0 <= await world.time_to_finish(drain, 3.0) <= 3.2
    report = await drain
    assert report.unacknowledged == 2
    assert {(view.name, view.node) for view in report.waiting} == {("web", "one"), ("shop", "here")}


@pytest.mark.parametrize("to", ["here", "two"])
async def test_a_consumer_that_moved_is_cleared_by_its_acknowledgement_at_the_other_node(
    world: DrainWorld, to: str
) -> None:
    world.one.consumers.disconnect(world.one.consumers.connect(A, ORDERS), silent=False)
    drain = await world.drain(10.0)
    await world.clock.advance(1.0)
    assert not drain.done()
    new: FakePeerNode = getattr(world, to)
    new.consumers.acknowledge(new.consumers.connect(A, ORDERS), 7)
    assert await world.time_to_finish(drain, 1.6) <= 1.6
    report = await drain
    assert (report.unacknowledged, report.lost) == (0, [])


async def test_a_consumer_that_moves_and_has_not_acknowledged_counts_once(world: DrainWorld) -> None:
    world.one.consumers.disconnect(world.one.consumers.connect(A, ORDERS), silent=False)
    world.two.consumers.connect(A, ORDERS)
    drain = await world.drain(2.0)
    await world.time_to_finish(drain, 2.0)
    assert (await drain).unacknowledged == 1


async def test_a_good_bye_at_another_node_counts(world: DrainWorld) -> None:
    world.one.consumers.disconnect(world.one.consumers.connect(A, ORDERS), silent=False)
    world.two.consumers.say_goodbye("a", None)
    drain = await world.drain(10.0)
    await world.time_to_finish(drain, 0.2)
    assert (await drain).unacknowledged == 0


async def test_a_consumer_that_is_lost_at_one_node_and_lives_at_another_is_not_lost(world: DrainWorld) -> None:
    world.one.consumers.disconnect(world.one.consumers.connect(A, ORDERS), silent=True)
    world.two.consumers.acknowledge(world.two.consumers.connect(A, ORDERS), 7)
    world.one.consumers.disconnect(world.one.consumers.connect(B, ORDERS), silent=True)
    drain = await world.drain(10.0)
    await world.time_to_finish(drain, 0.2)
    report = await drain
    assert (report.unacknowledged, names(report.lost), report.lost_count) == (0, ["shop"], 1)


async def test_a_node_that_hangs_is_waited_for_until_it_is_lost_and_is_named(world: DrainWorld) -> None:
    world.two.is_hanging = True
    drain = await world.drain(30.0)
    assert W <= await world.time_to_finish(drain, W + 1.0) <= W + 1.0
    report = await drain
    assert (report.unacknowledged, [(view.name, view.address) for view in report.lost]) == (0, [("two", "http://two")])


@pytest.mark.parametrize("wait", [0.0, 0.3, 2.0, 5.0])
async def test_a_drain_beside_a_node_that_hangs_ends_in_time_and_counts_the_node(
    world: DrainWorld, wait: float
) -> None:
    world.two.is_hanging = True
    drain = await world.drain(wait)
    assert await world.time_to_finish(drain, wait + 2 * MAX_ANSWER_DELAY) <= wait + 1.0
    report = await drain
    assert (report.unacknowledged, names(report.waiting)) == (1, ["two"])


async def test_the_next_drain_does_not_wait_again_for_a_node_that_hangs_on(world: DrainWorld) -> None:
    world.two.is_hanging = True
    first = await world.drain(8.0)
    await world.time_to_finish(first, 9.0)
    second = await world.drain(8.0)
    await world.time_to_finish(second, 2 * MAX_ANSWER_DELAY + 0.2)
    assert names((await second).lost) == ["two"]


async def test_a_node_that_hung_and_lived_in_between_is_waited_for_again(world: DrainWorld) -> None:
    world.two.is_hanging = True
    await world.time_to_finish(await world.drain(8.0), 9.0)
    world.two.is_hanging = False
    await world.time_to_finish(await world.drain(8.0), 0.2)
    world.two.is_hanging = True
    third = await world.drain(2.0)
    await world.time_to_finish(third, 3.0)
    assert names((await third).waiting) == ["two"]


async def test_a_node_that_was_silent_a_while_ago_is_waited_for_again(world: DrainWorld) -> None:
    world.two.is_away = True
    await world.time_to_finish(await world.drain(8.0), 9.0)
    await world.clock.advance(4.0)
    drain = await world.drain(2.0)
    await world.time_to_finish(drain, 3.0)
    assert (await drain).unacknowledged == 1


async def test_a_node_that_left_is_waited_for_since_then_and_then_lost(world: DrainWorld) -> None:
    world.two.is_away = True
    world.queried_peers[1] = replace(world.queried_peers[1], left_ago=W - 2.0)
    drain = await world.drain(1.0)
    await world.time_to_finish(drain, 2.0)
    assert names((await drain).waiting) == ["two"]
    world.queried_peers[1] = replace(world.queried_peers[1], left_ago=W)
    drain = await world.drain(10.0)
    await world.time_to_finish(drain, 0.2)
    report = await drain
    assert (report.unacknowledged, names(report.lost)) == (0, ["two"])


async def test_a_node_that_hangs_and_then_leaves_is_waited_for_since_it_hung(world: DrainWorld) -> None:
    world.two.is_hanging = True
    drain = await world.drain(20.0)
    await world.clock.advance(5.0)
    world.queried_peers[1] = replace(world.queried_peers[1], left_ago=0.0)
    assert await world.time_to_finish(drain, W - 5.0 + 1.0) <= W - 5.0 + 1.0
    assert names((await drain).lost) == ["two"]


async def test_a_node_that_left_and_still_answers_is_queried(world: DrainWorld) -> None:
    world.two.consumers.connect(A, ORDERS)
    world.queried_peers[1] = replace(world.queried_peers[1], left_ago=W + 20.0)
    drain = await world.drain(1.0)
    await world.time_to_finish(drain, 2.0)
    assert names((await drain).waiting) == ["web"]


async def test_nodes_that_refuse_are_queried_at_intervals(world: DrainWorld) -> None:
    world.one.is_away = world.two.is_away = True
    drain = await world.drain(5.0)
    await world.time_to_finish(drain, 6.0)
    assert world.one.queries <= 13


async def test_a_single_node_waits_in_one_round(world: DrainWorld) -> None:
    world.queried_peers = []
    records = world.here.consumers.connect(A, ORDERS)
    drain = await world.drain(10.0)
    world.here.consumers.acknowledge(records, 7)
    assert (await drain).unacknowledged == 0
    assert world.here.queries == 1


async def test_many_consumers_are_counted_exactly_and_listed_in_part(world: DrainWorld) -> None:
    for n in range(150):
        world.one.consumers.connect(Consumer(f"c{n}"), ORDERS)
        world.two.consumers.disconnect(world.two.consumers.connect(Consumer(f"d{n}"), ORDERS), silent=True)
    drain = await world.drain(0.0)
    await run_until_idle()
    report = await drain
    assert (report.unacknowledged, len(report.waiting)) == (150, 100)
    assert (report.lost_count, len(report.lost)) == (150, 100)


async def test_hundreds_that_moved_are_cleared_a_few_hundred_at_a_time(world: DrainWorld) -> None:
    for n in range(1_500):
        consumer = Consumer(f"{n:032x}")
        world.one.consumers.disconnect(world.one.consumers.connect(consumer, ORDERS), silent=False)
        world.two.consumers.acknowledge(world.two.consumers.connect(consumer, ORDERS), 7)
    drain = await world.drain(W)
    await world.time_to_finish(drain, 6.0)
    assert (await drain).unacknowledged == 0


async def test_an_earlier_run_of_a_node_that_has_been_back_for_long_is_left_out(world: DrainWorld) -> None:
    """Its consumers have connected to other nodes since, or are lost at a node that lives."""
    world.two.is_away = True
    ended = replace(world.queried_peers[1], left_ago=2 * W)
    back = replace(world.queried_peers[0], peer=replace(world.one.peer, name=ended.peer.name))
    world.queried_peers = [back, ended]
    drain = await world.drain(1.0)
    await world.time_to_finish(drain, 1.0)
    assert names((await drain).lost) == ["two"], "it has not been back for long enough"
    world.queried_peers[1] = replace(ended, left_ago=2 * W + 0.1)
    drain = await world.drain(1.0)
    await world.time_to_finish(drain, 1.0)
    assert (await drain).lost_count == 0
