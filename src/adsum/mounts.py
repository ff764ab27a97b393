"""Mounts: the paths of the HTTP server and the listeners that a node opens for a dialect.

A dialect describes them and opens no socket. `adsum.listeners` opens them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

AsgiApp = Callable[..., Awaitable[None]]
"""An ASGI application: scope, receive, send."""
Reply = Callable[["int | None", bytes], None]
"""Takes the response to a brief request: the status, and the bytes that follow the status line and the date.

A status of None means that the application must answer after all."""


class FastPath(Protocol):
    """Answers the brief requests of a dialect without a task: good cases only. The application answers all others."""

    def prepare(self, headers: Sequence[tuple[bytes, bytes]], certificate: bytes) -> object | None:
        """Judges the headers of requests, which the server remembers with the result; names are in lower case.

        `certificate` is the client certificate of the connection (DER, empty if it has none). Returns what `answer`
        needs of both; None if the application must answer every request with these headers.
        """
        ...

    def answer(self, method: bytes, target: bytes, prepared: object, body: bytes, peer: str, reply: Reply) -> bool:
        """Answers a request by calling `reply` once, now or later. Returns False, and does nothing, if it does not.

        It is called only for requests of HTTP/1.1 that keep the connection open. A GET is answered before this returns.
        `peer` is the IP address of the caller.
        """
        ...


class StreamCall(Protocol):
    """A gRPC call in progress, with messages as bytes in both directions."""

    @property
    def peer(self) -> str:
        """The peer's address, IP:PORT."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata of the call, without binary values; names are in lower case."""
        ...

    @property
    def certificate(self) -> bytes:
        """The verified client certificate of the connection (DER), empty if it has none."""
        ...

    async def read(self) -> bytes | None:
        """Returns the next message; None when the peer has sent its last one."""
        ...

    async def write(self, message: bytes) -> None:
        """Returns when the transport has taken the message, which is when the peer's flow control allows it.

        Raises `ConnectionError` if the call has ended.
        """
        ...

    def refuse(self, code: str, message: str) -> None:
        """Ends the call with this gRPC status when the current write is done."""
        ...

    def cut(self, reason: str) -> None:
        """Ends the call now, even if the peer does not read."""
        ...


GrpcMethod = Callable[[StreamCall], Awaitable[None]]
"""Serves one bidirectional stream until it ends."""
TcpHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Serves one TCP connection; the connection is closed when it returns."""


@dataclass(frozen=True, slots=True)
class HttpPath:
    """An application on the node's HTTP server, for `prefix` and all paths below it.

    The longest prefix wins; "" matches every path. The application gets whole paths, with their prefix.
    """

    prefix: str
    app: AsgiApp
    fast_path: FastPath | None = None


@dataclass(frozen=True, slots=True)
class HttpListener:
    """An HTTP server of its own for one application.

    `address` is HOST:PORT, port 0 for a free one. `remedy` ends the error if the address can't be used: it names the
    setting. Both mean the same for all listeners.
    """

    address: str
    remedy: str
    app: AsgiApp
    max_connections: int
    fast_path: FastPath | None = None


@dataclass(frozen=True, slots=True)
class GrpcListener:
    """A gRPC server for these methods, by path.

    It accepts at most `max_connections` connections, fewer where file descriptors are scarce: `set_connection_limit` is
    called with the number before the server starts.
    """

    address: str
    remedy: str
    methods: Mapping[str, GrpcMethod]
    max_message_bytes: int
    max_connections: int
    set_connection_limit: Callable[[int], None]


@dataclass(frozen=True, slots=True)
class TcpListener:
    """A TCP server that runs `serve` for each connection; past `max_connections` new connections are closed."""

    address: str
    remedy: str
    serve: TcpHandler
    max_connections: int


@dataclass(frozen=True, slots=True)
class UdpListener:
    """A UDP socket whose datagrams go to a protocol of asyncio."""

    address: str
    remedy: str
    protocol: Callable[[], asyncio.DatagramProtocol]


Listener = HttpListener | GrpcListener | TcpListener | UdpListener
Mount = HttpPath | Listener
