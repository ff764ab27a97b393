"""Connections for renewals, over a server that answers with the bytes that the test sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum import wire
from adsum.peers import renewal_connection
from adsum.peers.renewal_connection import RenewalConnection, RenewalConnections, connect

RESULT = wire.RenewalResult("e1", 7, 1)
LEASES = [wire.LeaseBody("orders", "o1", "h")]


def response(body: bytes, *lines: str, status: str = "200 OK", version: str = wire.PROTOCOL) -> bytes:
    head = [f"HTTP/1.1 {status}", "content-type: application/json", f"adsum-protocol: {version}", *lines]
    return "\r\n".join([*head, "", ""]).encode() + body


def whole(body: bytes) -> bytes:
    return response(body, f"content-length: {len(body)}")


GOOD = whole(wire.encode(RESULT))


class ScriptedServer:
    """Answers each request with the next response, in pieces; None closes the connection instead."""

    def __init__(self) -> None:
        self.responses: list[Sequence[bytes] | None] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> str:
        """Returns the URL."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                pieces = self.responses.pop(0)
                if pieces is None:
                    break
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def close(self) -> None:
        for writer in self._open:
            writer.close()
        self._server.close()
        await self._server.wait_closed()


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    server = ScriptedServer()
    yield server
    await server.close()


@pytest.fixture
async def connections(server: ScriptedServer) -> AsyncIterator[RenewalConnections]:
    connections = RenewalConnections(await server.start(), "n2", lambda: None)
    yield connections
    connections.close()


async def test_several_requests_use_one_connection(server: ScriptedServer, connections: RenewalConnections) -> None:
    server.responses = [[GOOD], [GOOD[:30], GOOD[30:]], [GOOD]]
    for _ in range(3):
        assert await connections.renew(LEASES) == RESULT
        assert connections.is_usable
    assert server.connections == 1


async def test_a_request_names_its_node_and_has_the_headers_of_the_next_one(
    server: ScriptedServer, connections: RenewalConnections
) -> None:
    server.responses = [[GOOD], [GOOD]]
    await connections.renew(LEASES)
    await connections.renew([*LEASES, wire.LeaseBody("users", "u1")])
    (first, first_body), (second, second_body) = (request.split(b"\r\n\r\n") for request in server.requests)
    assert first == second
    assert b"\r\nadsum-forwarded-to: n2\r\n" in first
    assert len(first_body) == renewal_connection.BODY_STEP
    assert wire.decode(first_body, wire.RenewBody).leases == LEASES
    assert len(wire.decode(second_body, wire.RenewBody).leases) == 2


@pytest.mark.parametrize(
    "pieces",
    [
        None,
        [b"\r\n\r\n"],
        [b"garbage\r\n\r\n"],
        [response(b"{}", "content-length: 2", status="421 Misdirected Request")],
        [response(b"{}", "content-length: 2", status="200")],
        [response(b"{}")],
        [response(b"{}", "content-length: 2", "content-length: 2")],
        [response(b"2\r\n{}\r\n0\r\n\r\n", "transfer-encoding: chunked")],
        [response(b"{}", "content-length: 2", "Transfer-Encoding: chunked")],
        [response(b"{}", "content-length: -2")],
        [response(b"{}", "content-length: 99999999")],
        [response(b"{}", "content-length: 2", version="2.0")],
        [GOOD + b"more"],
        [whole(b"{}")],
        [whole(b"not JSON")],
        [b"x" * 2048, b"x" * 4096],
    ],
)
async def test_an_unusual_response_is_left_to_the_ordinary_client(
    server: ScriptedServer,
    connections: RenewalConnections,
    pieces: Sequence[bytes] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(renewal_connection, "MAX_RESPONSE_BYTES", 4096)
    server.responses = [pieces, [GOOD]]
    assert await connections.renew(LEASES) is None
    assert not connections.is_usable
    assert await connections.renew(LEASES) == RESULT, "over a new connection"
    assert server.connections == 2


async def test_a_connection_that_the_node_closed_is_replaced(
    server: ScriptedServer, connections: RenewalConnections
) -> None:
    server.responses = [[GOOD], None, [GOOD]]
    assert await connections.renew(LEASES) == RESULT
    assert await connections.renew(LEASES) is None
    assert await connections.renew(LEASES) == RESULT
    assert server.connections == 2


async def test_an_abandoned_request_ends_its_connection(
    server: ScriptedServer, connections: RenewalConnections
) -> None:
    server.responses = [[GOOD], [GOOD[:20]], [GOOD]]
    assert await connections.renew(LEASES) == RESULT
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await connections.renew(LEASES)
    assert await connections.renew(LEASES) == RESULT, "not the late response to the request before"
    assert server.connections == 2


async def test_concurrent_requests_have_a_connection_each(
    server: ScriptedServer, connections: RenewalConnections
) -> None:
    server.responses = [[GOOD]] * 3
    assert await asyncio.gather(*(connections.renew(LEASES) for _ in range(3))) == [RESULT] * 3
    assert server.connections == 3


async def test_after_closing_no_connection_stays_open(server: ScriptedServer, connections: RenewalConnections) -> None:
    server.responses = [[GOOD], [GOOD]]
    await connections.renew(LEASES)
    connections.close()
    assert await connections.renew(LEASES) == RESULT, "one that was under way"
    connections.close()
    assert server.connections == 2


async def test_nobody_is_reached_where_nobody_listens() -> None:
    assert await connect("http://127.0.0.1:1", "n2", None) is None
    assert await RenewalConnection("http://127.0.0.1:1", "n2").renew(b"{}") is None


class _Transport(asyncio.Transport):
    """Takes what is written, and keeps nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.is_aborted = False

    def write(self, data: object) -> None:
        pass

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


async def _read(pieces: Sequence[bytes]) -> bytes | None:
    connection = RenewalConnection("http://127.0.0.1:1", "n2")
    transport = _Transport()
    connection.connection_made(transport)
    answer = asyncio.create_task(connection.renew(b"{}"))
    await asyncio.sleep(0)
    for piece in pieces:
        if not transport.is_aborted:
            connection.data_received(piece)
    connection.connection_lost(None)
    return await answer


@given(st.binary(max_size=40), st.lists(st.integers(1, 90), max_size=8))
def test_a_response_in_any_pieces_is_the_same(body: bytes, sizes: list[int]) -> None:
    data, pieces = whole(body), list[bytes]()
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    pieces.append(data)
    assert asyncio.run(_read([piece for piece in pieces if piece])) == body


@given(st.lists(st.sampled_from([*whole(b"{}").split(b"\r\n"), b"\r\n", b"\r\n\r\n", b"content-length: 7", b"x"])))
def test_no_response_raises(parts: list[bytes]) -> None:
    asyncio.run(_read([part for part in parts if part]))
