"""TLS of the HTTP server: certificates in both directions, failed handshakes, and what half-open ones can take."""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import socket
import ssl
import struct
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trustme
from cryptography import x509

from adsum.ports import CLIENT_CERTIFICATE, OPEN_CHUNKS
from adsum.servers import http
from adsum.servers.http import HttpServer, handshake_alerts, sweeper, tls_connector
from adsum.servers.http.tls_connector import MIN_HANDSHAKES, TLS_CROWDED, TLS_FAILED, TLS_TIMEOUT
from tests.servers.http.fake_fast_path import FakeFastPath
from tests.servers.http.serving import WAIT_TIMEOUT, HttpServing
from tests.support.server_certificates import FakeServerCertificates, der, issue_client
from tests.support.waiting import until

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
HELLO = b"\r\n\r\nhello"


async def _hello(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


def _client_hello() -> bytes:
    """Returns the first bytes of a client."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


async def _exchange(port: int, context: ssl.SSLContext, request: bytes = GET) -> tuple[bytes, int]:
    """Returns the answer to a request on a new connection, and the serial number of the server's certificate."""
    async with asyncio.timeout(WAIT_TIMEOUT):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        try:
            writer.write(request)
            answer = await reader.readuntil(HELLO)
            certificate = writer.get_extra_info("ssl_object").getpeercert(True)
        finally:
            writer.transport.abort()
    return answer, x509.load_der_x509_certificate(certificate).serial_number


async def _failure(port: int, context: ssl.SSLContext) -> str:
    """Returns the error of a client whose connection is refused."""
    with pytest.raises(OSError) as caught:
        await _exchange(port, context)
    return str(caught.value).lower()


async def _end(port: int, *pieces: bytes) -> bytes:
    """Returns what a peer reads that sends these bytes, one piece after the other, and then nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    async with asyncio.timeout(WAIT_TIMEOUT):
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            received = await reader.read()
    writer.transport.abort()
    return received


@contextlib.asynccontextmanager
async def _serving(tls: HttpServing, **limits: Any) -> AsyncIterator[tuple[HttpServer, int, list[str]]]:
    """Yields a server, its port, and the words for the connections that it shed."""
    shed: list[str] = []
    async with tls.server(_hello, on_shed=shed.append, **limits) as (server, port):
        yield server, port, shed


def _certificates(tls: HttpServing) -> FakeServerCertificates:
    assert tls.certificates is not None
    return tls.certificates


async def test_the_application_and_the_fast_path_get_the_verified_client_certificate(tls: HttpServing) -> None:
    seen: list[bytes | None] = []
    certificates = _certificates(tls)
    client = certificates.issue_client()

    async def app(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        assert scope["scheme"] == "https"
        seen.append(scope["state"].get(CLIENT_CERTIFICATE))
        await _hello(scope, receive, send)

    async with tls.server(app, fast_path := FakeFastPath()) as (_, port):
        for context in (certificates.client_context(client), certificates.client_context()):
            await _exchange(port, context)
            await _exchange(port, context, GET.replace(b"/ ", b"/now ", 1))
    assert seen == [der(client), None]
    assert [request.certificate for request in fast_path.requests] == [der(client), b""]


async def test_a_client_certificate_that_cannot_be_verified_is_refused_with_its_reason(
    tls: HttpServing, caplog: pytest.LogCaptureFixture
) -> None:
    certificates = _certificates(tls)
    async with _serving(tls) as (server, port, shed):
        unknown = certificates.client_context(issue_client(trustme.CA()))
        expired = certificates.client_context(certificates.issue_expired_client())
        assert "unknown ca" in await _failure(port, unknown)
        assert "certificate expired" in await _failure(port, expired)
        unknown.maximum_version = expired.maximum_version = ssl.TLSVersion.TLSv1_2
        assert "unknown ca" in await _failure(port, unknown)
        assert "certificate expired" in await _failure(port, expired)
        await _exchange(port, certificates.client_context())
        await until(lambda: len(shed) == 4 and server.handshakes == 0)
        assert shed == [TLS_FAILED] * 4
    assert not caplog.records


async def test_versions_before_1_2_are_refused(tls: HttpServing) -> None:
    context = _certificates(tls).client_context()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with _serving(tls) as (_, port, shed):
        assert "version" in await _failure(port, context)
        await until(lambda: shed == [TLS_FAILED])


async def test_a_peer_of_a_failed_handshake_that_stays_is_disconnected(
    tls: HttpServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake_alerts, "ALERT_TIMEOUT", 0.1)
    async with _serving(tls) as (server, port, shed):
        peer = socket.create_connection(("127.0.0.1", port))
        peer.sendall(b"\x16\xff\xff\x00\x05wrong")
        await until(lambda: shed == [TLS_FAILED])
        assert server.handshakes == 0
        peer.close()


@pytest.mark.parametrize(
    "request_text", [GET, b"POST / HTTP/1.1\r\nhost: x\r\n\r\n" + b"x" * 100_000, b"\x00", b"\x80\x2e"]
)
async def test_a_client_without_tls_is_answered_in_plain_text(tls: HttpServing, request_text: bytes) -> None:
    async with _serving(tls) as (server, port, shed):
        answer = await _end(port, request_text)
        await until(lambda: server.handshakes == 0)
        assert shed == ["400"]
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/problem+json\r\n" in answer
    assert b"use a URL that begins with https://" in answer


async def test_a_tls_client_of_a_plain_port_gets_an_error_that_its_library_understands() -> None:
    shed: list[str] = []
    plain = HttpServing()
    async with plain.server(_hello, on_shed=shed.append) as (_, port):
        assert (await _end(port, _client_hello())).startswith(b"HTTP/1.1 400 ")
        assert "wrong version number" in await _failure(port, FakeServerCertificates().client_context())
    assert shed == ["400", "400"]


@pytest.mark.parametrize("pieces", [[], [b"\x16"], [b"\x16\x03\x01\x02"], "hello", "slow hello"])
async def test_a_handshake_that_does_not_end_is_closed_after_its_timeout(
    tls: HttpServing, monkeypatch: pytest.MonkeyPatch, pieces: list[bytes] | str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tls_connector, "HANDSHAKE_TIMEOUT", 0.2)
    if isinstance(pieces, str):
        hello = _client_hello()
        pieces = [hello] if pieces == "hello" else [hello[i : i + 1] for i in range(len(hello) - 1)]
    async with _serving(tls) as (server, port, shed):
        await _end(port, *pieces)
        await until(lambda: server.handshakes == 0)
        assert shed == [TLS_TIMEOUT]
        await _exchange(port, _certificates(tls).client_context())
    assert not caplog.records


async def test_a_peer_that_leaves_without_a_byte_is_not_counted(tls: HttpServing) -> None:
    async with _serving(tls) as (server, port, shed):
        socket.create_connection(("127.0.0.1", port)).close()
        with socket.create_connection(("127.0.0.1", port)) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await _exchange(port, _certificates(tls).client_context())
        await until(lambda: server.handshakes == 0)
        assert set(shed) <= {TLS_FAILED}, "only the reset may count"


async def test_every_cut_of_a_handshake_ends_cleanly(tls: HttpServing, caplog: pytest.LogCaptureFixture) -> None:
    hello = _client_hello()
    async with _serving(tls) as (server, port, shed):
        cuts = range(1, len(hello), 7)
        for cut in cuts:
            for reset in (False, True):
                peer = socket.create_connection(("127.0.0.1", port))
                peer.sendall(hello[:cut])
                await asyncio.sleep(0)
                if reset:
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.close()
        await until(lambda: server.handshakes == 0 and len(shed) == 2 * len(cuts))
        assert set(shed) == {TLS_FAILED}
        assert server.connections == 0
    assert not caplog.records


async def test_no_bytes_in_a_handshake_stop_the_server(
    tls: HttpServing, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_connector, "HANDSHAKE_TIMEOUT", 0.5)
    chance, hello = random.Random(13), _client_hello()
    inputs = []
    for _ in range(300):
        data = bytearray(hello)
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(1, len(data))] = chance.randrange(256)
        inputs.append(bytes(data) + chance.randbytes(chance.choice([0, 0, 5, 3_000])))
    inputs += [b"\x16" + chance.randbytes(chance.randint(0, 300)) for _ in range(100)]
    async with _serving(tls) as (server, port, _):
        for start in range(0, len(inputs), 40):
            await asyncio.gather(*(_end(port, data) for data in inputs[start : start + 40]))
        await until(lambda: server.handshakes == 0)
        await _exchange(port, _certificates(tls).client_context())
    assert not caplog.records


async def test_a_replaced_certificate_counts_for_new_connections_and_open_ones_go_on(tls: HttpServing) -> None:
    certificates = _certificates(tls)
    go_on = asyncio.Event()

    async def stream(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"before", "more_body": True})
        await go_on.wait()
        assert scope["state"][OPEN_CHUNKS]()(b"after")
        await send({"type": "http.response.body", "body": b""})

    async with tls.server(stream) as (_, port):
        reader, writer = await tls.connect(port)
        writer.write(GET)
        async with asyncio.timeout(WAIT_TIMEOUT):
            await reader.readuntil(b"before\r\n")
            old = certificates.serial_number
            certificates.replace()
            other, second = await tls.connect(port)
            served = x509.load_der_x509_certificate(second.get_extra_info("ssl_object").getpeercert(True))
            assert served.serial_number == certificates.serial_number != old
            go_on.set()
            assert await reader.readuntil(b"0\r\n\r\n") == b"5\r\nafter\r\n0\r\n\r\n"
        assert other.at_eof() is False
        for opened in (writer, second):
            opened.transport.abort()


async def test_half_open_handshakes_make_room_for_new_ones(tls: HttpServing) -> None:
    hello = _client_hello()
    async with _serving(tls, max_connections=100) as (server, port, shed):
        bound = 100 // 4
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(2 * bound)]
        for peer in idle[::2]:
            peer.sendall(hello)
        await until(lambda: len(shed) == bound and server.handshakes == bound)
        await _exchange(port, _certificates(tls).client_context())
        assert set(shed) == {TLS_CROWDED}
        for peer in idle:
            peer.close()


async def test_few_allowed_connections_still_allow_some_handshakes(tls: HttpServing) -> None:
    async with _serving(tls, max_connections=20) as (server, port, shed):
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(MIN_HANDSHAKES + 1)]
        await until(lambda: shed == [TLS_CROWDED])
        assert server.handshakes == MIN_HANDSHAKES
        for peer in idle:
            peer.close()


@pytest.mark.long
async def test_ten_thousand_half_open_handshakes_do_not_keep_others_waiting(tls: HttpServing) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(10_000, (soft - 200) // 2 - 100)
    hello = _client_hello()
    context = _certificates(tls).client_context()
    async with _serving(tls) as (server, port, shed):
        loop, idle = asyncio.get_running_loop(), []
        for number in range(count):
            peer = socket.socket()
            peer.setblocking(False)
            await loop.sock_connect(peer, ("127.0.0.1", port))
            if number % 2:
                peer.send(hello)
            idle.append(peer)
        before = loop.time()
        for _ in range(5):
            await _exchange(port, context)
        assert loop.time() - before < tls_connector.HANDSHAKE_TIMEOUT / 2
        assert server.handshakes <= min(tls_connector.MAX_HANDSHAKES, count)
        assert set(shed) <= {TLS_CROWDED, TLS_TIMEOUT}
        for peer in idle:
            peer.close()


async def test_a_stop_does_not_wait_for_handshakes(tls: HttpServing) -> None:
    async with _serving(tls, stop_timeout=600) as (server, port, _):
        peers = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        peers[1].sendall(b"\x16")
        peers[2].sendall(_client_hello())
        await until(lambda: server.handshakes == 3)
        async with asyncio.timeout(tls_connector.HANDSHAKE_TIMEOUT / 2):
            await server.stop()
        assert server.handshakes == 0
        for peer in peers:
            peer.close()


async def test_a_peer_that_does_not_confirm_the_end_is_closed_after_a_while(
    tls: HttpServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_connector, "SHUTDOWN_TIMEOUT", 0.1)
    async with _serving(tls, idle_timeout=0.1) as (server, port, _):
        peer = await tls.unread_socket(port, GET)
        await until(lambda: server.connections == 1)
        await until(lambda: server.connections == 0)
        peer.close()


async def test_the_bytes_that_wait_below_tls_count(tls: HttpServing, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transports of TLS report only their own bytes."""
    monkeypatch.setattr(sweeper, "SWEEP_INTERVAL", 0.02)
    body = b"x" * 20_000_000

    async def large(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": body})

    async with tls.server(large, max_unsent_bytes=1_000_000_000) as (server, port):
        peer = await tls.unread_socket(port, GET, buffer=4_096)
        await until(lambda: server.unsent_bytes() > len(body) // 2)
        assert server.stalled_connections == 1
        peer.close()


def test_a_url_names_the_scheme() -> None:
    (bound,) = http.listen("127.0.0.1:0")
    port = bound.getsockname()[1]
    assert http.socket_url(bound) == f"http://127.0.0.1:{port}"
    assert http.socket_url(bound, has_tls=True) == f"https://127.0.0.1:{port}"
    bound.close()
