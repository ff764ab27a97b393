"""The HTTP transport: uvicorn in our own loop, with a bound on everything that a peer can make us hold."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from adsum import wire
from adsum.core.errors import AdsumError

Application = Callable[..., Awaitable[None]]
Prompt = Callable[[bytes, Sequence[tuple[bytes, bytes]]], "tuple[int, bytes] | None"]
"""From the target and the headers of a GET to its answer, if that needs no waiting: the status, and everything behind
the status line and the date."""

BACKLOG: Final = 4_096
"""How many connections wait to be accepted; the system turns away more."""
MAX_HEAD: Final = 64 * 1024
"""Bytes of a request's head; a connection that sends more is answered 431 and closed."""
SWEEP: Final = 1.0
"""How often overdue connections are looked for, in seconds."""


class ListenRefused(AdsumError):
    """The address can't be listened on; the sentence is for the operator."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one peer, or all of them together, may take. Lengths are seconds."""

    connections: int = 20_000
    """Past it a new connection is answered 503 and closed."""
    head: float = 15.0
    """A request's head must be complete so long after its first byte; else the connection is closed."""
    idle: int = 75
    """A connection on which nothing is asked for so long is closed."""
    stall: float = 30.0
    """A peer that reads nothing of what is waiting for it for so long is cut off."""
    stop: int = 5
    """How long answers may take to finish once the server stops."""


def listen(address: str) -> list[socket.socket]:
    """Sockets bound to HOST:PORT, not yet accepting. Raises `ListenRefused`."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ListenRefused(f"can't listen on {address!r}: it must be HOST:PORT, such as 127.0.0.1:23786")
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, where in dict.fromkeys((family, where) for family, _, _, _, where in found):
            taken = sockets[0].getsockname()[1] if sockets else where[1]
            sockets.append(_bound(family, (where[0], taken, *where[2:])))
    except OSError as error:
        for each in sockets:
            each.close()
        raise ListenRefused(f"can't listen on {address}: {error.strerror or error}") from None
    return sockets


def _bound(family: int, where: tuple[Any, ...]) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(where[0] != "::"))
        bound.bind(where)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def url(bound: socket.socket) -> str:
    """Where a bound socket is reached."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class HttpServer:
    """Serves one ASGI callable on sockets that are already bound."""

    def __init__(
        self,
        app: Application,
        sockets: Sequence[socket.socket],
        bounds: Bounds | None = None,
        prompt: Prompt | None = None,
    ) -> None:
        bounds = bounds or Bounds()
        self._sockets = list(sockets)
        self._sweeper = _Sweeper(bounds)
        config = uvicorn.Config(
            app,
            http=cast("type[asyncio.Protocol]", partial(_Connection, self._sweeper, prompt)),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=bounds.idle,
            timeout_graceful_shutdown=bounds.stop,
        )
        self._server = _Server(config)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Return when connections are accepted."""
        serving = asyncio.create_task(self._server.serve(self._sockets), name="adsum-http")
        self._tasks = [serving, asyncio.create_task(self._sweeper.run(), name="adsum-sweep")]
        await asyncio.wait([serving, asyncio.ensure_future(self._server.up.wait())], return_when="FIRST_COMPLETED")

    async def stop(self) -> None:
        """Accept no more, let what is being answered finish within `Bounds.stop`, and cut off the rest; idempotent."""
        if not self._tasks:
            return
        self._server.should_exit = True
        serving, sweeping = self._tasks
        self._tasks = []
        self._sweeper.hurry()
        await serving
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._server.server_state.connections)


class _Server(uvicorn.Server):
    """Signals are the daemon's business."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


class _Sweeper:
    """Looks for connections that hold us up: an unfinished head, or a peer that doesn't read."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._heads: dict[_Connection, float] = {}
        self._stalls: dict[_Connection, tuple[float, int]] = {}

    def awaits_head(self, connection: _Connection) -> None:
        self._heads.setdefault(connection, connection.loop.time())

    def has_head(self, connection: _Connection) -> None:
        self._heads.pop(connection, None)

    def stalls(self, connection: _Connection) -> None:
        self._stalls[connection] = connection.loop.time(), connection.unsent()

    def moves(self, connection: _Connection) -> None:
        self._stalls.pop(connection, None)

    def forget(self, connection: _Connection) -> None:
        self.has_head(connection)
        self.moves(connection)

    def hurry(self) -> None:
        """We stop: nobody who doesn't read is waited for."""
        for connection in list(self._stalls):
            connection.transport.abort()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            self.sweep(asyncio.get_running_loop().time())

    def sweep(self, now: float) -> None:
        for connection, since in list(self._heads.items()):
            if now - since < self.bounds.head:
                break  # Kept in the order of `since`.
            connection.refuse(408, "the request's head did not arrive in time")
        for connection, (since, unsent) in list(self._stalls.items()):
            if now - since < self.bounds.stall:
                continue
            if connection.unsent() < unsent:
                self.stalls(connection)
            else:
                connection.transport.abort()


class _Connection(HttpToolsProtocol):
    """One connection, with what uvicorn leaves unbounded bounded."""

    def __init__(self, sweeper: _Sweeper, prompt: Prompt | None, **given: Any) -> None:
        super().__init__(**given)
        self._sweeper = sweeper
        self._prompt = prompt
        self._answered = False
        """Whether the request that is being read has been answered promptly."""
        self._unread = 0
        """Bytes that came since the last piece of a request was complete."""

    def unsent(self) -> int:
        """Bytes that the peer has not taken yet."""
        return self.transport.get_write_buffer_size()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._sweeper.bounds.connections:
            self.refuse(503, "too many connections", b"retry-after: 5\r\n")
            return
        self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        self._sweeper.forget(self)
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unread += len(data)
        super().data_received(data)
        if not self._unread:
            return
        if self.transport.is_closing():
            self._sweeper.has_head(self)
        elif self._unread > MAX_HEAD:
            self.refuse(431, f"a request's head may have at most {MAX_HEAD} bytes")
        elif self._idle():
            self._sweeper.awaits_head(self)

    def on_headers_complete(self) -> None:
        self._unread = 0
        self._sweeper.has_head(self)
        self._answered = self._answer_promptly()
        if not self._answered:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        if not self._answered:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread = 0
        if not self._answered:
            super().on_message_complete()

    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _answer_promptly(self) -> bool:
        """Answer at once, without a task, if nothing is ahead of this request and it needs no waiting."""
        parser = self.parser
        if self._prompt is None or parser.get_method() != b"GET" or not self._idle() or self.flow.write_paused:
            return False
        if not parser.should_keep_alive() or parser.should_upgrade() or parser.get_http_version() != "1.1":
            return False
        answer = self._prompt(self.url, self.headers)
        if answer is None:
            return False
        status, text = answer
        date = b"".join([b"%b: %b\r\n" % header for header in self.server_state.default_headers])
        self.transport.write(b"".join((STATUS_LINE[status], date, text)))
        self._rest()
        return True

    def _rest(self) -> None:
        """Close after a while, unless something is asked for."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._sweeper.stalls(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._sweeper.moves(self)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # ours says it
        self.refuse(400, "this is no HTTP request")

    def refuse(self, code: int, detail: str, headers: bytes = b"") -> None:
        """Answer outside of any request, and close."""
        self._sweeper.has_head(self)
        title = STATUS_LINE[code].split(b" ", 2)[2].strip().decode()
        body = wire.encode(wire.Problem(title=title, status=code, detail=detail))
        self.transport.write(
            b"%bcontent-type: application/problem+json\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b"
            % (STATUS_LINE[code], len(body), headers, body)
        )
        self.transport.close()
