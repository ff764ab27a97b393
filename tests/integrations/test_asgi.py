"""The ASGI integration, driven as a server drives an app's lifespan."""

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
    """A port on which this process listens, as a server would."""
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
        self._to_app: asyncio.Queue[asgi.Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[asgi.Message] = asyncio.Queue()
        self._running = asyncio.create_task(self._run(app))

    async def _run(self, app: asgi.App) -> None:
        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, self._to_app.get, self._from_app.put)

    async def send(self, event: str) -> str:
        self._to_app.put_nowait({"type": f"lifespan.{event}"})
        response = await self._from_app.get()
        return str(response["type"]).removeprefix("lifespan.") + str(response.get("message", ""))

    async def ended(self) -> None:
        await self._running


async def until(source: ScriptedSource, call: str) -> None:
    async with asyncio.timeout(20):
        while call not in " ".join(source.calls):  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0.005)


async def test_an_app_is_listed_after_its_startup_and_leaves_before_its_shutdown(port: int) -> None:
    source, events = ScriptedSource(), []

    @asynccontextmanager
    async def own(app: Starlette) -> AsyncGenerator[dict[str, Any], None]:
        events.append(f"startup, listed: {bool(source.listed)}")
        yield {"state": 1}
        events.append(f"shutdown, listed: {bool(source.listed)}")

    client = Client(source=source, cache=False)
    server = LifespanServer(asgi.registered(Starlette(lifespan=own), "orders", port, client=client, id="o1"))
    assert await server.send("startup") == "startup.complete"
    await until(source, "register o1")
    assert await server.send("shutdown") == "shutdown.complete"
    await server.ended()
    assert events == ["startup, listed: False", "shutdown, listed: False"]
    assert source.calls[-1] == "deregister o1"
    assert not source.closed, "the owner of a client closes it"
    await client.close()


async def test_a_lifespan_composes_with_the_apps_own(port: int) -> None:
    source, events = ScriptedSource(), []

    @asynccontextmanager
    async def own(app: Starlette) -> AsyncGenerator[dict[str, Any], None]:
        events.append("up")
        yield {"pool": 7}
        events.append(f"down, listed: {bool(source.listed)}")

    async with Client(source=source, cache=False) as client:
        lifespan = asgi.lifespan("orders", port, inner=own, client=client, id="o1")
        async with lifespan(Starlette()) as state:
            assert state == {"pool": 7}
            await until(source, "register o1")
        assert events == ["up", "down, listed: False"]


@pytest.mark.parametrize("raises", [True, False])
async def test_an_app_without_a_lifespan_gets_one(port: int, raises: bool) -> None:
    async def bare(scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        if raises:
            assert scope["type"] == "http"

    source = ScriptedSource()
    async with Client(source=source, cache=False) as client:
        server = LifespanServer(asgi.registered(bare, "orders", port, client=client, id="o1"))
        assert await server.send("startup") == "startup.complete"
        await until(source, "register o1")
        assert await server.send("shutdown") == "shutdown.complete"
        await server.ended()
        assert source.listed == {}


async def test_a_wrong_registration_fails_the_startup_with_a_message(port: int) -> None:
    async with Client(source=ScriptedSource(), cache=False) as client:
        server = LifespanServer(asgi.registered(Starlette(), "Not A Name", port, client=client))
        assert (await server.send("startup")).startswith("startup.failedservice: must be 1 to 63")
        with pytest.raises(Invalid):
            await server.ended()


async def test_an_app_whose_startup_fails_is_never_listed(port: int) -> None:
    @asynccontextmanager
    async def broken(app: Starlette) -> AsyncGenerator[None, None]:
        if source.calls == []:
            raise RuntimeError("no database")
        yield

    source = ScriptedSource()
    async with Client(source=source, cache=False) as client:
        server = LifespanServer(asgi.registered(Starlette(lifespan=broken), "orders", port, client=client))
        assert "no database" in await server.send("startup")
        with pytest.raises(RuntimeError, match="no database"):
            await server.ended()
        assert source.calls == []


async def test_a_server_stopped_before_its_startup_is_never_listed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class StoppedUvicorn:
        should_exit = True

        def handle_exit(self, number: int, frame: object) -> None: ...

    tried, try_lead = asyncio.Event(), WorkerGroup.try_lead

    def trying_to_lead(self: WorkerGroup) -> bool:
        tried.set()
        return try_lead(self)

    monkeypatch.setattr(WorkerGroup, "try_lead", trying_to_lead)
    before = signal.signal(signal.SIGTERM, StoppedUvicorn().handle_exit)
    try:
        source = ScriptedSource()
        client = Client(source=source, cache=False)
        server = LifespanServer(asgi.registered(Starlette(), "orders", port, client=client, id="o1"))
        assert await server.send("startup") == "startup.complete"
        await asyncio.wait_for(tried.wait(), 20)
        assert await server.send("shutdown") == "shutdown.complete"
        assert source.calls == []
    finally:
        signal.signal(signal.SIGTERM, before)
    await client.close()


async def test_a_server_starts_and_stops_while_the_registry_is_down(port: int) -> None:
    source = ScriptedSource()
    source.down = True
    async with Client(source=source, cache=False) as client:
        server = LifespanServer(asgi.registered(Starlette(), "orders", port, client=client, id="o1"))
        assert await server.send("startup") == "startup.complete"
        await until(source, "address")
        async with asyncio.timeout(20):
            assert await server.send("shutdown") == "shutdown.complete"
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
