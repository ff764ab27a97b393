"""The limits of the HTTP server: no peers can stop it. Tests use real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adsum.dialects.native.asgi import BODY_PIECE_BYTES, ApiReply
from adsum.ports import ABORT_IF_SILENT, ON_DISCONNECT, OPEN_CHUNKS, SEND_RESPONSE
from adsum.servers import http
from adsum.servers.http import sweeper
from adsum.servers.http.connection import is_peer_timeout
from adsum.servers.http.limits import MAX_HEAD_BYTES
from tests.servers.http.fake_fast_path import FakeFastPath
from tests.servers.http.serving import WAIT_TIMEOUT, HttpServing
from tests.support.registry_daemon import RunningDaemon
from tests.support.waiting import until

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def _large(scope: dict[str, object], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    """Sends more than any buffer holds."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(1_000):
        await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _hello(scope: dict[str, object], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def _single_write(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    if not scope["state"][SEND_RESPONSE](200, b"content-length: 6\r\n\r\nsingle"):
        await _hello(scope, receive, send)


async def _endless(scope: dict[str, object], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while (await receive())["type"] != "http.disconnect":
        pass


async def _read_body(scope: dict[str, object], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    while (await receive()).get("more_body"):
        pass


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(WAIT_TIMEOUT):
        with contextlib.suppress(ConnectionResetError):
            return await reader.read()
    return b""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), True),
        (OSError(errno.EHOSTUNREACH, "No route to host"), True),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), True),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), False),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), False),
        (None, False),
    ],
)
def test_every_error_with_which_the_system_gives_up_a_peer_is_a_peer_timeout(
    error: Exception | None, expected: bool
) -> None:
    assert is_peer_timeout(error) is expected


@pytest.mark.parametrize(
    "begin", [b"GET /", b"\r\nGET /", b"GET / HTTP/1.1\r\nx: ", b"POST / HTTP/1.1\r\ncontent-length: 999\r\n\r\n"]
)
async def test_a_request_that_never_ends_is_refused(
    serving: HttpServing, monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    monkeypatch.setattr(sweeper, "SWEEP_INTERVAL", 0.02)
    async with serving.server(_read_body, request_timeout=0.1) as (_, port):
        reader, writer = await serving.connect(port)
        writer.write(begin)
        drip = asyncio.create_task(_drip(writer))
        received = await _read_all(reader)
        drip.cancel()
        writer.close()
    assert received == b"" or received.startswith(b"HTTP/1.1 408 "), "late bytes may reset the connection"


async def _drip(writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():
        writer.write(b"x")
        await asyncio.sleep(0.02)


async def test_a_response_under_way_is_aborted_and_not_mixed_with_a_refusal(
    serving: HttpServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "SWEEP_INTERVAL", 0.02)
    async with serving.server(_endless, request_timeout=0.1) as (_, port):
        reader, writer = await serving.connect(port)
        writer.write(GET + b"GET / HTT")
        received = await _read_all(reader)
        writer.close()
    assert received == b"" or received.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    ("request_text", "tail"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\r\n\r\nsingle"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nok", b"\r\n\r\nsingle"),
        (b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n", b"content-length: 5\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"\r\n\r\nhello"),
    ],
)
async def test_a_response_in_a_single_write_is_used_where_http_allows_it(
    serving: HttpServing, request_text: bytes, tail: bytes
) -> None:
    async with serving.server(_single_write, idle_timeout=1) as (_, port):
        reader, writer = await serving.connect(port)
        writer.write(request_text * 2)
        received = await _read_all(reader)
        writer.close()
    answers = received.split(b"HTTP/1.1 200 OK")[1:]
    assert len(answers) == (1 if b"close" in request_text else 2)
    assert all(answer.endswith(tail) and b"date: " in answer for answer in answers)


async def test_chunks_that_are_written_at_once_keep_their_order_and_end_with_the_response(serving: HttpServing) -> None:
    written: list[bool] = []

    async def app(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        assert scope["state"][OPEN_CHUNKS]() is None, "too early"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one,", "more_body": True})
        send_chunk = scope["state"][OPEN_CHUNKS]()
        written.append(send_chunk(b"two,"))
        send_chunk.close()
        await send({"type": "http.response.body", "body": b"three"})
        written.append(send_chunk(b"too late"))
        assert scope["state"][OPEN_CHUNKS]() is None, "the response has ended"

    async with serving.server(app, idle_timeout=1) as (_, port):
        reader, writer = await serving.connect(port)
        writer.write(GET)
        received = await _read_all(reader)
        writer.close()
    assert written == [True, False]
    assert received.endswith(b"4\r\none,\r\n4\r\ntwo,\r\n5\r\nthree\r\n0\r\n\r\n")


async def test_no_chunk_is_written_while_the_client_does_not_read_or_after_it_left(serving: HttpServing) -> None:
    written: list[bool] = []
    left = asyncio.Event()

    async def app(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        send_chunk = scope["state"][OPEN_CHUNKS]()
        assert scope["state"][ON_DISCONNECT](left.set)
        while send_chunk(b"x" * 1_000_000):
            written.append(True)
        written.append(False)
        await left.wait()
        written.append(send_chunk(b"x"))
        assert not scope["state"][ON_DISCONNECT](lambda: None), "it has left"

    async with serving.server(app, idle_timeout=60) as (server, port):
        _, writer = await serving.connect(port)
        writer.write(GET)
        await until(lambda: False in written)
        writer.transport.abort()
        async with asyncio.timeout(WAIT_TIMEOUT):
            await left.wait()
        await until(lambda: server.connections == 0)
    assert written.count(True) < 100
    assert written[-2:] == [False, False]


async def test_a_disconnect_is_not_reported_to_a_response_that_no_longer_waits_for_it(serving: HttpServing) -> None:
    reported: list[str] = []

    async def app(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        on_disconnect = scope["state"][ON_DISCONNECT]
        assert on_disconnect(lambda: reported.append("first"))
        assert on_disconnect(None)
        await _hello(scope, receive, send)

    async with serving.server(app, idle_timeout=60) as (server, port):
        reader, writer = await serving.connect(port)
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await until(lambda: server.connections == 0)
    assert reported == []


async def test_an_idle_connection_is_closed(serving: HttpServing) -> None:
    async with serving.server(_hello, idle_timeout=0.1) as (server, port):
        reader, writer = await serving.connect(port)
        assert await _read_all(reader) == b""
        writer.close()
        await until(lambda: server.connections == 0)


@pytest.mark.parametrize("begin", [b"GET /", b"POST / HTTP/1.1\r\ncontent-length: 999\r\n\r\nx"])
async def test_a_stop_does_not_wait_for_incomplete_requests(
    serving: HttpServing, caplog: pytest.LogCaptureFixture, begin: bytes
) -> None:
    async with serving.server(_read_body, stop_timeout=600) as (server, port):
        reader, writer = await serving.connect(port)
        writer.write(begin)
        await until(lambda: server.connections == 1)
        await asyncio.sleep(0.1)  # The server has read it by now; otherwise it closes the connection as idle.
        async with asyncio.timeout(WAIT_TIMEOUT):
            await server.stop()
        received = await _read_all(reader)
        writer.close()
    assert received == b"" or received.startswith(b"HTTP/1.1 503 ")
    assert not caplog.records


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
async def test_a_head_over_its_limit_is_refused(serving: HttpServing, end: bytes) -> None:
    async with serving.server(_hello) as (_, port):
        reader, writer = await serving.connect(port)
        writer.write(b"GET / HTTP/1.1\r\nx: " + b"y" * MAX_HEAD_BYTES + end)
        received = await _read_all(reader)
        writer.close()
    assert received.startswith(b"HTTP/1.1 431 ")


async def test_a_peer_that_never_reads_is_disconnected(serving: HttpServing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "SWEEP_INTERVAL", 0.02)
    async with serving.server(_large, stall_timeout=0.1) as (server, port):
        idle = await serving.unread_socket(port, GET)
        await until(lambda: server.connections == 1)
        await until(lambda: server.connections == 0)
        idle.close()


async def test_a_peer_that_reads_slowly_is_not_disconnected(
    serving: HttpServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "SWEEP_INTERVAL", 0.02)
    async with serving.server(_large, stall_timeout=0.3) as (_, port):
        reader, writer = await serving.connect(port)
        writer.write(GET)
        total = 0
        async with asyncio.timeout(WAIT_TIMEOUT):
            for _ in range(20):
                total += len(await reader.readexactly(1_000_000))
                await asyncio.sleep(0.05)
        writer.close()
    assert total == 20_000_000


async def test_a_page_is_not_copied_for_each_peer_that_does_not_read_it(serving: HttpServing) -> None:
    page, readers = ApiReply(200, b"x" * 30_000_000), 20

    async def app(scope: Any, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        await page.respond(scope, receive, send)

    async with serving.server(app) as (server, port):
        idle = [await serving.unread_socket(port, GET, buffer=4_096) for _ in range(readers)]
        await until(lambda: server.stalled_connections == readers)
        assert server.unsent_bytes() <= readers * 3 * BODY_PIECE_BYTES
        reader, writer = await serving.connect(port)
        writer.write(GET)
        async with asyncio.timeout(WAIT_TIMEOUT):
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"content-length: 30000000\r\n" in head
            assert await reader.readexactly(len(page.body)) == page.body
        writer.close()
        for peer in idle:
            peer.close()


async def test_a_connection_past_the_limit_is_refused_and_closed(serving: HttpServing) -> None:
    shed: list[str] = []
    async with serving.server(_hello, max_connections=2, on_shed=shed.append) as (server, port):
        held = []
        for _ in range(2):
            reader, writer = await serving.connect(port)
            held.append((reader, writer))
            writer.write(GET)
            await reader.readuntil(b"\r\n\r\nhello")
        if serving.certificates is not None:
            with pytest.raises(OSError):  # the connection is reset or closed, before anything is sent
                await serving.connect(port)
        else:
            reader, writer = await serving.connect(port)
            received = await _read_all(reader)
            writer.close()
            assert received.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 5\r\n" in received
            assert json.loads(received.partition(b"\r\n\r\n")[2])["detail"] == "too many connections"
        assert shed == ["503" if serving.certificates is None else "tls_crowded"]
        held[0][1].close()
        await until(lambda: server.connections == 1)
        held[1][1].write(GET)
        async with asyncio.timeout(WAIT_TIMEOUT):
            assert (await held[1][0].readline()).startswith(b"HTTP/1.1 200 ")
        for _, writer in held:
            writer.close()


async def test_an_address_in_use_is_reported_in_one_sentence() -> None:
    (bound,) = http.listen("127.0.0.1:0")
    bound.listen()
    port = bound.getsockname()[1]
    with pytest.raises(http.ListenError, match=f"can't listen on 127.0.0.1:{port}: Address already in use"):
        http.listen(f"127.0.0.1:{port}")
    bound.close()


@pytest.mark.parametrize("address", ["", "23786", "localhost", "127.0.0.1:http", "127.0.0.1:65536", "127.0.0.1:-1"])
def test_an_address_must_be_host_and_port(address: str) -> None:
    with pytest.raises(http.ListenError, match="HOST:PORT"):
        http.listen(address)


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_an_ipv6_address_is_written_in_brackets() -> None:
    try:
        sockets = http.listen("[::1]:0")
    except http.ListenError:
        pytest.skip("this machine has no IPv6 loopback")
    assert http.socket_url(sockets[0]).startswith("http://[::1]:")
    for sock in sockets:
        sock.close()


async def _exchange(daemon: RunningDaemon, data: bytes, *, hang_up: bool = False) -> bytes:
    host, port = daemon.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        with contextlib.suppress(OSError):
            writer.write(data)
            await writer.drain()
            if hang_up:
                writer.write_eof()
        return await _read_all(reader)
    finally:
        writer.close()


async def _is_alive(daemon: RunningDaemon) -> bool:
    received = await _exchange(daemon, b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    return received.startswith(b"HTTP/1.1 200 ")


FRAGMENTS = st.sampled_from(
    [
        b"GET /api/v1/services/orders HTTP/1.1\r\n",
        b"PUT /api/v1/services/orders/instances/o1 HTTP/1.1\r\n",
        b"GET /api/v1/watch HTTP/1.1\r\nlast-event-id: \xff:1\r\n",
        b"host: localhost\r\n",
        b"content-length: 5\r\n",
        b"content-length: -1\r\n",
        b"content-type: application/json\r\n",
        b"transfer-encoding: chunked\r\n",
        b"expect: 100-continue\r\n",
        b"connection: upgrade\r\nupgrade: websocket\r\n",
        b"\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b'{"port": 1}',
        b"CONNECT x:1 HTTP/1.1\r\n\r\n",
        b"GET /%zz?%ff=%00 HTTP/1.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00",
    ]
)


@given(st.lists(st.one_of(FRAGMENTS, st.binary(max_size=40)), max_size=8).map(b"".join))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_stop_the_daemon(daemon: RunningDaemon, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    async def exchange() -> None:
        received = await _exchange(daemon, data, hang_up=True)
        assert received == b"" or received.startswith(b"HTTP/1.1 ")
        assert b"500 Internal" not in received
        assert await _is_alive(daemon)

    asyncio.run(exchange())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_refused_requests_are_counted_by_status(daemon: RunningDaemon) -> None:
    for data in (b"\x16\x03\x01", b"GET / HTTP/1.1\r\nhost: evil.example\r\n\r\n", b"GET /" + b"y" * MAX_HEAD_BYTES):
        await _exchange(daemon, data + b"\r\n\r\n")
    metrics = await _exchange(daemon, b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    for status in (400, 421, 431):
        assert b'adsum_connections_shed_total{status="%d"} 1.0' % status in metrics


async def test_two_thousand_idle_connections_do_not_disturb_others(daemon: RunningDaemon) -> None:
    host, port = daemon.url.removeprefix("http://").split(":")
    held = []
    try:
        for _ in range(20):
            held += await asyncio.gather(*(asyncio.open_connection(host, int(port)) for _ in range(100)))
        assert await _is_alive(daemon)
    finally:
        for _, writer in held:
            writer.transport.abort()


async def test_a_peer_that_disconnects_before_its_response_leaves_no_trace(
    daemon: RunningDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    for path in (b"/metrics", b"/docs", b"/api/v1/services/x?after=0&wait=9", b"/api/v1/watch"):
        await _exchange(daemon, b"GET %b HTTP/1.1\r\nhost: localhost\r\n\r\n" % path, hang_up=True)
    assert await _is_alive(daemon)
    await until(lambda: daemon.registry.watches.count == 0)
    assert not caplog.records


@pytest.mark.parametrize("waiting", [b"/api/v1/watch", b"/api/v1/services/x?after=0&wait=300"])
async def test_a_disconnected_peer_with_pipelined_requests_is_forgotten(
    daemon: RunningDaemon, caplog: pytest.LogCaptureFixture, waiting: bytes
) -> None:
    """uvicorn itself reports the end of a connection to its last request only."""
    host, port = daemon.url.removeprefix("http://").split(":")
    held = []
    for _ in range(5):
        reader, writer = await asyncio.open_connection(host, int(port))
        for path in (waiting, b"/healthz", b"/healthz"):
            writer.write(b"GET %b HTTP/1.1\r\nhost: localhost\r\n\r\n" % path)
        held.append((reader, writer))
    await until(lambda: daemon.registry.watches.count == 5)
    for _, writer in held:
        writer.transport.abort()
    await until(lambda: daemon.registry.watches.count == 0)
    assert await _is_alive(daemon)
    assert not caplog.records


async def test_a_stream_is_aborted_when_an_unreadable_request_follows_it(daemon: RunningDaemon) -> None:
    watching = b"GET /api/v1/watch HTTP/1.1\r\nhost: localhost\r\n\r\n"
    body = (
        b"PUT /api/v1/services/a/instances/b HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nno chunk"
    )
    received = await _exchange(daemon, watching + body)
    assert received.count(b"HTTP/1.1 ") <= 1
    assert b" 400 " not in received
    await until(lambda: daemon.registry.watches.count == 0)


async def test_a_request_whose_response_takes_long_is_not_closed_as_idle(serving: HttpServing) -> None:
    """A response of the fast path to an earlier request in the same data starts the idle timer."""

    async def late(scope: dict[str, object], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        await asyncio.sleep(0.3)
        await _hello(scope, receive, send)

    async with serving.server(late, FakeFastPath(), idle_timeout=0.1) as (_, port):
        reader, writer = await serving.connect(port)
        writer.write(b"GET /now HTTP/1.1\r\nhost: x\r\n\r\n" + GET)
        received = await _read_all(reader)
        writer.close()
    assert received.endswith(b"hello")


async def test_watches_of_disconnected_peers_are_removed(daemon: RunningDaemon) -> None:
    host, port = daemon.url.removeprefix("http://").split(":")
    held = []
    for _ in range(50):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /api/v1/watch HTTP/1.1\r\nhost: localhost\r\n\r\n")
        held.append((reader, writer))
    await until(lambda: daemon.registry.watches.count == 50)
    for _, writer in held:
        writer.transport.abort()
    await until(lambda: daemon.registry.watches.count == 0)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the platform has no TCP_USER_TIMEOUT")
@pytest.mark.parametrize("reads", [False, True])
async def test_a_connection_whose_peer_acknowledges_nothing_ends_if_requested(
    serving: HttpServing, reads: bool
) -> None:
    ended = asyncio.get_running_loop().create_future()

    async def app(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        was_silent = scope["state"][ABORT_IF_SILENT](0.3)
        await _large(scope, receive, send)
        if not reads:
            while (await receive())["type"] != "http.disconnect":
                pass
        ended.set_result(was_silent())

    async with serving.server(app) as (_, port):
        reader, writer = await serving.connect(port)
        writer.write(GET)
        if reads:
            while not ended.done():
                await reader.read(1 << 20)
        else:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
        assert await asyncio.wait_for(ended, WAIT_TIMEOUT) is not reads
        writer.transport.abort()


async def test_a_body_over_its_limit_is_refused_while_the_rest_is_discarded(daemon: RunningDaemon) -> None:
    body = b"[" * 200_000
    head = (
        b"PUT /api/v1/services/orders/instances/o1 HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"connection: close\r\n"
    )
    declared = await _exchange(daemon, head + b"content-length: %d\r\n\r\n" % len(body) + body)
    assert declared == b"" or declared.startswith(b"HTTP/1.1 413 ")
    chunked = await _exchange(
        daemon, head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    )
    assert chunked == b"" or chunked.startswith(b"HTTP/1.1 413 ")
    assert await _is_alive(daemon)


async def test_pipelined_requests_are_answered_in_order(daemon: RunningDaemon) -> None:
    registering = (
        b"PUT /api/v1/services/orders/instances/o1 HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b'content-length: 11\r\n\r\n{"port": 1}'
    )
    reading = b"GET /api/v1/services/orders HTTP/1.1\r\nhost: localhost\r\n\r\n"
    listing = b"GET /api/v1/services HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    received = await _exchange(daemon, registering + reading * 3 + listing)
    bodies = [part.partition(b"\r\n\r\n")[2] for part in received.split(b"HTTP/1.1 ")[1:]]
    assert [b'"ttl"' in body for body in bodies] == [True, False, False, False, False]
    assert bodies[1] == bodies[2] == bodies[3]
    assert json.loads(bodies[1])["instances"][0]["id"] == "o1"
    assert json.loads(bodies[4])["services"][0]["name"] == "orders"


async def test_http_1_0_and_closing_clients_get_a_response_that_closes(daemon: RunningDaemon) -> None:
    for head in (b"HTTP/1.0\r\n\r\n", b"HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"):
        received = await _exchange(daemon, b"GET /api/v1/services/orders " + head)
        assert received.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close\r\n" in received


async def test_every_response_states_the_protocol_version(daemon: RunningDaemon) -> None:
    host = b" HTTP/1.1\r\nhost: localhost\r\n"
    for request, status in (
        (b"GET /api/v1/services/orders" + host, b"200"),
        (b"GET /api/v1/status" + host, b"200"),
        (b"GET /api/v2/services" + host, b"404"),
        (b"GET /api/v1/services HTTP/1.1\r\nhost: elsewhere.example\r\n", b"421"),
    ):
        received = await _exchange(daemon, request + b"connection: close\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 " + status)
        assert received.lower().count(b"\r\nadsum-protocol: 1.0\r\n") == 1
