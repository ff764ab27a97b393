from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from adsum.client.client import Client
from adsum.core.errors import Invalid
from adsum.integrations import listening_sockets
from adsum.integrations import socket_registration as module
from adsum.integrations.socket_registration import SocketRegistration
from adsum.integrations.worker_group import WorkerGroup
from tests.client.fakes import ScriptedSource
from tests.integrations.programs.second_worker import SecondWorker

PORT = 8000


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where workers meet; and those who stop have little time to."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(module, "SETTLE_TIME", 0.05)
    monkeypatch.setattr(module, "LEADER_POLL_INTERVAL", 0.02)


@pytest.fixture
def source() -> ScriptedSource:
    return ScriptedSource()


@pytest.fixture
async def client(source: ScriptedSource) -> AsyncIterator[Client]:
    async with Client(source=source, cache=False) as client:
        yield client


@pytest.fixture
def other(tmp_path: Path) -> Iterator[SecondWorker]:
    made = SecondWorker(PORT, tmp_path / f"adsum-{os.getuid()}")
    yield made
    made.kill()


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not fact():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often this process has looked whether the turn is its own, and whether the others have withdrawn."""
    counted: Counter[str] = Counter()

    def count(name: str, look: Callable[[WorkerGroup], bool]) -> Callable[[WorkerGroup], bool]:
        def counting(self: WorkerGroup) -> bool:
            counted[name] += 1
            return look(self)

        return counting

    for name in ("try_lead", "is_drained"):
        monkeypatch.setattr(WorkerGroup, name, count(name, getattr(WorkerGroup, name)))
    return counted


def attending() -> SocketRegistration:
    return SocketRegistration("orders", PORT, already_listening=True, id="o1", drain_wait=3.0)


async def test_the_only_worker_drains_then_deregisters(client: Client, source: ScriptedSource) -> None:
    ours = attending()
    ours.start(client)
    await until(lambda: bool(source.listed))
    await ours.drain()
    await ours.drain()
    assert [body.wait for body in source.overrides] == [3.0]
    assert source.listed, "it is still served"
    await ours.stop()
    await ours.stop()
    assert source.listed == {}
    assert source.calls.count("deregister o1") == 1


async def test_while_others_serve_nobody_drains_or_deregisters_and_another_takes_over(
    client: Client, source: ScriptedSource, other: SecondWorker
) -> None:
    ours = attending()
    other.call("join")
    ours.start(client)
    await until(lambda: bool(source.listed))
    assert not other.call("try_lead")
    await ours.drain()
    await ours.stop()
    assert source.overrides == []
    assert source.listed, "it is the others' now"
    assert other.call("try_lead")


async def test_a_worker_that_its_server_replaces_stays_listed(
    client: Client, source: ScriptedSource, other: SecondWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "parent_listens", lambda port: port == PORT)
    monkeypatch.setattr(module, "MIN_SERVED_TIME", 0.0)
    ours = attending()
    ours.start(client)
    await until(lambda: bool(source.listed))
    await ours.stop()
    assert source.listed, "nobody else serves yet, but the server will start another worker"
    assert other.call("try_lead")


async def test_a_worker_that_ends_as_it_begins_deregisters(
    client: Client, source: ScriptedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "parent_listens", lambda port: port == PORT)
    monkeypatch.setattr(module, "MIN_SERVED_TIME", 60.0)
    ours = attending()
    ours.start(client)
    await until(lambda: bool(source.listed))
    await ours.stop()
    assert source.listed == {}, "it was told to stop before it could hear that"


def test_a_worker_whose_loop_ends_without_a_word_deregisters(
    source: ScriptedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "parent_listens", lambda port: True)
    monkeypatch.setattr(module, "MIN_SERVED_TIME", 0.0)

    async def serve() -> None:
        client = Client(source=source, cache=False)
        attending().start(client)
        await until(lambda: bool(source.listed))

    asyncio.run(serve())
    assert source.listed == {}
    assert source.calls[-1] == "deregister o1"


@pytest.mark.parametrize("told_first", [True, False])
async def test_the_last_worker_of_a_server_that_stops_deregisters(
    client: Client, source: ScriptedSource, monkeypatch: pytest.MonkeyPatch, told_first: bool
) -> None:
    monkeypatch.setattr(module, "SETTLE_TIME", 20.0)
    monkeypatch.setattr(module, "MIN_SERVED_TIME", 0.0)
    looks: list[int] = []

    def listens(port: int) -> bool:
        looks.append(port)
        return True

    monkeypatch.setattr(module, "parent_listens", listens)
    ours = attending()
    ours.start(client)
    await until(lambda: bool(source.listed))
    if told_first:
        ours.mark_stopping()
    ending = asyncio.create_task(ours.stop())
    if not told_first:
        await until(lambda: bool(looks))
        ours.mark_stopping()
        await asyncio.gather(ours.stop(), ours.stop())
    await ending
    assert source.listed == {}
    assert source.calls.count("deregister o1") == 1


async def test_a_worker_registers_when_its_turn_comes(
    client: Client, source: ScriptedSource, other: SecondWorker, looks: Counter[str]
) -> None:
    other.call("join")
    assert other.call("try_lead")
    ours = attending()
    ours.start(client)
    await until(lambda: looks["try_lead"] >= 3)
    assert source.calls == []
    other.kill()
    await until(lambda: bool(source.listed))
    await ours.stop()


async def test_a_worker_without_the_turn_serves_until_callers_were_told(
    client: Client, source: ScriptedSource, other: SecondWorker, looks: Counter[str]
) -> None:
    other.call("join")
    assert other.call("try_lead")
    ours = attending()
    ours.start(client)
    await until(lambda: looks["try_lead"] >= 1)
    other.call("leave")
    parting = asyncio.create_task(ours.drain())
    await until(lambda: looks["is_drained"] >= 3 or parting.done())
    assert not parting.done(), "the other one has not drained yet"
    other.call("mark_drained")
    await parting
    await ours.stop()
    assert source.calls == []


async def test_what_the_parent_attends_to_is_left_to_it(
    client: Client, source: ScriptedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    parents = attending()
    parents.start(client)
    await until(lambda: bool(source.listed))
    monkeypatch.setattr(os, "getppid", os.getpid)
    ours = attending()
    ours.start(client)
    await ours.drain()
    await ours.stop()
    assert source.calls.count("register o1") == 1
    assert source.overrides == []
    await parents.stop()


async def test_ending_before_it_listens_lists_nothing(
    client: Client, source: ScriptedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening_sockets, "own_ports", set)
    ours = SocketRegistration("orders", PORT, id="o1")
    ours.start(client)
    await ours.drain()
    await ours.stop()
    assert source.calls == []


async def test_an_unclear_port_is_told_and_stops_no_server(
    client: Client, source: ScriptedSource, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listening_sockets, "own_ports", lambda: {8000, 9090})
    monkeypatch.delenv("PORT", raising=False)
    ours = SocketRegistration("orders", None)
    ours.start(client)
    await until(lambda: "orders: not listed: port: must be said" in caplog.text)
    await ours.stop()
    assert source.calls == []


async def test_what_can_not_be_listed_is_told_at_once(client: Client) -> None:
    with pytest.raises(Invalid):
        SocketRegistration("Not A Name", PORT).start(client)
    with pytest.raises(TypeError):
        SocketRegistration("orders", PORT, colour="red").start(client)
