"""The one module that uses private parts of uvicorn. `PRIVATE_PARTS` lists them.

uvicorn has no public way to bound what a connection takes, to answer a request without an ASGI task, or to accept
connections with code of our own. `UvicornConnection` and `UvicornServer` reach into uvicorn's httptools protocol and
server for these, and offer plain hooks and methods to the rest of this package. A test compares `PRIVATE_PARTS` with
the installed uvicorn and names the parts that are missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from functools import partial
from typing import Any, Final, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from adsum.servers.http.acceptor import Acceptor, PlainConnector
from adsum.servers.http.chunk_writer import ChunkWriter
from adsum.servers.http.limits import MAX_PIPELINED_REQUESTS
from adsum.servers.http.refusals import Refusals
from adsum.servers.http.tls_connector import TlsConnector

PRIVATE_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol": (
        "_start_asgi_task",
        "_unset_keepalive_if_required",
        "cycle",
        "flow",
        "headers",
        "loop",
        "on_body",
        "on_headers_complete",
        "on_message_begin",
        "on_message_complete",
        "parser",
        "pipeline",
        "send_400_response",
        "server_state",
        "timeout_keep_alive",
        "timeout_keep_alive_handler",
        "timeout_keep_alive_task",
        "transport",
        "url",
    ),
    "uvicorn.protocols.http.httptools_impl:RequestResponseCycle": (
        "chunked_encoding",
        "disconnected",
        "keep_alive",
        "message_event",
        "on_response",
        "response_complete",
        "response_started",
        "scope",
        "waiting_for_100_continue",
    ),
    "uvicorn.protocols.http.flow_control:FlowControl": ("resume_reading", "write_paused"),
    "uvicorn.server:Server": (
        "capture_signals",
        "config",
        "lifespan",
        "server_state",
        "servers",
        "should_exit",
        "started",
        "startup",
    ),
    "uvicorn.server:ServerState": ("connections", "default_headers"),
    "uvicorn.config:Config": ("backlog", "http_protocol_class"),
    "uvicorn.lifespan.off:LifespanOff": ("startup", "state"),
}
"""Class → its attributes and methods that this module uses. The status lines (`STATUS_LINE`) are used as well."""


class UvicornConnection(HttpToolsProtocol):
    """An HTTP/1.1 connection of uvicorn, with hooks and methods that ASGI does not have.

    A subclass overrides the hooks. They are called in the order in which they are written here.
    """

    def __init__(self, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._latest: RequestResponseCycle | None = None
        """The request whose ASGI task started last. Requests behind it may wait in `pipeline`."""
        self._is_answered = False
        """True if the request that the parser reads is answered already."""
        self._tcp: asyncio.Transport | None = None
        """The transport below TLS; None without TLS."""
        self.client_certificate = b""
        """The verified client certificate (DER), empty if there is none."""

    def request_began(self) -> None:
        """Hook: the first byte of a request was parsed."""

    def head_received(self) -> bool:
        """Hook: the head of a request is complete. Returns whether the hook has answered the request.

        uvicorn ignores a request that is answered. A `ValueError` stops the parser; `request_unreadable` follows.
        """
        return False

    def task_starting(self, state: MutableMapping[str, Any]) -> None:
        """Hook: the ASGI task of a request starts. `state` is the state of its scope."""

    def body_received(self) -> None:
        """Hook: a part of the body was parsed."""

    def request_completed(self) -> None:
        """Hook: the last byte of a request was parsed."""

    def request_unreadable(self) -> None:
        """Hook: the parser stopped. The hook answers and closes the connection."""

    @property
    def method(self) -> bytes:
        """The method of the request whose head is complete."""
        return bytes(self.parser.get_method())

    @property
    def target(self) -> bytes:
        """The target of that request."""
        return self.url

    @property
    def header_fields(self) -> list[tuple[bytes, bytes]]:
        """The headers of that request, with lower-case names."""
        return self.headers

    @property
    def is_closing(self) -> bool:
        return self.transport.is_closing()

    @property
    def is_idle(self) -> bool:
        """Returns whether no response is under way."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def is_disconnected(self) -> bool:
        """Returns whether the peer has left the request whose task started last."""
        return self._latest is not None and self._latest.disconnected

    @property
    def has_begun_response(self) -> bool:
        """Returns whether part of a response is written, or requests wait behind one that is being answered."""
        return bool(self.pipeline) or (not self.is_idle and self.cycle.response_started)

    @property
    def peer_socket(self) -> Any:
        """The socket of the connection, or None."""
        return self.transport.get_extra_info("socket")

    def unsent_bytes(self) -> int:
        """Returns how many bytes the peer has not taken yet."""
        below_tls = 0 if self._tcp is None else self._tcp.get_write_buffer_size()
        return self.transport.get_write_buffer_size() + below_tls

    def abort_transport(self) -> None:
        """Closes now. Bytes that the peer has not taken are lost."""
        self.transport.abort()

    def can_answer_without_task(self) -> bool:
        """Returns whether the request whose head is complete is a plain GET of HTTP/1.1 that no other response
        precedes.
        """
        parser = self.parser
        return (
            parser.get_method() == b"GET"
            and self.is_idle
            and not self.flow.write_paused
            and parser.should_keep_alive()
            and not parser.should_upgrade()
            and parser.get_http_version() == "1.1"
        )

    def write_response(self, status: int, encoded: bytes) -> None:
        """Writes a response. `encoded` is everything that follows the status line and the default headers."""
        self.transport.write(b"".join((STATUS_LINE[status], _encoded(self.server_state.default_headers), encoded)))

    def write_last_response(self, status: int, encoded: bytes) -> None:
        """Writes a response as `write_response` does, and closes the connection when the peer has taken it."""
        self.write_response(status, encoded)
        self.transport.close()

    def answer_latest(self, status: int, encoded: bytes) -> bool:
        """Answers the request whose task started last, in one write. uvicorn takes two, and wakes the peer for each.

        Returns False, and writes nothing, if the response needs ASGI.
        """
        cycle = self._latest
        if cycle is None or self.flow.write_paused or not cycle.keep_alive or cycle.scope["method"] == "HEAD":
            return False
        if not cycle.disconnected:
            cycle.response_started = cycle.response_complete = True
            cycle.waiting_for_100_continue = False
            cycle.message_event.set()
            self.write_response(status, encoded)
            cycle.on_response()
        return True

    def open_chunks(self) -> ChunkWriter | None:
        """Returns a writer for chunks of the response that is under way; None if it is not chunked, or has ended."""
        cycle = self._latest
        if cycle is None or not cycle.chunked_encoding or cycle.response_complete or cycle.disconnected:
            return None
        return ChunkWriter(self.transport, is_paused=self.flow.write_paused)

    def disconnect_requests(self) -> None:
        """Reports the end of the connection to requests under way, and drops the requests that wait behind them."""
        self.pipeline.clear()
        for cycle in (self._latest, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def stop_idle_timer(self) -> None:
        """Keeps the idle timeout from closing the connection."""
        self._unset_keepalive_if_required()

    def restart_idle_timer(self) -> None:
        """Has the connection closed after the idle timeout, unless a request comes."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.restart_idle_timer()

    def tls_connection_made(self, transport: asyncio.Transport, tcp: asyncio.Transport) -> None:
        """Takes a connection after its handshake. `tcp` is the transport below TLS.

        TLS keeps no bytes of its own: writing stops when `tcp` does not take more, as it does without TLS.
        """
        transport.set_write_buffer_limits(high=1, low=0)
        self._tcp = tcp
        self.client_certificate = transport.get_extra_info("ssl_object").getpeercert(True) or b""
        self.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._tcp = None
        self.stop_idle_timer()
        self.disconnect_requests()
        super().connection_lost(exc)
        if self._latest is not None:
            self._latest.scope["state"].clear()  # The state holds methods of this object, and would keep it alive.

    def eof_received(self) -> None:
        """Treats a peer that closes its side as disconnected: nothing more is written to it."""
        self.disconnect_requests()

    def on_message_begin(self) -> None:
        self.request_began()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_answered = self.head_received()
        if not self._is_answered:
            self._unset_keepalive_if_required()  # A response to an earlier request in the same data may have set it.
            super().on_headers_complete()
            if 0 < len(self.pipeline) <= MAX_PIPELINED_REQUESTS:
                self.flow.resume_reading()

    def on_body(self, body: bytes) -> None:
        self.body_received()
        if not self._is_answered:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self.request_completed()
        if not self._is_answered:
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._latest = cycle
        self.task_starting(cycle.scope["state"])
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        self.request_unreadable()


class UvicornServer(uvicorn.Server):
    """uvicorn's server without its signal handlers, and with an `Acceptor` for each socket."""

    def __init__(
        self, config: uvicorn.Config, refusal: Callable[[], bytes | None], tls: Callable[..., TlsConnector] | None
    ) -> None:
        """`refusal`: see `Acceptor`. `tls` creates a `TlsConnector`, given its `protocol` and its `refusals`."""
        super().__init__(config)
        self.up = asyncio.Event()
        """Set when connections are accepted."""
        self._refusal = refusal
        self._tls = tls
        self._acceptors: list[Acceptor] = []

    @property
    def connection_count(self) -> int:
        """The number of open connections."""
        return len(self.server_state.connections)

    @property
    def arriving_count(self) -> int:
        """The number of accepted connections that are not open yet, since their handshake is under way."""
        return sum(acceptor.arriving for acceptor in self._acceptors)

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of every response: the date, and those of the configuration."""
        return self.server_state.default_headers

    def request_stop(self) -> None:
        """Makes `serve` return soon."""
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the daemon."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        protocol = partial(
            cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class),
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        refusals = Refusals()
        connector = self._tls(protocol=protocol, refusals=refusals) if self._tls else PlainConnector(protocol)
        self._acceptors = [Acceptor(sock, connector, self._refusal, refusals) for sock in sockets or ()]
        for acceptor in self._acceptors:
            acceptor.start(self.config.backlog)
        self.servers = cast("list[asyncio.Server]", self._acceptors)
        self.started = True
        self.up.set()


def status_line(status: int) -> bytes:
    """Returns the first line of a response, with its line break."""
    return STATUS_LINE[status]


def _encoded(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])
