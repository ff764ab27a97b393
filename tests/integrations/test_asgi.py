from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from adsum.client.client import Client
from adsum.core.errors import Invalid
from adsum.integrations import asgi
from adsum.integrations.worker_group import WorkerGroup
from tests.client.fakes import ScriptedSource


@pytest.fixture
def port() -> Iterator[int]:
    """One that this process listens on, as a server would."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


class LifespanServer:
    """The server's side of the lifespan protocol."""

    def __init__(self, app: asgi.App) -> None:
        self._said: asyncio.Queue[asgi.Message] = asyncio.Queue()
        self._heard: asyncio.Queue[asgi.Message] = asyncio.Queue()
        self._running = asyncio.create_task(self._run(app))

    async def _run(self, app: asgi.App) -> None:
        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, self._said.get, self._heard.put)

    async def say(self, what: str) -> str:
        self._said.put_nowait({"type": f"lifespan.{what}"})
        heard = await self._heard.get()
        return str(heard["type"]).removeprefix("lifespan.") + str(heard.get("message", ""))

    async def ended(self) -> None:
        await self._running


async def until(source: ScriptedSource, call: str) -> None:
    async with asyncio.timeout(20):
        while call not in " ".join(source.calls):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)


async def test_an_app_is_listed_after_its_start_up_and_leaves_before_its_shut_down(port: int) -> None:
    source, story = ScriptedSource(), []

    @asynccontextmanager
    async def own(app: Starlette) -> AsyncGenerator[dict[str, Any], None]:
        story.append(f"start-up, listed: {bool(source.listed)}")
        yield {"state": 1}
        story.append(f"shut-down, listed: {bool(source.listed)}")

    client = Client(source=source, cache=False)
    server = LifespanServer(asgi.registered(Starlette(lifespan=own), "orders", port, client=client, id="o1"))
    assert await server.say("startup") == "startup.complete"
    await until(source, "register o1")
    assert await server.say("shutdown") == "shutdown.complete"
    await server.ended()
    assert story == ["start-up, listed: False", "shut-down, listed: False"]
    assert source.calls[-1] == "deregister o1"
    assert not source.closed, "a client that was given is its owner's to close"
    await client.close()


async def test_a_lifespan_composes_with_the_apps_own(port: int) -> None:
    source, story = ScriptedSource(), []

    @asynccontextmanager
    async def own(app: Starlette) -> AsyncGenerator[dict[str, Any], None]:
        story.append("up")
        yield {"pool": 7}
        story.append(f"down, listed: {bool(source.listed)}")

    async with Client(source=source, cache=False) as client:
        lifespan = asgi.lifespan("orders", port, inner=own, client=client, id="o1")
        async with lifespan(Starlette()) as state:
            assert state == {"pool": 7}
            await until(source, "register o1")
        assert story == ["up", "down, listed: False"]


@pytest.mark.parametrize("raises", [True, False])
async def test_an_app_without_a_lifespan_is_given_one(port: int, raises: bool) -> None:
    async def bare(scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        if raises:
            assert scope["type"] == "http"

    source = ScriptedSource()
    async with Client(source=source, cache=False) as client:
        server = LifespanServer(asgi.registered(bare, "orders", port, client=client, id="o1"))
        assert await server.say("startup") == "startup.complete"
        await until(source, "register o1")
        assert await server.say("shutdown") == "shutdown.complete"
        await server.ended()
        assert source.listed == {}


async def test_what_can_not_be_listed_fails_the_start_up_in_words(port: int) -> None:
    async with Client(source=ScriptedSource(), cache=False) as client:
        server = LifespanServer(asgi.registered(Starlette(), "Not A Name", port, client=client))
        assert (await server.say("startup")).startswith("startup.failedservice: must be 1 to 63")
        with pytest.raises(Invalid):
            await server.ended()


async def test_an_app_whose_start_up_fails_is_never_listed(port: int) -> None:
    @asynccontextmanager
    async def broken(app: Starlette) -> AsyncGenerator[None, None]:
        if source.calls == []:
            raise RuntimeError("no database")
        yield

    source = ScriptedSource()
    async with Client(source=source, cache=False) as client:
        server = LifespanServer(asgi.registered(Starlette(lifespan=broken), "orders", port, client=client))
        assert "no database" in await server.say("startup")
        with pytest.raises(RuntimeError, match="no database"):
            await server.ended()
        assert source.calls == []


async def test_a_server_that_was_told_to_stop_before_its_start_up_is_never_listed(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Told:
        should_exit = True

        def handle_exit(self, number: int, frame: object) -> None: ...

    looked, try_lead = asyncio.Event(), WorkerGroup.try_lead

    def taking(self: WorkerGroup) -> bool:
        looked.set()
        return try_lead(self)

    monkeypatch.setattr(WorkerGroup, "try_lead", taking)
    before = signal.signal(signal.SIGTERM, Told().handle_exit)
    try:
        source = ScriptedSource()
        client = Client(source=source, cache=False)
        server = LifespanServer(asgi.registered(Starlette(), "orders", port, client=client, id="o1"))
        assert await server.say("startup") == "startup.complete"
        await asyncio.wait_for(looked.wait(), 20)
        assert await server.say("shutdown") == "shutdown.complete"
        assert source.calls == []
    finally:
        signal.signal(signal.SIGTERM, before)
    await client.close()


async def test_a_registry_that_is_down_keeps_no_server_from_starting_or_ending(port: int) -> None:
    source = ScriptedSource()
    source.down = True
    async with Client(source=source, cache=False) as client:
        server = LifespanServer(asgi.registered(Starlette(), "orders", port, client=client, id="o1"))
        assert await server.say("startup") == "startup.complete"
        await until(source, "address")
        async with asyncio.timeout(20):
            assert await server.say("shutdown") == "shutdown.complete"
        await server.ended()


async def test_requests_pass_through() -> None:
    seen: list[str] = []

    async def app(scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        seen.append(scope["type"])

    async def never() -> asgi.Message:
        raise AssertionError

    async def nothing(message: asgi.Message) -> None: ...

    await asgi.registered(app, "orders", 8000)({"type": "http"}, never, nothing)
    assert seen == ["http"]
