"""A connection to another node for renewals only: the cheapest way for what nodes send to one another all the time.

It takes the good case only. For everything else the ordinary client of the node is used, which knows all errors.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Sequence
from typing import Final, cast
from urllib.parse import urlsplit

from adsum import wire
from adsum.core.errors import Invalid

CONNECT_TIMEOUT: Final = 1.0
"""Seconds to connect. Then the ordinary client is used."""
MAX_RESPONSE_BYTES: Final = 4 * 1024 * 1024
"""Bytes of a response, more than the longest one about `wire.MAX_RENEWALS` leases. A longer one ends the connection."""
BODY_STEP: Final = 1024
"""The length of a body is a multiple of it, so that most requests have the same headers, which the node remembers."""

_END_OF_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: ([0-9]{1,8})\r\n", re.IGNORECASE)
_VERSION: Final = re.compile(rb"\r\n%b: ([^\r\n]*)\r\n" % wire.PROTOCOL_HEADER.encode(), re.IGNORECASE)


class RenewalConnection(asyncio.Protocol):
    """A connection that sends one request at a time."""

    def __init__(self, url: str, node: str) -> None:
        """`node`: the id of the run of the node that must answer."""
        lines = [
            "POST /api/v1/renew HTTP/1.1",
            f"host: {urlsplit(url).netloc.rpartition('@')[2]}",
            "content-type: application/json",
            f"{wire.FORWARDED_TO_HEADER.lower()}: {node}",
        ]
        self._head = "\r\n".join([*lines, "content-length: "]).encode()
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._answer: asyncio.Future[bytes | None] | None = None

    @property
    def is_open(self) -> bool:
        """True if the connection can take a request."""
        return self._transport is not None and not self._transport.is_closing()

    async def renew(self, body: bytes) -> bytes | None:
        """Sends a body, and returns that of the response; None, after which the connection is closed, if it is unusual.

        None does not say whether the leases are renewed.
        """
        if not self.is_open:
            return None
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._answer = answer
        body = body.ljust(-(-len(body) // BODY_STEP) * BODY_STEP)
        cast("asyncio.Transport", self._transport).write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
        try:
            return await answer
        finally:
            self._answer = None
            if answer.cancelled():
                self.abort()  # A response that comes later belongs to no request.

    def abort(self) -> None:
        """Closes the connection at once. Idempotent."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._settle(None)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(_END_OF_HEAD)
        if end < 0 and len(self._received) <= MAX_RESPONSE_BYTES:
            return
        start = end + len(_END_OF_HEAD)
        length = _body_length(self._received[: end + 2]) if end >= 0 else None
        if length is None or length > MAX_RESPONSE_BYTES or len(self._received) > start + length:
            self._settle(None)
            self.abort()
        elif len(self._received) == start + length:
            body, self._received = self._received[start:], b""
            self._settle(body)

    def _settle(self, result: bytes | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(result)
        elif result is not None:
            self.abort()  # Nobody waits for a response.


async def connect(url: str, node: str, context: ssl.SSLContext | None) -> RenewalConnection | None:
    """Returns a connection to the node; None if it can't be reached within `CONNECT_TIMEOUT`."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: RenewalConnection(url, node), host, port, ssl=context
            )
    except (OSError, TimeoutError):  # Errors of TLS are an OSError.
        return None
    return connection


def _body_length(head: bytes) -> int | None:
    """Returns the length of the body; None if the response is not an ordinary 200 of this version of the protocol."""
    if not head.startswith(b"HTTP/1.1 200 ") or b"\r\ntransfer-encoding:" in head.lower():
        return None
    versions, lengths = _VERSION.findall(head), _LENGTH.findall(head)
    if versions != [wire.PROTOCOL.encode()] or len(lengths) != 1:
        return None
    return int(lengths[0])


class RenewalConnections:
    """The connections to one node that are open and idle."""

    def __init__(self, url: str, node: str, context: Callable[[], ssl.SSLContext | None]) -> None:
        """`context` returns the TLS context of a new connection; None for one without TLS."""
        self._url = url
        self._node = node
        self._context = context
        self._idle: list[RenewalConnection] = []
        self._is_closed = False
        self.is_usable = False
        """True if the node answered the latest request. The owner sets it when the ordinary client got an answer."""

    async def renew(self, leases: Sequence[wire.LeaseBody]) -> wire.RenewalResult | None:
        """Returns the result of the node; None if the ordinary client must send the leases (again)."""
        connection = self._take() or await connect(self._url, self._node, self._context())
        result: wire.RenewalResult | None = None
        if connection is not None:
            try:
                response = await connection.renew(wire.encode(wire.RenewBody(list(leases))))
                result = wire.decode(response, wire.RenewalResult) if response is not None else None
            except Invalid:
                pass
            finally:
                if result is not None and not self._is_closed:
                    self._idle.append(connection)
                else:
                    connection.abort()
        self.is_usable = result is not None
        return result

    def close(self) -> None:
        """Closes the idle connections at once, and the others after their response. Idempotent."""
        self._is_closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.abort()

    def _take(self) -> RenewalConnection | None:
        """Removes an open connection, and returns it."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None
