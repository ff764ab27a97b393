"""Connections are accepted or turned away with a word, however many come at once."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket

import pytest

from adsum.servers import http
from adsum.servers.http import HttpLimits, HttpServer
from adsum.servers.http import acceptor as acceptor_module

GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


async def _app(scope: object, receive: object, send: object) -> None:
    """Every connection that is let in stays without an answer."""
    await asyncio.Event().wait()


async def test_a_rush_beyond_the_bound_is_answered_although_all_have_asked_already() -> None:
    shed: list[str] = []
    sockets = http.listen("127.0.0.1:0")
    server = HttpServer(_app, sockets, HttpLimits(max_connections=3), on_shed=shed.append)
    await server.start()
    peers = []
    for _ in range(40):  # All of them are in the system's queue before the loop turns to any.
        peer = socket.create_connection(sockets[0].getsockname())
        peer.sendall(GET)
        peer.setblocking(False)
        peers.append(peer)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(30.0):
        answers = await asyncio.gather(*(loop.sock_recv(peer, 100) for peer in peers[3:]))
        assert {answer[:13] for answer in answers} == {b"HTTP/1.1 503 "}
        while server.connections < 3:  # noqa: ASYNC110 - what is accepted gets its protocol soon
            await asyncio.sleep(0.01)
    assert shed == ["503"] * 37
    for peer in peers:
        peer.close()
    await server.stop()


class _Scarce(socket.socket):
    """A listening socket for which the system has no descriptor at first."""

    failures = 0

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_connections_wait_while_the_system_has_no_descriptor(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(acceptor_module, "ACCEPT_RETRY_DELAY", 0.01)
    met: list[asyncio.Transport] = []

    class _Meeting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            met.append(transport)

    with _Scarce(socket.AF_INET) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.failures = 3
        acceptor = acceptor_module.Acceptor(listening, _Meeting, lambda _: None)
        with caplog.at_level(logging.ERROR):
            acceptor.start(10)
            with socket.create_connection(listening.getsockname()):
                async with asyncio.timeout(30.0):
                    while not met:  # noqa: ASYNC110 - after three pauses
                        await asyncio.sleep(0.01)
        assert [each.getMessage() for each in caplog.records] == [
            "connections wait to be accepted: Too many open files"
        ]
        acceptor.close()
        await acceptor.wait_closed()
        met[0].close()


async def test_who_asks_only_after_it_was_turned_away_reads_why() -> None:
    sockets = http.listen("127.0.0.1:0")
    server = HttpServer(_app, sockets, HttpLimits(max_connections=1))
    await server.start()
    first = socket.create_connection(sockets[0].getsockname())
    while server.connections < 1:  # noqa: ASYNC110 - what is accepted gets its protocol soon
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection(*sockets[0].getsockname())
    async with asyncio.timeout(30.0):
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(3):  # A closed socket would answer the first with a reset, which the second meets.
            writer.write(GET)
            await writer.drain()
            await asyncio.sleep(0)
        assert b"too many connections" in await reader.read()
    writer.close()
    first.close()
    await server.stop()
