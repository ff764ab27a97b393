from __future__ import annotations

import asyncio
import contextlib

import pytest

from adsum import watches as watches_module
from adsum.consumers import Consumer
from adsum.core.errors import Overloaded
from adsum.watches import Watch, Watches
from tests.support.fakes import FakeClock, run_until_idle
from tests.support.observers import RecordingObserver

LONG = 30.0


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
def node_watches(observer: RecordingObserver) -> Watches:
    return Watches(FakeClock(), observer)


async def _waiting_task(watch: Watch) -> asyncio.Task[bool]:
    """Returns a task that waits for a change."""
    task = asyncio.create_task(watch.changed(LONG))
    await asyncio.sleep(0)
    return task


async def test_only_the_watches_of_changed_services_are_woken(node_watches: Watches) -> None:
    with (
        node_watches.open(frozenset({"orders"})) as orders,
        node_watches.open(frozenset({"users"})) as users,
        node_watches.open(None) as every,
    ):
        waits = [await _waiting_task(watch) for watch in (orders, users, every)]
        assert node_watches.publish({"orders"}) == 2
        assert await waits[0] is True
        assert await waits[2] is True
        assert not waits[1].done()
        users.interrupt()
        assert await waits[1] is False


async def test_a_change_before_the_wait_is_not_missed(node_watches: Watches) -> None:
    with node_watches.open(frozenset({"orders"})) as watch:
        node_watches.publish({"orders"})
        assert await watch.changed(LONG) is True


async def test_a_burst_wakes_once_at_once_and_once_more(node_watches: Watches) -> None:
    with node_watches.open(frozenset({"orders"})) as watch:
        first = await _waiting_task(watch)
        woken = [node_watches.publish({"orders"}) for _ in range(100)]
        assert woken == [1] + [0] * 99
        assert await first is True
        assert await watch.changed(LONG) is True
        assert await watch.changed(0.0) is False


async def test_a_publication_is_delivered_when_the_last_woken_watch_has_sent_it(
    node_watches: Watches, observer: RecordingObserver
) -> None:
    with node_watches.open(None) as quick, node_watches.open(None) as slow:
        waits = [await _waiting_task(quick), await _waiting_task(slow)]
        node_watches.publish({"orders"})
        assert await waits[0]
        assert await waits[1]
        next_wait = await _waiting_task(quick)
        assert observer.deliveries == []
        last = await _waiting_task(slow)
        assert len(observer.deliveries) == 1
        for watch, wait in ((quick, next_wait), (slow, last)):
            watch.interrupt()
            await wait


async def test_a_watch_that_pushes_a_change_is_not_woken(node_watches: Watches, observer: RecordingObserver) -> None:
    with node_watches.open(None) as watch:
        watch.push = lambda: True
        wait = await _waiting_task(watch)
        assert node_watches.publish({"orders"}) == 1
        assert len(observer.deliveries) == 1
        watch.interrupt()
        assert await wait is False


async def test_a_busy_watch_does_not_push(node_watches: Watches) -> None:
    with node_watches.open(None) as watch:
        watch.push = lambda: pytest.fail("its owner is busy")
        node_watches.publish({"orders"})
        assert await watch.changed(LONG) is True


@pytest.mark.parametrize("failure", [None, RuntimeError("broken")])
async def test_a_watch_that_can_not_push_is_woken(node_watches: Watches, failure: Exception | None) -> None:
    def push() -> bool:
        if failure is not None:
            raise failure
        return False

    with node_watches.open(None) as watch:
        watch.push = push
        wait = await _waiting_task(watch)
        node_watches.publish({"orders"})
        assert await wait is True


async def test_other_tasks_run_while_many_watches_are_woken(
    node_watches: Watches, observer: RecordingObserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches_module, "MAX_WAKES_PER_TURN", 2)
    order: list[str] = []
    with contextlib.ExitStack() as stack:
        watches = [stack.enter_context(node_watches.open(None)) for _ in range(5)]
        waits = [asyncio.ensure_future(watch.changed(LONG)) for watch in watches]
        await asyncio.sleep(0)
        for watch in watches:
            watch.push = lambda: not order.append("watch")  # type: ignore[func-returns-value]
        asyncio.get_running_loop().call_soon(order.append, "another")
        assert node_watches.publish({"orders"}) == 5
        assert order == ["watch"] * 2
        while not observer.deliveries:  # noqa: ASYNC110  # each turn counts
            await asyncio.sleep(0)
        assert sorted(order) == ["another"] + ["watch"] * 5
        assert order[2] == "another"
        for watch in watches:
            watch.interrupt()
        await asyncio.gather(*waits)


async def test_a_closed_watch_does_not_delay_a_publication(node_watches: Watches, observer: RecordingObserver) -> None:
    with node_watches.open(None) as watch:
        node_watches.publish(None)
        await watch.changed(LONG)
    assert len(observer.deliveries) == 1
    assert node_watches.count == 0


async def test_past_the_bound_a_watch_is_refused(node_watches: Watches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches_module, "MAX_WATCHES", 1)
    with node_watches.open(None), pytest.raises(Overloaded):
        node_watches.open(None)
    with node_watches.open(None):
        pass


async def test_drains_wait_for_the_watches_of_consumers_only(node_watches: Watches) -> None:
    with (
        node_watches.open(frozenset({"orders"}), consumer=Consumer("a")) as service_watch,
        node_watches.open(None, consumer=Consumer("b")) as full_watch,
        node_watches.open(frozenset({"orders"})),
        node_watches.open(frozenset({"users"}), consumer=Consumer("c")),
    ):
        drain = asyncio.create_task(node_watches.consumers.wait_for_acknowledgements("orders", 7, LONG))
        await run_until_idle()
        service_watch.acknowledge(8)
        await run_until_idle()
        assert not drain.done()
        full_watch.acknowledge(6)
        await run_until_idle()
        assert not drain.done()
        full_watch.acknowledge(7)
        assert (await drain).waiting == []


async def test_a_consumer_whose_watch_ended_is_still_waited_for(node_watches: Watches) -> None:
    with node_watches.open(frozenset({"orders"}), consumer=Consumer("a")) as watch:
        watch.acknowledge(6)
    status = await node_watches.consumers.wait_for_acknowledgements("orders", 7, 0.0)
    assert [pending.consumer.id for pending in status.waiting] == ["a"]
    assert node_watches.count == 0


async def test_a_watch_has_the_revision_that_its_consumer_acknowledged_last(node_watches: Watches) -> None:
    with node_watches.open(None, consumer=Consumer("a")) as watch, node_watches.open(None) as onlooker:
        watch.acknowledge(7)
        watch.acknowledge(6)
        assert (watch.acknowledged, onlooker.acknowledged) == (7, 0)


async def test_the_end_wakes_all_watches(node_watches: Watches) -> None:
    with node_watches.open(None, consumer=Consumer("a")) as watch:
        wait = await _waiting_task(watch)
        node_watches.end()
        assert await wait is True
        assert node_watches.is_ended
        await node_watches.wait_until_ended()


async def test_a_watch_that_is_not_notified_is_not_woken_and_still_waited_for(node_watches: Watches) -> None:
    with node_watches.open(None, consumer=Consumer("a"), is_notified=False) as quiet:
        assert node_watches.publish({"orders"}) == 0
        waiting = asyncio.create_task(node_watches.consumers.wait_for_acknowledgements("orders", 1, LONG))
        await run_until_idle()
        assert not waiting.done()
        quiet.acknowledge(1)
        assert (await waiting).waiting == []
    assert node_watches.count == 0


async def test_watches_that_name_too_many_services_are_refused_until_others_close(
    node_watches: Watches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches_module, "MAX_WATCHED_SERVICES", 3)
    with node_watches.open(frozenset({"a", "b"})), node_watches.open(None):
        with pytest.raises(Overloaded, match="table of watched services"):
            node_watches.open(frozenset({"a", "c"}))
        with node_watches.open(frozenset({"c"})):
            assert (node_watches.count, node_watches.watched_services) == (3, 3)
    assert (node_watches.count, node_watches.watched_services) == (0, 0)
