"""The one place that speaks HTTP: a thin wrapper over httpcore, imported when a client starts.

httpcore is the transport beneath httpx; httpx itself would double what a program that only registers has to load.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode, urlsplit

import httpcore

from adsum import wire
from adsum.client.errors import NodeNotConnected, NodeUnreachable
from adsum.core.validation import quoted
from adsum.version import __version__

CONNECT_TIMEOUT: Final = 3.0
"""Seconds to reach a registry node; then the next one is tried."""
RESPONSE_HEAD_TIMEOUT: Final = 5.0
"""Seconds for the head of an endless answer to come; then the next node is tried."""
MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""Bytes of an answer; a longer one is none. A service of 100,000 instances takes some 20 MB."""
MAX_ERROR_BODY_BYTES: Final = 65_536
"""Bytes of the answer that refuses a stream."""


QueryParams = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class TransportReply:
    """An answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


_ERRORS: Final = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
    TimeoutError,
)


class Transport:
    """Requests to registry nodes: no redirects, cookies or proxies from the environment, since registries are near."""

    def __init__(self, ssl_context: ssl.SSLContext | None) -> None:
        """`trust`: whom to trust over TLS; None: nobody is asked over TLS (loading certificates takes a while)."""
        self._http = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context,
            max_connections=None,
            max_keepalive_connections=8,
            keepalive_expiry=30.0,
        )
        self._fresh = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context, max_connections=None, max_keepalive_connections=0
        )
        """Each connection is new and serves one request: an idle one may have been cut off without a word."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        timeout: float,
        body: bytes | None = None,
        params: QueryParams = (),
        headers: Mapping[str, str] | None = None,
        fresh: bool = False,
    ) -> TransportReply:
        """Ask once, over a new connection if `fresh`. Raises `Unreachable` when no whole answer comes; nothing may wait
        longer than `timeout`.
        """
        pool = self._fresh if fresh else self._http
        try:
            async with asyncio.timeout(timeout):
                async with self._begin(method, url, timeout, params, headers, body, pool) as answer:
                    return _reply(answer, await _read(answer, MAX_BODY_BYTES))
        except _ERRORS as error:
            raise _unreachable(error) from error

    @asynccontextmanager
    async def stream(
        self, url: str, *, idle: float, params: QueryParams, headers: Mapping[str, str]
    ) -> AsyncIterator[tuple[TransportReply, AsyncIterator[bytes]]]:
        """An endless answer, chunk by chunk. Raises `Unreachable`, also when nothing comes for `idle` seconds."""
        try:
            async with asyncio.timeout(RESPONSE_HEAD_TIMEOUT) as until_head:
                async with self._begin("GET", url, idle, params, headers, None, self._fresh) as answer:
                    body = b"" if answer.status == 200 else await _read(answer, MAX_ERROR_BODY_BYTES)
                    until_head.reschedule(None)
                    yield _reply(answer, body), answer.aiter_stream()
        except _ERRORS as error:
            raise _unreachable(error) from error

    def _begin(
        self,
        method: str,
        url: str,
        wait: float,
        params: QueryParams,
        headers: Mapping[str, str] | None,
        body: bytes | None,
        pool: httpcore.AsyncConnectionPool,
    ) -> AbstractAsyncContextManager[httpcore.Response]:
        """Send a request; the head of its answer, until the block ends. Each wait of its phases is bounded."""
        # Said here, since httpcore leaves out the brackets around an IPv6 address.
        host = urlsplit(url).netloc.rpartition("@")[2]
        timeouts = {"connect": min(wait, CONNECT_TIMEOUT), "read": wait, "write": wait, "pool": wait}
        return pool.stream(
            method,
            f"{url}?{urlencode(params)}" if params else url,
            headers=[("Host", host), *((name, value.encode()) for name, value in (headers or {}).items())],
            content=body,
            extensions={"timeout": timeouts},
        )

    async def close_idle(self) -> None:
        """Close the connections that wait for another request: they may have been cut off without a word."""
        for connection in self._http.connections:
            if isinstance(connection, httpcore.AsyncHTTPConnection) and connection.is_idle():
                await connection.aclose()

    async def close(self) -> None:
        """Let go of every connection; idempotent."""
        await self._fresh.aclose()
        await self._http.aclose()


def _reply(answer: httpcore.Response, body: bytes) -> TransportReply:
    """Raises `Unreachable` if the answer is in a protocol that came after ours."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
    spoken = headers.get(wire.PROTOCOL_HEADER.lower(), "")
    if _major(spoken) > _major(wire.PROTOCOL):
        known = f"Adsum {__version__} here speaks {wire.PROTOCOL}"
        raise NodeUnreachable(f"it speaks version {quoted(spoken)} of the protocol, and {known}: upgrade Adsum here")
    return TransportReply(answer.status, headers, body)


def _major(version: str) -> int:
    """Of MAJOR.MINOR; 0 for a text that is none, as of a registry from before there were versions."""
    major = version.partition(".")[0]
    return int(major) if major.isascii() and major.isdecimal() and len(major) < 9 else 0


async def _read(answer: httpcore.Response, most: int) -> bytes:
    """The body. Raises `Unreachable` if it is longer than `most` bytes."""
    parts, size = [], 0
    async for chunk in answer.aiter_stream():
        parts.append(chunk)
        size += len(chunk)
        if size > most:
            raise NodeUnreachable(f"its answer is longer than {most} bytes")
    return b"".join(parts)


def _unreachable(error: Exception) -> NodeUnreachable:
    """What happened, in words: httpcore leaves some errors without."""
    if isinstance(error, httpcore.ConnectTimeout):
        return NodeNotConnected("it did not accept a connection in time")
    if isinstance(error, (httpcore.TimeoutException, TimeoutError)):
        return NodeUnreachable("it did not answer in time")
    words = str(error) or type(error).__name__
    return NodeNotConnected(words) if isinstance(error, httpcore.ConnectError) else NodeUnreachable(words)
