"""Connections of uvicorn, with the hooks and methods that ASGI does not have.

uvicorn has no public way to bound what a connection takes, or to answer a request without an ASGI task.
`UvicornConnection` reaches into uvicorn's httptools protocol for these, and offers plain hooks and methods to the rest
of this package. `uvicorn_parts` lists what it uses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, MutableMapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from adsum.servers.http.chunk_writer import ChunkWriter
from adsum.servers.http.limits import MAX_PIPELINED_REQUESTS


class ResponseHeads:
    """The status lines and default headers of a server, joined once for each second and status."""

    def __init__(self, server_state: ServerState) -> None:
        self._server_state = server_state
        self._headers: object = None
        """The default headers that `_heads` has. uvicorn replaces them every second, because of the date."""
        self._heads: dict[int, bytes] = {}

    def head(self, status: int) -> bytes:
        """Returns the status line and the default headers."""
        headers = self._server_state.default_headers
        if headers is not self._headers:
            self._headers = headers
            self._heads.clear()
        head = self._heads.get(status)
        if head is None:
            head = self._heads[status] = STATUS_LINE[status] + _encoded(headers)
        return head


class UvicornConnection(HttpToolsProtocol):
    """An HTTP/1.1 connection of uvicorn, with hooks and methods that ASGI does not have.

    A subclass overrides the hooks. They are called in the order in which they are written here.
    """

    def __init__(self, response_heads: ResponseHeads, **uvicorn: Any) -> None:
        """`response_heads` are those of the server."""
        super().__init__(**uvicorn)
        self._response_heads = response_heads
        self._latest: RequestResponseCycle | None = None
        """The request whose ASGI task started last. Requests behind it may wait in `pipeline`."""
        self._is_answered = False
        """True if the request that the parser reads is answered already."""
        self._tcp: asyncio.Transport | None = None
        """The transport below TLS; None without TLS."""
        self.client_certificate = b""
        """The verified client certificate (DER), empty if there is none."""
        self._active_at = 0.0
        """When the latest brief response was written, on the clock of the event loop."""

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

    def keeps_open(self) -> bool:
        """Hook: uvicorn would close the connection as idle. Returns whether it is busy with a brief request."""
        return False

    def delays_stop(self) -> bool:
        """Hook: the server stops. Returns whether the connection ends itself after a brief response."""
        return False

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
    def takes_brief_requests(self) -> bool:
        """Returns whether a response that is written now is the next one, and is read."""
        cycle = self.cycle
        return (
            (cycle is None or cycle.response_complete)
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    @property
    def is_plain_request(self) -> bool:
        """Returns whether the request whose head is complete is one of HTTP/1.1 after which the connection goes on."""
        parser = self.parser
        return parser.should_keep_alive() and not parser.should_upgrade() and parser.get_http_version() == "1.1"

    @property
    def peer_ip(self) -> str:
        """The IP address of the peer; "" if it has none."""
        return self.client[0] if self.client else ""

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

    def write_response(self, status: int, encoded: bytes) -> None:
        """Writes a response. `encoded` is everything that follows the status line and the default headers."""
        self.transport.write(self._response_heads.head(status) + encoded)

    def write_brief_response(self, status: int, encoded: bytes) -> None:
        """Writes a response as `write_response` does. The connection is idle from now on."""
        self.transport.write(self._response_heads.head(status) + encoded)
        self._active_at = self.loop.time()

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

    def hold_reading(self) -> None:
        """Stops reading from the peer."""
        self.flow.pause_reading()

    def go_on_reading(self) -> None:
        """Reads from the peer again."""
        self.flow.resume_reading()

    def restart_idle_timer(self) -> None:
        """Has the connection closed after the idle timeout, unless a request comes."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Closes the connection if it is idle. Brief requests only note when they were answered, and move no timer."""
        wait = self._active_at + self.timeout_keep_alive - self.loop.time()
        if self.keeps_open():
            wait = self.timeout_keep_alive
        if wait > 0:
            self.timeout_keep_alive_task = self.loop.call_later(wait, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        if not self.delays_stop():
            self.close_when_answered()

    def close_when_answered(self) -> None:
        """Closes the connection, after the response if a request is under way."""
        super().shutdown()

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


def status_line(status: int) -> bytes:
    """Returns the first line of a response, with its line break."""
    return STATUS_LINE[status]


def _encoded(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])
