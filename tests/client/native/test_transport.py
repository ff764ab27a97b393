"""The connections that requests use, on a real server that counts them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from adsum.client.errors import NodeUnreachable
from adsum.client.native.transport import Transport


class CountingServer:
    """Answers every request with the number of its connection, and keeps the connection open."""

    def __init__(self) -> None:
        self.connections = 0
        self.url = ""
        self.protocol = b"1.0"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        body = b"%d" % self.connections
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                head = b"HTTP/1.1 200 OK\r\nadsum-protocol: %b\r\ncontent-length: %d\r\n\r\n"
                writer.write(head % (self.protocol, len(body)) + body)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[CountingServer]:
    counting = CountingServer()
    async with await asyncio.start_server(counting.serve, "127.0.0.1", 0) as listening:
        counting.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield counting


async def _requested(transport: Transport, server: CountingServer) -> bytes:
    return (await transport.request("GET", server.url, timeout=20.0)).body


async def _streamed(transport: Transport, server: CountingServer) -> bytes:
    async with transport.stream(server.url, idle=20.0, params=(), headers={}) as (_, chunks):
        return b"".join([chunk async for chunk in chunks])


async def test_requests_share_a_connection_and_streams_never_do(server: CountingServer) -> None:
    transport = Transport(None)
    assert [await _requested(transport, server) for _ in range(2)] == [b"1", b"1"]
    assert [await _streamed(transport, server) for _ in range(2)] == [b"2", b"3"]
    assert await _requested(transport, server) == b"1"
    await transport.close()


async def test_a_fresh_request_uses_a_new_connection(server: CountingServer) -> None:
    transport = Transport(None)
    assert await _requested(transport, server) == b"1"
    assert (await transport.request("GET", server.url, timeout=20.0, fresh=True)).body == b"2"
    assert await _requested(transport, server) == b"1"
    await transport.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_the_host_header_is_that_of_the_url(address: str) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    transport = Transport(None)
    async with await asyncio.start_server(serve, address, 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        authority = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        await transport.request("GET", f"http://user:secret@{authority}/", timeout=20.0)
    await transport.close()
    assert [line for line in heads[0].splitlines() if line.lower().startswith(b"host:")] == [
        f"Host: {authority}".encode()
    ]


async def test_closed_idle_connections_are_not_used_again(server: CountingServer) -> None:
    transport = Transport(None)
    assert await _requested(transport, server) == b"1"
    await transport.close_idle()
    assert await _requested(transport, server) == b"2"
    await transport.close()


async def test_a_registry_with_a_later_major_protocol_is_an_error_that_says_to_upgrade(server: CountingServer) -> None:
    transport = Transport(None)
    server.protocol = b"2.0"
    for send in (_requested, _streamed):
        with pytest.raises(NodeUnreachable, match=r"it speaks version '2.0' .* here speaks 1.0: upgrade"):
            await send(transport, server)
    await transport.close()


@pytest.mark.parametrize("protocol", [b"1.9", b"1", b"0.3", b"x", b"", b"9" * 5_000])
async def test_a_registry_with_this_major_protocol_or_none_is_accepted(server: CountingServer, protocol: bytes) -> None:
    transport = Transport(None)
    server.protocol = protocol
    assert await _requested(transport, server) == b"1"
    await transport.close()
