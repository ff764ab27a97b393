from __future__ import annotations

import asyncio
import contextlib

import pytest

from adsum import watches as room
from adsum.consumers import Consumer
from adsum.core.errors import Overloaded
from adsum.watches import Watch, Watches
from tests.support.fakes import FakeClock, run_until_idle
from tests.support.observers import RecordingObserver

LONG = 30.0


@pytest.fixture
def recorder() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
def hub(recorder: RecordingObserver) -> Watches:
    return Watches(FakeClock(), recorder)


async def _waits(watch: Watch) -> asyncio.Task[bool]:
    """A task that has reached its wait."""
    task = asyncio.create_task(watch.changed(LONG))
    await asyncio.sleep(0)
    return task


async def test_only_the_watches_of_changed_services_are_woken(hub: Watches) -> None:
    with hub.open(frozenset({"orders"})) as orders, hub.open(frozenset({"users"})) as users, hub.open(None) as every:
        waits = [await _waits(watch) for watch in (orders, users, every)]
        assert hub.publish({"orders"}) == 2
        assert await waits[0] is True
        assert await waits[2] is True
        assert not waits[1].done()
        users.interrupt()
        assert await waits[1] is False


async def test_a_change_before_the_wait_is_not_missed(hub: Watches) -> None:
    with hub.open(frozenset({"orders"})) as watch:
        hub.publish({"orders"})
        assert await watch.changed(LONG) is True


async def test_a_burst_wakes_once_at_once_and_once_more(hub: Watches) -> None:
    with hub.open(frozenset({"orders"})) as watch:
        first = await _waits(watch)
        woken = [hub.publish({"orders"}) for _ in range(100)]
        assert woken == [1] + [0] * 99
        assert await first is True
        assert await watch.changed(LONG) is True
        assert await watch.changed(0.0) is False


async def test_a_publication_is_delivered_when_the_last_woken_watch_has_sent_it(
    hub: Watches, recorder: RecordingObserver
) -> None:
    with hub.open(None) as quick, hub.open(None) as slow:
        waits = [await _waits(quick), await _waits(slow)]
        hub.publish({"orders"})
        assert await waits[0]
        assert await waits[1]
        again = await _waits(quick)
        assert recorder.deliveries == []
        last = await _waits(slow)
        assert len(recorder.deliveries) == 1
        for watch, wait in ((quick, again), (slow, last)):
            watch.interrupt()
            await wait


async def test_a_watch_that_pushes_a_change_is_not_woken(hub: Watches, recorder: RecordingObserver) -> None:
    with hub.open(None) as watch:
        watch.push = lambda: True
        wait = await _waits(watch)
        assert hub.publish({"orders"}) == 1
        assert len(recorder.deliveries) == 1
        watch.interrupt()
        assert await wait is False


async def test_a_busy_watch_does_not_push(hub: Watches) -> None:
    with hub.open(None) as watch:
        watch.push = lambda: pytest.fail("it is under way with something else")
        hub.publish({"orders"})
        assert await watch.changed(LONG) is True


@pytest.mark.parametrize("failure", [None, RuntimeError("broken")])
async def test_a_watch_that_can_not_push_is_woken(hub: Watches, failure: Exception | None) -> None:
    def show() -> bool:
        if failure is not None:
            raise failure
        return False

    with hub.open(None) as watch:
        watch.push = show
        wait = await _waits(watch)
        hub.publish({"orders"})
        assert await wait is True


async def test_other_tasks_run_while_many_watches_are_woken(
    hub: Watches, recorder: RecordingObserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_WAKES_PER_TURN", 2)
    told: list[str] = []
    with contextlib.ExitStack() as stack:
        watches = [stack.enter_context(hub.open(None)) for _ in range(5)]
        waits = [asyncio.ensure_future(watch.changed(LONG)) for watch in watches]
        await asyncio.sleep(0)
        for watch in watches:
            watch.push = lambda: not told.append("watch")  # type: ignore[func-returns-value]
        asyncio.get_running_loop().call_soon(told.append, "another")
        assert hub.publish({"orders"}) == 5
        assert told == ["watch"] * 2
        while not recorder.deliveries:  # noqa: ASYNC110  # it counts turns
            await asyncio.sleep(0)
        assert sorted(told) == ["another"] + ["watch"] * 5
        assert told[2] == "another"
        for watch in watches:
            watch.interrupt()
        await asyncio.gather(*waits)


async def test_a_closed_watch_does_not_delay_a_publication(hub: Watches, recorder: RecordingObserver) -> None:
    with hub.open(None) as watch:
        hub.publish(None)
        await watch.changed(LONG)
    assert len(recorder.deliveries) == 1
    assert hub.count == 0


async def test_past_the_bound_a_watch_is_refused(hub: Watches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_WATCHES", 1)
    with hub.open(None), pytest.raises(Overloaded):
        hub.open(None)
    with hub.open(None):
        pass


async def test_drains_wait_for_the_watches_of_consumers_only(hub: Watches) -> None:
    with (
        hub.open(frozenset({"orders"}), consumer=Consumer("a")) as one,
        hub.open(None, consumer=Consumer("b")) as all_of_them,
        hub.open(frozenset({"orders"})),
        hub.open(frozenset({"users"}), consumer=Consumer("c")),
    ):
        settled = asyncio.create_task(hub.consumers.wait_for_acknowledgements("orders", 7, LONG))
        await run_until_idle()
        one.acknowledge(8)
        await run_until_idle()
        assert not settled.done()
        all_of_them.acknowledge(6)
        await run_until_idle()
        assert not settled.done()
        all_of_them.acknowledge(7)
        assert (await settled).waiting == []


async def test_a_consumer_whose_watch_ended_is_still_waited_for(hub: Watches) -> None:
    with hub.open(frozenset({"orders"}), consumer=Consumer("a")) as watch:
        watch.acknowledge(6)
    standing = await hub.consumers.wait_for_acknowledgements("orders", 7, 0.0)
    assert [pending.consumer.id for pending in standing.waiting] == ["a"]
    assert hub.count == 0


async def test_a_watch_has_the_revision_that_its_consumer_acknowledged_last(hub: Watches) -> None:
    with hub.open(None, consumer=Consumer("a")) as watch, hub.open(None) as onlooker:
        watch.acknowledge(7)
        watch.acknowledge(6)
        assert (watch.acknowledged, onlooker.acknowledged) == (7, 0)


async def test_the_end_wakes_all_watches(hub: Watches) -> None:
    with hub.open(None, consumer=Consumer("a")) as watch:
        wait = await _waits(watch)
        hub.end()
        assert await wait is True
        assert hub.is_ended
        await hub.wait_until_ended()


async def test_a_watch_that_is_not_notified_is_not_woken_and_still_waited_for(hub: Watches) -> None:
    with hub.open(None, consumer=Consumer("a"), is_notified=False) as quiet:
        assert hub.publish({"orders"}) == 0
        waiting = asyncio.create_task(hub.consumers.wait_for_acknowledgements("orders", 1, LONG))
        await run_until_idle()
        assert not waiting.done()
        quiet.acknowledge(1)
        assert (await waiting).waiting == []
    assert hub.count == 0


async def test_watches_that_name_too_many_services_are_refused_until_others_close(
    hub: Watches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_WATCHED_SERVICES", 3)
    with hub.open(frozenset({"a", "b"})), hub.open(None):
        with pytest.raises(Overloaded, match="services that watches name"):
            hub.open(frozenset({"a", "c"}))
        with hub.open(frozenset({"c"})):
            assert (hub.count, hub.watched_services) == (3, 3)
    assert (hub.count, hub.watched_services) == (0, 0)
