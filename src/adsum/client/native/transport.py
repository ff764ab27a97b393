"""HTTP requests over httpcore; the only module of the client that speaks HTTP. Imported when a client starts.

httpcore is the transport beneath httpx. Loading httpx would double what a program that only registers has to load.
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
from adsum.client.errors import NodeNotConnected, NodeNotTrusted, NodeUnreachable
from adsum.client.native.closing_backend import ClosingBackend
from adsum.client.native.tls_errors import find_tls_error, is_untrusted, tls_problem
from adsum.core.validation import quoted
from adsum.version import __version__

CONNECT_TIMEOUT: Final = 3.0
"""Seconds to connect to a registry node; then the next node is tried."""
RESPONSE_HEAD_TIMEOUT: Final = 5.0
"""Seconds until the head of an endless answer must have arrived; then the next node is tried."""
MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""Bytes of an answer; a longer one is an error. A service of 100,000 instances takes about 20 MB."""
MAX_ERROR_BODY_BYTES: Final = 65_536
"""Bytes of the error body of a refused stream; a longer one is an error."""
KEEPALIVE_EXPIRY: Final = 30.0
"""Seconds after which an idle connection is closed."""

QueryParams = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class TransportReply:
    """An answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


_ERRORS: Final = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
    ssl.SSLError,  # From a hand-shake that fails after the first bytes.
    TimeoutError,
)


class Transport:
    """HTTP requests to registry nodes, without redirects, cookies, or proxies from the environment."""

    def __init__(self, ssl_context: ssl.SSLContext | None, *, is_registry: bool = True) -> None:
        """`ssl_context`: None if no URL uses TLS, since loading certificates takes a while.

        `is_registry`: whether the other side is a node of a registry, for errors that say what to do.
        """
        self._is_registry = is_registry
        self.ssl_context = ssl_context
        """The context of new connections. When it is replaced, open connections stay as they are."""
        self._http = _ConnectionPool(self, max_keepalive=8)
        self._fresh = _ConnectionPool(self, max_keepalive=0)
        """The pool for requests that need a new connection: an idle one may have been cut off unnoticed."""

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
        """Sends one request; with `fresh` over a new connection.

        Raises `NodeUnreachable` if no complete answer arrives within `timeout` seconds.
        """
        pool = self._fresh if fresh else self._http
        try:
            async with asyncio.timeout(timeout):
                async with self._begin(method, url, timeout, params, headers, body, pool) as answer:
                    return _reply(answer, await _read(answer, MAX_BODY_BYTES))
        except _ERRORS as error:
            raise _unreachable(error, url, is_registry=self._is_registry) from error

    @asynccontextmanager
    async def stream(
        self, url: str, *, idle: float, params: QueryParams, headers: Mapping[str, str]
    ) -> AsyncIterator[tuple[TransportReply, AsyncIterator[bytes]]]:
        """Yields the head of an endless answer and its body in chunks.

        Raises `NodeUnreachable`, also when no byte arrives for `idle` seconds.
        """
        try:
            async with asyncio.timeout(RESPONSE_HEAD_TIMEOUT) as until_head:
                async with self._begin("GET", url, idle, params, headers, None, self._fresh) as answer:
                    body = b"" if answer.status == 200 else await _read(answer, MAX_ERROR_BODY_BYTES)
                    until_head.reschedule(None)
                    yield _reply(answer, body), answer.aiter_stream()
        except _ERRORS as error:
            raise _unreachable(error, url, is_registry=self._is_registry) from error

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
        """Sends a request and yields the head of its answer. Each phase may take `wait` seconds."""
        # Set here, because httpcore leaves out the brackets around an IPv6 address.
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
        """Closes the idle connections, which may have been cut off unnoticed."""
        for connection in self._http.connections:
            if isinstance(connection, httpcore.AsyncHTTPConnection) and connection.is_idle():
                await connection.aclose()

    async def close(self) -> None:
        """Closes every connection. Idempotent."""
        await self._fresh.aclose()
        await self._http.aclose()


def _reply(answer: httpcore.Response, body: bytes) -> TransportReply:
    """Returns the answer. Raises `NodeUnreachable` if it uses a later major version of the protocol."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
    version = headers.get(wire.PROTOCOL_HEADER.lower(), "")
    if _major(version) > _major(wire.PROTOCOL):
        ours = f"Adsum {__version__} here speaks {wire.PROTOCOL}"
        raise NodeUnreachable(f"it speaks version {quoted(version)} of the protocol, and {ours}: upgrade Adsum here")
    return TransportReply(answer.status, headers, body)


def _major(version: str) -> int:
    """Returns the major version in MAJOR.MINOR; 0 for other text, such as "" from a registry without a version."""
    major = version.partition(".")[0]
    return int(major) if major.isascii() and major.isdecimal() and len(major) < 9 else 0


async def _read(answer: httpcore.Response, max_bytes: int) -> bytes:
    """Returns the body. Raises `NodeUnreachable` if it is longer than `max_bytes`."""
    parts, size = [], 0
    async for chunk in answer.aiter_stream():
        parts.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            raise NodeUnreachable(f"its answer is longer than {max_bytes} bytes")
    return b"".join(parts)


class _ConnectionPool(httpcore.AsyncConnectionPool):
    """A pool whose new connections use the present TLS context of a transport."""

    def __init__(self, transport: Transport, max_keepalive: int) -> None:
        super().__init__(max_connections=None, max_keepalive_connections=max_keepalive)
        self._transport = transport

    def create_connection(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        context = self._transport.ssl_context
        return httpcore.AsyncHTTPConnection(
            origin,
            ssl_context=context,
            keepalive_expiry=KEEPALIVE_EXPIRY,
            network_backend=ClosingBackend() if context is not None else None,
        )


def _unreachable(error: Exception, url: str, *, is_registry: bool) -> NodeUnreachable:
    """Returns the error with a message; some errors of httpcore have none."""
    tls_error = find_tls_error(error)
    if tls_error is not None and is_untrusted(tls_error):
        return NodeNotTrusted(tls_problem(tls_error, is_registry=is_registry))
    if isinstance(error, httpcore.ConnectTimeout):
        return NodeNotConnected("it did not accept a connection in time")
    if isinstance(error, (httpcore.TimeoutException, TimeoutError)):
        return NodeUnreachable("it did not answer in time")
    if tls_error is not None:
        message = tls_problem(tls_error, is_registry=is_registry)
    elif isinstance(error, httpcore.RemoteProtocolError) and url.startswith("http:"):
        message = f"{error}; if this port serves TLS, its URL begins with https://"
    else:
        message = str(error) or type(error).__name__
    return NodeNotConnected(message) if isinstance(error, httpcore.ConnectError) else NodeUnreachable(message)
