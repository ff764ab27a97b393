from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from adsum.consumers import Consumer
from adsum.core.catalog import decisions
from adsum.core.catalog.changes import Change, FullState
from adsum.core.catalog.decisions import Caller, Decision
from adsum.core.catalog.draft import Draft
from adsum.core.errors import LeaseLost, Overloaded, StoreUnavailable, UnknownInstance
from adsum.core.model import Instance, Key, Override, Registration, Status
from adsum.core.provenance import Cause
from adsum.registry import Registry, write_queue
from adsum.registry import registry as registry_module
from tests.support.fakes import FakeClock, FakeStore
from tests.support.observers import RecordingObserver

CALLER = Caller("tester", 0.0)


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def registry(store: FakeStore, clock: FakeClock) -> AsyncIterator[Registry]:
    registry = Registry(store, clock, RecordingObserver())
    await registry.start()
    yield registry
    await registry.stop()


def _registration(id: str, holder: str = "") -> Registration:
    return Registration(Instance("orders", id, "127.0.0.1", 8000 + sum(id.encode())), holder=holder)


def _register(id: str, holder: str = "") -> decisions.Decision:
    return decisions.register(_registration(id, holder), CALLER)


async def _let_run() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_caller_reads_what_it_wrote(registry: Registry) -> None:
    revision = await registry.write(_register("o1"))
    assert registry.snapshot.revision >= revision
    assert registry.snapshot.find(Key("orders", "o1")) is not None


async def test_writes_that_wait_for_a_commit_are_one_batch(registry: Registry, store: FakeStore) -> None:
    store.gate.clear()
    writes = [asyncio.create_task(registry.write(_register(f"o{n}"))) for n in range(50)]
    await _let_run()
    more = [asyncio.create_task(registry.write(_register(f"p{n}"))) for n in range(50)]
    await _let_run()
    store.gate.set()
    await asyncio.gather(*writes, *more)
    assert len(store.commits) <= 3
    assert registry.snapshot.instance_count == 100


async def test_requests_of_one_batch_see_each_other(registry: Registry, store: FakeStore) -> None:
    await registry.write(_register("o1", "first"))
    store.gate.clear()
    blocker = asyncio.create_task(registry.write(_register("blocker")))
    await _let_run()
    key = Key("orders", "o1")
    deregistered = asyncio.create_task(registry.write(decisions.deregister(key, "first", "bye", CALLER)))
    registered = asyncio.create_task(registry.write(_register("o1", "second")))
    late = asyncio.create_task(registry.write(decisions.deregister(key, "first", "bye", CALLER)))
    await _let_run()
    store.gate.set()
    await asyncio.gather(blocker, deregistered, registered)
    with pytest.raises(LeaseLost):
        await late
    listing = registry.snapshot.find(key)
    assert listing is not None
    assert listing.registration.holder == "second"


async def test_after_a_conflict_a_batch_is_decided_again_on_the_newer_snapshot(
    registry: Registry, store: FakeStore
) -> None:
    await registry.write(_register("o1", "mine"))
    listed = registry.snapshot.find(Key("orders", "o1"))
    assert listed is not None
    store.gate.clear()
    write = asyncio.create_task(registry.write(_register("o2")))
    await _let_run()
    store.commit_elsewhere(Change(listed.key, None, CALLER.provenance(Cause.DEREGISTERED)))
    store.gate.set()
    assert await write == 3
    assert registry.snapshot.find(Key("orders", "o1")) is None
    assert registry.snapshot.find(Key("orders", "o2")) is not None


async def test_a_request_that_changes_nothing_on_an_old_snapshot_is_decided_again(
    registry: Registry, store: FakeStore
) -> None:
    await registry.write(_register("o1"))
    listed = registry.snapshot.find(Key("orders", "o1"))
    store.commit_elsewhere(Change(Key("orders", "o2"), listed, CALLER.provenance(Cause.REGISTERED)))
    assert await registry.write(decisions.deregister(Key("orders", "o2"), "", "", CALLER)) == 3


async def test_a_refusal_on_an_old_snapshot_is_decided_again(registry: Registry, store: FakeStore) -> None:
    registered = decisions.register(_registration("o1"), CALLER)(Draft(registry.snapshot))
    store.commit_elsewhere(*registered)
    drained = Override(Status.DRAINING, "tester", "", None)
    assert await registry.write(decisions.set_override(Key("orders", "o1"), drained, "", CALLER)) == 2
    with pytest.raises(UnknownInstance):
        await registry.write(decisions.set_override(Key("orders", "o2"), drained, "", CALLER))


async def test_a_request_that_changes_nothing_is_not_answered_while_the_store_is_away(
    registry: Registry, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(base_revision: int) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(store, "confirm", away)
    with pytest.raises(StoreUnavailable, match="away"):
        await registry.write(decisions.deregister(Key("orders", "o1"), "", "", CALLER))


async def test_writes_that_wait_during_a_conflict_join_the_batch(registry: Registry, store: FakeStore) -> None:
    store.gate.clear()
    first = asyncio.create_task(registry.write(_register("o1")))
    await _let_run()
    second = asyncio.create_task(registry.write(_register("o2")))
    await _let_run()
    store.commit_elsewhere()
    store.gate.set()
    assert (await first, await second) == (2, 2)
    assert [len(changes) for changes in store.commits] == [2]


async def test_a_batch_with_conflicts_for_too_long_is_refused(
    registry: Registry, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.registry.registry.CONFLICT_RETRY_TIME", 0.0)
    store.gate.clear()
    write = asyncio.create_task(registry.write(_register("o1")))
    await _let_run()
    store.commit_elsewhere()
    store.gate.set()
    with pytest.raises(StoreUnavailable, match="other nodes keep writing"):
        await write
    assert await registry.write(_register("o1")) == 2


async def test_a_write_that_the_stream_does_not_deliver_is_refused_in_time_and_delays_no_other(
    registry: Registry, store: FakeStore, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    store.delayed_batches = []
    writes = [asyncio.create_task(registry.write(_register("o1")))]
    await clock.advance(registry_module.PUBLISH_TIMEOUT / 2)
    writes.append(asyncio.create_task(registry.write(_register("o2"))))
    await clock.advance(registry_module.PUBLISH_TIMEOUT / 2)
    with pytest.raises(StoreUnavailable, match="written, but not seen yet") as unseen:
        await writes[0]
    assert unseen.value.retry_after
    nothing: Decision = lambda view: []  # noqa: E731
    for decision in (None, nothing, _register("o3")):
        if decision is not None:
            writes.append(asyncio.create_task(registry.write(decision)))
        await clock.advance(registry_module.CONFLICT_RETRY_TIME + 1.0)
        with pytest.raises(StoreUnavailable, match="its stream does not deliver them"):
            await writes[-1]
    assert (registry.is_refusing_writes, len(store.commits)) == (True, 1)
    assert [record.levelname for record in caplog.records] == ["ERROR"], "logged once"
    store.release_delayed()
    assert await registry.write(_register("o2")) == 2
    assert (registry.is_refusing_writes, registry.snapshot.instance_count) == (False, 2)


async def test_writes_are_refused_while_the_store_is_away_and_then_go_on(registry: Registry, store: FakeStore) -> None:
    store.next_errors = [StoreUnavailable("the disk is full"), RuntimeError("a bug")]
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await registry.write(_register("o1"))
    assert registry.snapshot.instance_count == 0
    await registry.write(_register("o1"))
    assert registry.snapshot.instance_count == 1


async def test_a_store_that_refuses_writes_is_logged_once_and_when_it_is_over(
    registry: Registry, store: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "adsum.registry")
    store.next_errors = [StoreUnavailable("the disk is full") for _ in range(3)]
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await registry.write(_register("o1"))
    noted = []
    writes: list[Decision] = [lambda view: [], _register("o1")]
    for decision in writes:  # The first changes nothing, so it does not prove that the store accepts writes.
        await registry.write(decision)
        noted.append(registry.is_refusing_writes)
    assert noted == [True, False]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "the store refuses writes, and reads go on: the disk is full"),
        ("WARNING", "the store accepts writes again"),
    ]


async def test_past_the_bound_a_write_is_refused(
    registry: Registry, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_queue, "MAX_WAITING_WRITES", 2)
    store.gate.clear()
    first = asyncio.create_task(registry.write(_register("o1")))
    await _let_run()
    waiting = [asyncio.create_task(registry.write(_register(f"o{n}"))) for n in (2, 3)]
    await _let_run()
    refused = asyncio.create_task(registry.write(_register("o4")))
    await _let_run()
    store.gate.set()  # If the write waited in place of being refused, it is written now, and the test fails.
    with pytest.raises(Overloaded):
        await refused
    await asyncio.gather(first, *waiting)


async def test_a_cancelled_caller_does_not_affect_others(registry: Registry, store: FakeStore) -> None:
    store.gate.clear()
    cancelled = asyncio.create_task(registry.write(_register("o1")))
    stays = asyncio.create_task(registry.write(_register("o2")))
    await _let_run()
    cancelled.cancel()
    store.gate.set()
    await stays
    assert registry.snapshot.find(Key("orders", "o2")) is not None


async def test_registering_again_costs_no_commit(registry: Registry, store: FakeStore) -> None:
    revision = await registry.write(_register("o1"))
    assert await registry.write(_register("o1")) == revision
    assert len(store.commits) == 1


async def test_another_full_state_replaces_the_catalog_and_wakes_all_watches(
    registry: Registry, store: FakeStore
) -> None:
    await registry.write(_register("o1"))
    with registry.watches.open(frozenset({"users"})) as watch:
        store.stream.put_nowait(FullState("e2", 40, []))
        assert await watch.changed(30.0) is True
    assert (registry.snapshot.epoch, registry.snapshot.revision, registry.snapshot.instance_count) == ("e2", 40, 0)


async def test_a_new_epoch_resets_all_acknowledgements(registry: Registry, store: FakeStore) -> None:
    consumers = registry.watches.consumers
    with registry.watches.open(frozenset({"users"}), consumer=Consumer("c1")) as watch:
        watch.acknowledge(50)
        assert (await consumers.wait_for_acknowledgements("users", 40, 0.0)).waiting == []
        store.stream.put_nowait(FullState("e2", 40, []))
        assert await watch.changed(30.0) is True
        assert len((await consumers.wait_for_acknowledgements("users", 40, 0.0)).waiting) == 1
        watch.acknowledge(40)
        assert (await consumers.wait_for_acknowledgements("users", 40, 0.0)).waiting == []


async def test_a_broken_stream_fails_the_registry(registry: Registry, store: FakeStore) -> None:
    failed = asyncio.create_task(registry.wait_until_failed())
    store.stream.put_nowait(None)
    assert isinstance(await failed, StoreUnavailable)
    with pytest.raises(StoreUnavailable):
        await registry.write(_register("o1"))


async def test_stopping_refuses_waiting_writes(store: FakeStore) -> None:
    registry = Registry(store, FakeClock(), RecordingObserver())
    await registry.start()
    store.gate.clear()
    write = asyncio.create_task(registry.write(_register("o1")))
    await _let_run()
    await registry.stop()
    with pytest.raises(StoreUnavailable):
        await write
