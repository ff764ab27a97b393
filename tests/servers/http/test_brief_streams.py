"""Whatever a connection reads: with a fast path and without, it is answered alike."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from adsum.mounts import Reply
from tests.servers.http.direct_connection import DirectConnection
from tests.servers.http.echo import KNOWN, NOW, echo_app, encoded


class MirrorFastPath:
    """Answers every request as the application does: at once, or when `settle` is called."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Reply, bytes, bytes]] = []
        self.answered = 0

    def prepare(self, headers: Sequence[tuple[bytes, bytes]], certificate: bytes) -> object | None:
        return headers

    def answer(self, method: bytes, target: bytes, prepared: object, body: bytes, peer: str, reply: Reply) -> bool:
        self.answered += 1
        if method == b"GET":
            reply(200, encoded(target, body))
        else:
            self.waiting.append((reply, target, body))
        return True

    def settle(self) -> None:
        while self.waiting:
            reply, target, body = self.waiting.pop(0)
            reply(None if target.endswith(b"!") else 200, encoded(target, body))


STREAM_REQUESTS = st.sampled_from(
    [
        KNOWN,
        NOW,
        NOW.replace(b"/now", b"/now!"),
        b"GET /now HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /n?q=1 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"HEAD /now HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"DELETE /now HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"PUT /c HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"POST /now HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n\n",
        b"PUT /x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc",
        b"PUT /x HTTP/1.1\r\nhost: localhost\r\nhost: b\r\ncontent-length: 3\r\n\r\nabc",
        b"PUT /x HTTP/1.0\r\nhost: localhost\r\ncontent-length: 3\r\n\r\nabc",
        b"\r\n",
    ]
)
UNREADABLE_REQUESTS = st.sampled_from(
    [
        b"PUT /x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc",
        b"PUT /x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"PUT /x HTTP/1.1\r\nhost: localhost\r\ncontent-length : 3\r\n\r\nabc",
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00",
    ]
)


@given(st.lists(STREAM_REQUESTS, max_size=8), st.lists(st.integers(1, 90), max_size=12))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example([KNOWN] * 4 + [NOW], [len(KNOWN)] * 4)
@example([KNOWN, KNOWN, NOW.replace(b"/now", b"/now!"), NOW], [len(KNOWN), len(KNOWN), len(NOW) - 1, 1])
@example([b"GET /now HTTP/1.1\r\nhost: localhost\r\n\r\n", KNOWN, KNOWN, KNOWN, NOW], [])
def test_a_stream_is_answered_alike_with_and_without_a_fast_path(requests: list[bytes], sizes: list[int]) -> None:
    """However requests are split into reads: the same responses in the same order, and the same end."""

    assert asyncio.run(_exchange(MirrorFastPath(), b"".join(requests), sizes)) == asyncio.run(
        _exchange(None, b"".join(requests), sizes)
    )


@given(st.lists(STREAM_REQUESTS, max_size=6), UNREADABLE_REQUESTS, st.lists(st.integers(1, 90), max_size=12))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example([KNOWN] * 4, b"garbage\r\n\r\n", [len(KNOWN)] * 4)
def test_nothing_behind_an_unreadable_request_is_answered(
    requests: list[bytes], unreadable: bytes, sizes: list[int]
) -> None:
    """Requests before it may have been answered already."""
    data, fast_path = b"".join([*requests, unreadable, NOW, NOW]), MirrorFastPath()
    received, is_closed, shed = asyncio.run(_exchange(fast_path, data, sizes))
    assert is_closed
    assert len(shed) <= 1
    assert received.count(b"HTTP/1.1 200 OK\r\n") <= len(requests)
    assert fast_path.answered <= len(requests)


async def _exchange(fast_path: MirrorFastPath | None, data: bytes, sizes: list[int]) -> tuple[bytes, bool, list[str]]:
    """Returns what a connection responds to data that is read in pieces of these sizes, whether it closes, and why."""
    connection, received = DirectConnection(echo_app, fast_path), b""
    for size in [*sizes, *([len(KNOWN)] * 8), len(data)]:
        read, data = data[:size], data[size:]
        if read and not connection.transport.is_closing():
            received += await connection.receive(read)
        if fast_path is not None:
            fast_path.settle()
            received += await connection.responses()
    is_closed = connection.transport.is_closing()
    await connection.close()
    return received, is_closed, connection.shed
