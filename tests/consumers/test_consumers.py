"""Drains that wait until consumers route by a revision, under a fake clock."""

from __future__ import annotations

import asyncio

import pytest

from adsum.consumers import Consumer, ConsumerHints, Consumers
from adsum.core.access.scopes import intern_patterns
from tests.support.fakes import FakeClock, run_until_idle

W, LONG = 7.5, 20.0
ORDERS = frozenset({"orders"})
A, B = Consumer("a"), Consumer("b")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def consumers(clock: FakeClock) -> Consumers:
    return Consumers(clock, W)


async def _start_drain(consumers: Consumers, wait: float = LONG) -> asyncio.Task[list[str]]:
    """Starts a drain that waits for revision 7 of orders. It returns the ids of the consumers that are behind."""

    async def wait_for_drain() -> list[str]:
        status = await consumers.wait_for_acknowledgements("orders", 7, wait)
        return [pending.consumer.id for pending in status.waiting]

    task = asyncio.create_task(wait_for_drain())
    await run_until_idle()
    return task


async def test_a_drain_ends_as_soon_as_the_last_consumer_acknowledges(consumers: Consumers) -> None:
    first, second = consumers.connect(A, ORDERS), consumers.connect(B, None)
    drain = await _start_drain(consumers)
    consumers.acknowledge(first, 7)
    await run_until_idle()
    assert not drain.done()
    consumers.acknowledge(second, 7)
    assert await drain == []


async def test_a_drain_waits_for_a_consumer_that_leaves_until_it_is_lost(
    consumers: Consumers, clock: FakeClock
) -> None:
    records = consumers.connect(A, ORDERS)
    drain = await _start_drain(consumers)
    consumers.disconnect(records, silent=False)
    await clock.advance(W - 0.1)
    assert not drain.done()
    await clock.advance(0.4)
    assert await drain == []
    assert len((await consumers.wait_for_acknowledgements("orders", 7, 0.0)).lost) == 1
    assert (consumers.connected_count, consumers.departed_count, consumers.lost_count) == (0, 0, 1)


async def test_a_drain_does_not_wait_for_a_consumer_whose_connection_was_silent(consumers: Consumers) -> None:
    records = consumers.connect(A, ORDERS)
    drain = await _start_drain(consumers)
    consumers.disconnect(records, silent=True)
    assert await drain == []


async def test_a_drain_ends_after_its_wait_and_names_the_consumers_that_are_behind(
    consumers: Consumers, clock: FakeClock
) -> None:
    consumers.connect(A, ORDERS)
    drain = await _start_drain(consumers, 2.0)
    await clock.advance(1.9)
    assert not drain.done()
    await clock.advance(0.1)
    assert await drain == ["a"]


async def test_a_drain_waits_for_a_consumer_that_connects_meanwhile(consumers: Consumers) -> None:
    first = consumers.connect(A, ORDERS)
    drain = await _start_drain(consumers)
    back = consumers.connect(B, ORDERS)
    consumers.connect(Consumer("c"), frozenset({"users"}))
    consumers.acknowledge(first, 7)
    await run_until_idle()
    assert not drain.done()
    consumers.acknowledge(back, 7)
    assert await drain == []


async def test_a_good_bye_ends_the_wait_for_its_consumer(consumers: Consumers) -> None:
    consumers.disconnect(consumers.connect(A, ORDERS), silent=False)
    drain = await _start_drain(consumers)
    consumers.say_goodbye("a", None)
    assert await drain == []
    assert consumers.hints_for(["a"], "orders", 7) == ConsumerHints([], ["a"])


async def test_the_hints_of_another_node_end_the_wait(consumers: Consumers) -> None:
    consumers.connect(A, ORDERS)
    consumers.disconnect(consumers.connect(B, ORDERS), silent=False)
    drain = await _start_drain(consumers)
    consumers.apply_hints("orders", 7, ConsumerHints(["a"], ["b"]))
    assert await drain == []


async def test_after_a_restart_a_drain_waits_for_unknown_consumers(consumers: Consumers, clock: FakeClock) -> None:
    consumers.start()
    await clock.advance(1.0)
    consumers.note_restart()
    drain = await _start_drain(consumers)
    await clock.advance(W - 1.1)
    assert not drain.done()
    await clock.advance(0.4)
    assert await drain == []
    consumers.note_restart()
    assert await (await _start_drain(consumers)) == [], "long after the start no consumers from before are waited for"


async def test_a_drain_waits_for_no_consumer_that_connects_meanwhile_and_may_not_read_the_service(
    consumers: Consumers,
) -> None:
    slow = consumers.connect(A, None)
    drain = await _start_drain(consumers)
    consumers.connect(Consumer("blind", visible=intern_patterns(frozenset({"users"}))), None)
    consumers.acknowledge(slow, 7)
    assert await drain == []


async def test_a_drain_ends_when_a_consumer_acknowledges_a_view_without_the_service(consumers: Consumers) -> None:
    consumers.disconnect(consumers.connect(A, None), silent=False)
    narrower = consumers.connect(Consumer(A.id, visible=intern_patterns(frozenset({"users"}))), None)
    drain = await _start_drain(consumers)
    assert not drain.done(), "it may still route by its view from before"
    consumers.acknowledge(narrower, 7)
    await run_until_idle()
    assert drain.done()
    assert await drain == []
