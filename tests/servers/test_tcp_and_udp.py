"""The TCP and UDP servers: addresses, limits, and handlers that fail."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from adsum.servers.tcp import TcpListenError, TcpServer
from adsum.servers.udp import UdpListenError, UdpServer

WAIT_TIMEOUT = 20.0


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        if line == b"fail\n":
            raise ValueError("no")
        writer.write(line)


async def _connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def _close(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.close()
        await writer.wait_closed()


async def test_a_connection_past_the_limit_is_closed_and_one_that_ends_makes_room() -> None:
    server = TcpServer(_echo, max_connections=1)
    address = await server.start("127.0.0.1:0")
    async with asyncio.timeout(WAIT_TIMEOUT):
        reader, writer = await _connect(address)
        writer.write(b"one\n")
        assert await reader.readline() == b"one\n"
        refused_reader, refused = await _connect(address)
        assert await refused_reader.read() == b""
        writer.write_eof()
        assert await reader.read() == b""
        await _close(writer, refused)
        line = b""
        while line != b"two\n":  # The server may not have noticed the end of the first connection yet.
            reader, writer = await _connect(address)
            writer.write(b"two\n")
            line = await reader.readline()
            await _close(writer)
        await server.stop()


async def test_a_handler_that_fails_ends_its_connection_only_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    server = TcpServer(_echo, max_connections=10)
    address = await server.start("127.0.0.1:0")
    async with asyncio.timeout(WAIT_TIMEOUT):
        (reader, writer), (failing_reader, failing) = await _connect(address), await _connect(address)
        with caplog.at_level(logging.ERROR, "adsum.tcp"):
            failing.write(b"fail\n")
            assert await failing_reader.read() == b""
        assert "a connection of ('127.0.0.1'" in caplog.text
        writer.write(b"still here\n")
        assert await reader.readline() == b"still here\n"
        await server.stop()
        assert await reader.read() == b"", "open connections end with the server"
        await _close(writer, failing)
        await server.stop()


async def test_a_taken_address_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TcpListenError, match=f"can't listen on 127.0.0.1:{port}: .*in use"):
            await TcpServer(_echo, 1).start(f"127.0.0.1:{port}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with pytest.raises(UdpListenError, match=f"can't listen on 127.0.0.1:{port}: .*in use"):
            await UdpServer(asyncio.DatagramProtocol).start(f"127.0.0.1:{port}")


async def test_a_udp_server_frees_its_port_when_it_stops() -> None:
    server = UdpServer(asyncio.DatagramProtocol)
    address = await server.start("127.0.0.1:0")
    await server.stop()
    await server.stop()
    again = UdpServer(asyncio.DatagramProtocol)
    while True:
        try:
            assert await again.start(address) == address
        except UdpListenError:  # The loop closes the socket in one of its next turns.
            await asyncio.sleep(0)
            continue
        break
    await again.stop()
