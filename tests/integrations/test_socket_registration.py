"""A listening socket's registration, by one worker or several."""

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
    """Gives the workers a folder in which they coordinate, and makes waits short."""
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
def other_worker(tmp_path: Path) -> Iterator[SecondWorker]:
    made = SecondWorker(PORT, tmp_path / f"adsum-{os.getuid()}")
    yield made
    made.kill()


async def wait_until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not fact():  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0.005)


@pytest.fixture
def polls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The number of times that this process has tried to lead, and has checked whether the instance is drained."""
    counted: Counter[str] = Counter()

    def counting_poll(name: str, poll: Callable[[WorkerGroup], bool]) -> Callable[[WorkerGroup], bool]:
        def counting(self: WorkerGroup) -> bool:
            counted[name] += 1
            return poll(self)

        return counting

    for name in ("try_lead", "is_drained"):
        monkeypatch.setattr(WorkerGroup, name, counting_poll(name, getattr(WorkerGroup, name)))
    return counted


def make_registration() -> SocketRegistration:
    return SocketRegistration("orders", PORT, already_listening=True, id="o1", drain_wait=3.0)


async def test_the_only_worker_drains_then_deregisters(client: Client, source: ScriptedSource) -> None:
    registration = make_registration()
    registration.start(client)
    await wait_until(lambda: bool(source.listed))
    await registration.drain()
    await registration.drain()
    assert [body.wait for body in source.overrides] == [3.0]
    assert source.listed, "it is still listed while it is served"
    await registration.stop()
    await registration.stop()
    assert source.listed == {}
    assert source.calls.count("deregister o1") == 1


async def test_while_others_serve_the_instance_stays_and_another_worker_leads(
    client: Client, source: ScriptedSource, other_worker: SecondWorker
) -> None:
    registration = make_registration()
    other_worker.call("join")
    registration.start(client)
    await wait_until(lambda: bool(source.listed))
    assert not other_worker.call("try_lead")
    await registration.drain()
    await registration.stop()
    assert source.overrides == []
    assert source.listed, "the other worker keeps it"
    assert other_worker.call("try_lead")


async def test_a_worker_that_its_server_replaces_stays_listed(
    client: Client, source: ScriptedSource, other_worker: SecondWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "parent_listens", lambda port: port == PORT)
    monkeypatch.setattr(module, "MIN_SERVED_TIME", 0.0)
    registration = make_registration()
    registration.start(client)
    await wait_until(lambda: bool(source.listed))
    await registration.stop()
    assert source.listed, "the server will start another worker"
    assert other_worker.call("try_lead")


async def test_a_worker_that_ends_as_it_begins_deregisters(
    client: Client, source: ScriptedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "parent_listens", lambda port: port == PORT)
    monkeypatch.setattr(module, "MIN_SERVED_TIME", 60.0)
    registration = make_registration()
    registration.start(client)
    await wait_until(lambda: bool(source.listed))
    await registration.stop()
    assert source.listed == {}, "it may have been stopped before it could handle the signal"


def test_a_worker_whose_loop_ends_deregisters(source: ScriptedSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "parent_listens", lambda port: True)
    monkeypatch.setattr(module, "MIN_SERVED_TIME", 0.0)

    async def serve() -> None:
        client = Client(source=source, cache=False)
        make_registration().start(client)
        await wait_until(lambda: bool(source.listed))

    asyncio.run(serve())
    assert source.listed == {}
    assert source.calls[-1] == "deregister o1"


@pytest.mark.parametrize("stop_marked_first", [True, False])
async def test_the_last_worker_of_a_server_that_stops_deregisters(
    client: Client, source: ScriptedSource, monkeypatch: pytest.MonkeyPatch, stop_marked_first: bool
) -> None:
    monkeypatch.setattr(module, "SETTLE_TIME", 20.0)
    monkeypatch.setattr(module, "MIN_SERVED_TIME", 0.0)
    polls: list[int] = []

    def listens(port: int) -> bool:
        polls.append(port)
        return True

    monkeypatch.setattr(module, "parent_listens", listens)
    registration = make_registration()
    registration.start(client)
    await wait_until(lambda: bool(source.listed))
    if stop_marked_first:
        registration.mark_stopping()
    ending = asyncio.create_task(registration.stop())
    if not stop_marked_first:
        await wait_until(lambda: bool(polls))
        registration.mark_stopping()
        await asyncio.gather(registration.stop(), registration.stop())
    await ending
    assert source.listed == {}
    assert source.calls.count("deregister o1") == 1


async def test_a_worker_registers_once_it_leads(
    client: Client, source: ScriptedSource, other_worker: SecondWorker, polls: Counter[str]
) -> None:
    other_worker.call("join")
    assert other_worker.call("try_lead")
    registration = make_registration()
    registration.start(client)
    await wait_until(lambda: polls["try_lead"] >= 3)
    assert source.calls == []
    other_worker.kill()
    await wait_until(lambda: bool(source.listed))
    await registration.stop()


async def test_a_worker_that_does_not_lead_serves_until_the_instance_is_drained(
    client: Client, source: ScriptedSource, other_worker: SecondWorker, polls: Counter[str]
) -> None:
    other_worker.call("join")
    assert other_worker.call("try_lead")
    registration = make_registration()
    registration.start(client)
    await wait_until(lambda: polls["try_lead"] >= 1)
    other_worker.call("leave")
    draining = asyncio.create_task(registration.drain())
    await wait_until(lambda: polls["is_drained"] >= 3 or draining.done())
    assert not draining.done(), "the leader has not drained the instance yet"
    other_worker.call("mark_drained")
    await draining
    await registration.stop()
    assert source.calls == []


async def test_a_service_that_the_parent_registers_is_left_to_it(
    client: Client, source: ScriptedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent_registration = make_registration()
    parent_registration.start(client)
    await wait_until(lambda: bool(source.listed))
    monkeypatch.setattr(os, "getppid", os.getpid)
    registration = make_registration()
    registration.start(client)
    await registration.drain()
    await registration.stop()
    assert source.calls.count("register o1") == 1
    assert source.overrides == []
    await parent_registration.stop()


async def test_stopping_before_it_listens_registers_nothing(
    client: Client, source: ScriptedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening_sockets, "own_ports", set)
    registration = SocketRegistration("orders", PORT, id="o1")
    registration.start(client)
    await registration.drain()
    await registration.stop()
    assert source.calls == []


async def test_an_ambiguous_port_is_logged_and_stops_no_server(
    client: Client, source: ScriptedSource, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listening_sockets, "own_ports", lambda: {8000, 9090})
    monkeypatch.delenv("PORT", raising=False)
    registration = SocketRegistration("orders", None)
    registration.start(client)
    await wait_until(lambda: "orders: not registered: port: must be given" in caplog.text)
    await registration.stop()
    assert source.calls == []


async def test_a_wrong_registration_is_refused_at_once(client: Client) -> None:
    with pytest.raises(Invalid):
        SocketRegistration("Not A Name", PORT).start(client)
    with pytest.raises(TypeError):
        SocketRegistration("orders", PORT, colour="red").start(client)
