"""Behaviour that only aiohttp has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from adsum.client.client import Client
from adsum.integrations.aiohttp import AiohttpTimedOut, session
from tests.client.fakes import ScriptedSource, full_update
from tests.integrations.callers import in_flight, options
from tests.integrations.conftest import instance
from tests.integrations.servers import Fleet, ServerBehaviour


@pytest.fixture
async def source() -> ScriptedSource:
    return ScriptedSource()


@pytest.fixture
async def client(source: ScriptedSource) -> AsyncIterator[Client]:
    async with Client(source=source, cache=False) as client:
        yield client


async def test_the_sessions_total_timeout_covers_all_tries(
    client: Client, source: ScriptedSource, fleet: Fleet
) -> None:
    servers = [fleet.add(name, ServerBehaviour.HANG) for name in "abc"]
    endpoints = [instance(server.name, server.port) for server in servers]
    source.emit(full_update(1, *endpoints))
    async with session(client, channel=options(), timeout=aiohttp.ClientTimeout(total=0.2)) as http:
        with pytest.raises(TimeoutError):
            await http.get("http://orders/")
    assert fleet.request_count == 1
    assert in_flight(client.channel("orders", options()), *endpoints) == 0


async def test_the_sessions_read_timeout_holds_for_each_try(
    client: Client, source: ScriptedSource, fleet: Fleet
) -> None:
    servers = [fleet.add(name, ServerBehaviour.HANG) for name in "abc"]
    source.emit(full_update(1, *(instance(server.name, server.port) for server in servers)))
    async with session(client, channel=options(), timeout=aiohttp.ClientTimeout(sock_read=0.1)) as http:
        with pytest.raises(AiohttpTimedOut, match="it may be tried 3 times at most"):
            await http.get("http://orders/")
    assert fleet.request_count == 3


async def test_a_websocket_is_in_flight_until_it_is_closed(client: Client, source: ScriptedSource) -> None:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(str(message.data))
        return socket

    app = web.Application()
    app.router.add_get("/talk", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    endpoint = instance("a", runner.addresses[0][1])
    source.emit(full_update(1, endpoint))
    channel = client.channel("orders", options())
    async with session(client, channel=options()) as http:
        async with http.ws_connect("http://orders/talk") as socket:
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"
            assert in_flight(channel, endpoint) == 1
        await asyncio.sleep(0)
        assert in_flight(channel, endpoint) == 0
    await runner.cleanup()
