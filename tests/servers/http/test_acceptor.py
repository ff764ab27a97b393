"""The acceptor answers every connection past the limit, however many arrive together."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket

import pytest

from adsum.servers import http
from adsum.servers.http import HttpLimits, HttpServer
from adsum.servers.http import acceptor as acceptor_module
from adsum.servers.http.refusals import Refusals

GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


async def _app(scope: object, receive: object, send: object) -> None:
    """Never responds."""
    await asyncio.Event().wait()


async def test_every_connection_of_a_burst_past_the_limit_is_answered() -> None:
    shed: list[str] = []
    sockets = http.listen("127.0.0.1:0")
    server = HttpServer(_app, sockets, HttpLimits(max_connections=3), on_shed=shed.append)
    await server.start()
    peers = []
    for _ in range(40):  # All are in the system's queue before the event loop accepts one.
        peer = socket.create_connection(sockets[0].getsockname())
        peer.sendall(GET)
        peer.setblocking(False)
        peers.append(peer)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(30.0):
        answers = await asyncio.gather(*(loop.sock_recv(peer, 100) for peer in peers[3:]))
        assert {answer[:13] for answer in answers} == {b"HTTP/1.1 503 "}
        while server.connections < 3:  # noqa: ASYNC110 - an accepted connection gets its protocol soon
            await asyncio.sleep(0.01)
    assert shed == ["503"] * 37
    for peer in peers:
        peer.close()
    await server.stop()


class _ScarceSocket(socket.socket):
    """A listening socket whose first `failures` calls of `accept` lack a file descriptor."""

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
    transports: list[asyncio.Transport] = []

    class _RecordingProtocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            transports.append(transport)

    with _ScarceSocket(socket.AF_INET) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.failures = 3
        acceptor = acceptor_module.Acceptor(
            listening, acceptor_module.PlainConnector(_RecordingProtocol), lambda: None, Refusals()
        )
        with caplog.at_level(logging.ERROR):
            acceptor.start(10)
            with socket.create_connection(listening.getsockname()):
                async with asyncio.timeout(30.0):
                    while not transports:  # noqa: ASYNC110 - the acceptor tries again after each failure
                        await asyncio.sleep(0.01)
        assert [record.getMessage() for record in caplog.records] == [
            "can't accept connections now, so they wait: Too many open files"
        ]
        acceptor.close()
        await acceptor.wait_closed()
        transports[0].close()


async def test_a_peer_that_sends_its_request_after_the_refusal_reads_the_refusal() -> None:
    sockets = http.listen("127.0.0.1:0")
    server = HttpServer(_app, sockets, HttpLimits(max_connections=1))
    await server.start()
    first = socket.create_connection(sockets[0].getsockname())
    while server.connections < 1:  # noqa: ASYNC110 - an accepted connection gets its protocol soon
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection(*sockets[0].getsockname())
    async with asyncio.timeout(30.0):
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(3):  # A closed socket would reset the connection at the first, and the second would fail.
            writer.write(GET)
            await writer.drain()
            await asyncio.sleep(0)
        assert b"too many connections" in await reader.read()
    writer.close()
    first.close()
    await server.stop()
