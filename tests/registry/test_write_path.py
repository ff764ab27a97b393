"""The path of a write through the registry: queue, decision, commit, publication, answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.core.catalog import decisions
from adsum.core.catalog.changes import Change, FullState
from adsum.core.catalog.decisions import Caller, Decision
from adsum.core.catalog.draft import CatalogView
from adsum.core.catalog.snapshots import load_snapshot
from adsum.core.errors import AdsumError, Overloaded, StoreUnavailable
from adsum.core.model import Instance, Key, Registration
from adsum.registry import Registry, write_queue
from adsum.registry import registry as registry_module
from adsum.stores.memory import MemoryStore
from tests.support.fakes import FakeClock, FakeStore, run_until_idle
from tests.support.observers import RecordingObserver

CALLER = Caller("tester", 0.0)


class Answers:
    """Records the answers to writes by name, and what else happens, in order."""

    def __init__(self) -> None:
        self.results: dict[str, int | AdsumError] = {}
        self.events: list[str] = []

    def settle(self, name: str) -> Callable[[int | AdsumError], None]:
        return partial(self._settle, name)

    def _settle(self, name: str, result: int | AdsumError) -> None:
        assert name not in self.results, "answered twice"
        self.results[name] = result
        self.events.append(f"answered {name}")

    def recorded(self, name: str, decision: Decision) -> Decision:
        """Returns the decision, which also records that it is decided."""

        def decide(view: CatalogView) -> list[Change]:
            self.events.append(f"decided {name}")
            return decision(view)

        return decide

    def submit(self, registry: Registry, name: str) -> None:
        registry.submit(self.recorded(name, _register(name)), self.settle(name))


@pytest.fixture
def store() -> FakeStore:
    store = FakeStore()
    store.is_shared = False
    return store


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
async def registry(store: FakeStore, observer: RecordingObserver) -> AsyncIterator[Registry]:
    registry = Registry(store, FakeClock(), observer)
    await registry.start()
    yield registry
    await registry.stop()


@pytest.fixture
def answers() -> Answers:
    return Answers()


def _register(id: str, service: str = "orders") -> Decision:
    return decisions.register(Registration(Instance(service, id, "127.0.0.1", 8000 + sum(id.encode()))), CALLER)


async def test_the_only_writer_of_a_store_does_not_wait_for_its_stream(
    registry: Registry, store: FakeStore, observer: RecordingObserver
) -> None:
    store.delayed_batches = []
    with registry.watches.open(frozenset({"orders"})) as watch:
        assert await registry.write(_register("o1")) == 1
        assert registry.snapshot.find(Key("orders", "o1")) is not None
        assert await watch.changed(30.0) is True
        store.release_delayed()
        assert await registry.write(_register("o2")) == 2
    assert observer.publications == [(0, 0), (1, 1), (2, 0)], "each batch is published once"


async def test_a_node_beside_others_waits_for_the_stream(
    registry: Registry, store: FakeStore, answers: Answers
) -> None:
    store.is_shared, store.delayed_batches = True, []
    answers.submit(registry, "o1")
    await run_until_idle()
    assert (len(store.commits), answers.results, registry.snapshot.instance_count) == (1, {}, 0)
    store.release_delayed()
    await run_until_idle()
    assert (answers.results, registry.snapshot.instance_count) == ({"o1": 1}, 1)


async def test_the_next_commit_begins_before_the_last_is_answered(
    registry: Registry, store: FakeStore, answers: Answers
) -> None:
    store.gate.clear()
    answers.submit(registry, "o1")
    await run_until_idle()
    answers.submit(registry, "o2")
    store.gate.set()
    await run_until_idle()
    assert answers.events == ["decided o1", "decided o2", "answered o1", "answered o2"]
    assert answers.results == {"o1": 1, "o2": 2}


async def test_the_second_of_two_batches_is_decided_on_the_first(
    registry: Registry, store: FakeStore, answers: Answers
) -> None:
    store.gate.clear()
    answers.submit(registry, "o1")
    await run_until_idle()
    registry.submit(_register("o1"), answers.settle("the same again"))
    store.gate.set()
    await run_until_idle()
    assert answers.results == {"o1": 1, "the same again": 1}
    assert len(store.commits) == 1


async def test_an_older_state_of_the_same_history_does_not_take_the_catalog_back(
    registry: Registry, store: FakeStore
) -> None:
    await registry.write(_register("o1"))
    await registry.write(_register("o2"))
    listing = registry.snapshot.find(Key("orders", "o1"))
    assert listing is not None
    store.stream.put_nowait(FullState("e1", 1, [(1, listing)]))
    await run_until_idle()
    assert (registry.snapshot.revision, registry.snapshot.instance_count) == (2, 2)
    store.stream.put_nowait(FullState("e1", 2, [(1, listing)]))
    await run_until_idle()
    assert (registry.snapshot.revision, registry.snapshot.instance_count) == (2, 1), "the store knows better"


async def test_a_state_of_another_history_replaces_the_catalog_during_a_commit(
    registry: Registry, store: FakeStore, answers: Answers
) -> None:
    await registry.write(_register("o1"))
    store.gate.clear()
    answers.submit(registry, "o2")
    await run_until_idle()
    store.replace_history(FullState("e2", 40, []))
    await run_until_idle()
    store.gate.set()
    await run_until_idle()
    assert answers.results == {"o2": 41}
    assert (registry.snapshot.epoch, registry.snapshot.revision) == ("e2", 41)
    assert registry.snapshot.find(Key("orders", "o1")) is None


async def test_an_answer_that_fails_affects_no_other(
    registry: Registry, answers: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(result: int | AdsumError) -> None:
        raise ValueError("a bug")

    registry.submit(_register("o1"), fail)
    answers.submit(registry, "o2")
    await run_until_idle()
    assert answers.results == {"o2": 1}
    assert [record.getMessage() for record in caplog.records] == ["the answer to a write could not be sent"]
    answers.submit(registry, "o3")
    await run_until_idle()
    assert answers.results["o3"] == 2


async def test_an_abandoned_write_is_not_decided_and_still_answered(registry: Registry, answers: Answers) -> None:
    registry.submit(answers.recorded("o1", _register("o1")), answers.settle("o1"), lambda: True)
    answers.submit(registry, "o2")
    await run_until_idle()
    assert answers.events == ["decided o2", "answered o1", "answered o2"]
    assert registry.snapshot.instance_count == 1


async def test_other_tasks_run_while_a_large_batch_is_decided_and_answered(
    registry: Registry, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "MAX_DECISIONS_PER_TURN", 2)
    monkeypatch.setattr(write_queue, "MAX_ANSWERS_PER_TURN", 2)

    async def tick() -> None:
        while len(answers.results) < 6:
            if not answers.events or answers.events[-1] != "tick":
                answers.events.append("tick")
            await asyncio.sleep(0)

    for n in range(6):
        answers.submit(registry, f"o{n}")
    await asyncio.create_task(tick())
    runs = "".join(event[0] for event in answers.events).strip("t")
    assert runs == "ddtddtddtaataataa".removesuffix("t"), "at most two are decided or answered in a row"
    assert set(answers.results.values()) == {1}, "they are one batch nevertheless"


async def test_a_caller_that_writes_again_at_once_lets_other_tasks_run(registry: Registry, answers: Answers) -> None:
    left, turns = 1_000, 0

    def again(result: int | AdsumError) -> None:
        nonlocal left
        left -= 1
        if left:
            registry.submit(_register("o1"), again)

    registry.submit(_register("o1"), again)
    while left:
        turns += 1
        await asyncio.sleep(0)
    assert turns >= 500


async def test_writes_are_refused_once_each_when_the_store_fails(
    registry: Registry, store: FakeStore, answers: Answers
) -> None:
    store.gate.clear()
    store.next_errors = [StoreUnavailable("the disk is full")]
    answers.submit(registry, "o1")
    await run_until_idle()
    answers.submit(registry, "o2")
    store.gate.set()
    await run_until_idle()
    assert isinstance(answers.results.pop("o1"), StoreUnavailable)
    assert answers.results == {"o2": 1}


async def test_a_registry_that_does_not_run_refuses_at_once(answers: Answers) -> None:
    registry = Registry(FakeStore(), FakeClock(), RecordingObserver())
    with pytest.raises(StoreUnavailable, match="not running"):
        answers.submit(registry, "o1")
    assert answers.results == {}


async def test_past_the_bound_submit_refuses_at_once_and_does_not_answer(
    registry: Registry, store: FakeStore, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_queue, "MAX_WAITING_WRITES", 1)
    answers.submit(registry, "o1")
    with pytest.raises(Overloaded):
        answers.submit(registry, "o2")
    await run_until_idle()
    assert answers.results == {"o1": 1}


class _Step:
    """A step of a random history: some requests that are submitted at once, and how often other tasks run then."""

    def __init__(self, requests: list[tuple[bool, str, str]], turns: int) -> None:
        self.requests = requests
        self.turns = turns

    def __repr__(self) -> str:
        return f"_Step({self.requests}, {self.turns})"


_REQUESTS = st.tuples(st.booleans(), st.sampled_from(["a", "b"]), st.sampled_from(["1", "2", "3"]))
_STEPS = st.builds(_Step, st.lists(_REQUESTS, max_size=6), st.integers(0, 6))


@given(st.lists(_STEPS, max_size=12))
def test_the_snapshot_is_what_the_store_holds_whatever_is_written_when(steps: list[_Step]) -> None:
    asyncio.run(_replay(steps))


async def _replay(steps: list[_Step]) -> None:
    store, answered, count = MemoryStore(), list[int](), 0
    registry = Registry(store, FakeClock(), RecordingObserver())
    await registry.start()

    def settle(result: int | AdsumError) -> None:
        assert isinstance(result, int)
        assert registry.snapshot.revision >= result, "the caller reads what it wrote"
        answered.append(result)

    for step in steps:
        for is_listed, service, id in step.requests:
            key = Key(service, id)
            decision = _register(id, service) if is_listed else decisions.deregister(key, "", "", CALLER)
            registry.submit(decision, settle)
            count += 1
        for _ in range(step.turns):
            await asyncio.sleep(0)
    await run_until_idle()
    assert len(answered) == count
    state = await anext(aiter(store.watch()))
    assert isinstance(state, FullState)
    stored = load_snapshot(state)
    assert (registry.snapshot.epoch, registry.snapshot.revision) == (stored.epoch, stored.revision)
    for name in ("a", "b"):
        assert registry.snapshot.service(name).listings == stored.service(name).listings
    assert registry.snapshot.size == stored.size
    await registry.stop()


async def test_writes_that_come_while_other_nodes_have_their_turn_are_one_batch(
    registry: Registry, store: FakeStore
) -> None:
    answers = Answers()
    store.turn.clear()
    answers.submit(registry, "a")
    await run_until_idle()
    assert (answers.events, store.commits) == ([], []), "nothing is decided before the turn comes"
    answers.submit(registry, "b")
    store.turn.set()
    await run_until_idle()
    assert [len(commit) for commit in store.commits] == [2]
    assert answers.results.keys() == {"a", "b"}
