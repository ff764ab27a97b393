"""One connection: uvicorn's protocol, bounded, and with a shortcut for what can be answered at once."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from adsum import wire
from adsum.core.validation import quoted
from adsum.ports import ABORT_IF_SILENT, SEND_CHUNK, SEND_RESPONSE
from adsum.servers.http.cross_origin import AllowedHosts, is_cross_origin
from adsum.servers.http.limits import MAX_HEAD_BYTES, MAX_PIPELINED_REQUESTS, Sweeper

FastPathFunction = Callable[[bytes, Sequence[tuple[bytes, bytes]]], "tuple[int, bytes] | None"]
"""From the target and the headers of a GET to its answer, if that needs no waiting: the status, and everything behind
the status line and the date."""

MAX_CACHED_CHUNKS: Final = 16
"""How many chunks are kept; one that is said again after so many others is made again."""
NOT_HTTP: Final = (400, "this is no HTTP request")
HEAD_TOO_LARGE: Final = (431, f"a request's head may have at most {MAX_HEAD_BYTES} bytes")
USER_TIMEOUT: Final[int | None] = getattr(socket, "TCP_USER_TIMEOUT", None)
"""The socket option that ends a connection whose peer's system acknowledges nothing; None: the platform has none."""
PEER_TIMEOUT_ERRNOS: Final = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN})
"""Errors with which the system gives up a connection whose peer acknowledges nothing. It says the last obstacle that it
met: of a host that sleeps in the same network, that there is no way to it."""
HOST_ADVICE: Final = "use an address or localhost, or admit the name with --host-name"
CROSS_ORIGIN: Final = (403, "a browser sent this for another site's page, which may change nothing here")


class HttpConnection(HttpToolsProtocol):
    """One connection, with what uvicorn leaves unbounded bounded."""

    def __init__(
        self, sweeper: Sweeper, hosts: AllowedHosts | None, prompt: FastPathFunction | None, **given: Any
    ) -> None:
        super().__init__(**given)
        self._sweeper = sweeper
        self._hosts = hosts
        self._prompt = prompt
        self._answering: RequestResponseCycle | None = None
        """The request that was begun last; others that came behind it may wait in `pipeline`."""
        self._answered = False
        """Whether the request that is being read has been answered promptly."""
        self._unread = 0
        """Bytes that came since the last piece of a request was complete."""
        self._whole = True
        """Whether no request is partly read."""
        self._refusal = NOT_HTTP
        """What to say to what can't be read on."""
        self._vanished = False
        """Whether the connection ended because the peer's system acknowledged nothing for too long."""

    def unsent_bytes(self) -> int:
        """Bytes that the peer has not taken yet."""
        return self.transport.get_write_buffer_size()

    def abort(self) -> None:
        """Close without a word."""
        self._sweeper.on_shed("aborted")
        self._gone()
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        self._vanished = is_peer_timeout(exc)
        self._sweeper.remove(self)
        self._unset_keepalive_if_required()
        self._gone()
        super().connection_lost(exc)
        if self._answering is not None:
            self._answering.scope["state"].clear()  # It leads back to us, and would keep us for a while.

    def eof_received(self) -> None:
        """A peer that ends its side is gone: nothing more is written, and whoever waits for it is told."""
        self._gone()

    def _gone(self) -> None:
        """Nobody hears any more: what is under way is told so, and what waits behind it is never begun."""
        self.pipeline.clear()
        for cycle in (self._answering, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        self._unread += len(data)
        self._whole = False
        super().data_received(data)
        if self._whole or self.transport.is_closing():
            self._sweeper.request_completed(self)
        elif self._unread > MAX_HEAD_BYTES:
            self.refuse(*HEAD_TOO_LARGE)
        else:
            self._sweeper.request_started(self)

    def on_message_begin(self) -> None:
        self._whole = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self._unread > MAX_HEAD_BYTES and self._head() > MAX_HEAD_BYTES:
            self._refusal = HEAD_TOO_LARGE
            raise ValueError  # The parser stops, and `send_400_response` is called.
        if not self._is_meant():
            raise ValueError
        self._unread = 0
        self._answered = self._answer_promptly()
        if not self._answered:
            self._unset_keepalive_if_required()  # An answer before it in the same piece may have set it.
            super().on_headers_complete()
            if 0 < len(self.pipeline) <= MAX_PIPELINED_REQUESTS:
                self.flow.resume_reading()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        cycle.scope["state"] |= {
            SEND_RESPONSE: self._answer_at_once,
            SEND_CHUNK: self._say_more_at_once,
            ABORT_IF_SILENT: self._end_if_silent,
        }
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        if not self._answered:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread = 0
        self._whole = True
        if not self._answered:
            super().on_message_complete()

    def _is_meant(self) -> bool:
        """Whether no page tricked a browser into sending this to us (see `browsers`); if one did, what to say to it."""
        hosts = self._hosts
        if hosts is not None:
            for name, value in self.headers:
                if name == b"host":
                    if value in hosts.cached or hosts.allows(value):
                        break
                    self._refusal = (421, f"nobody calls us {quoted(value.decode('latin-1'))} here: {HOST_ADVICE}")
                    return False
        method = self.parser.get_method()
        if method != b"GET" and is_cross_origin(method, self.headers):
            self._refusal = CROSS_ORIGIN
            return False
        return True

    def _head(self) -> int:
        """Bytes of the head that is complete now."""
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

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
        self._write(*answer)
        self._rest()
        return True

    def _answer_at_once(self, status: int, text: bytes) -> bool:
        """Answer the request that was begun last in one write: uvicorn takes two, and wakes the peer for each."""
        cycle = self._answering
        if cycle is None or self.flow.write_paused or not cycle.keep_alive or cycle.scope["method"] == "HEAD":
            return False
        if not cycle.disconnected:
            cycle.response_started = cycle.response_complete = True
            cycle.waiting_for_100_continue = False
            cycle.message_event.set()
            self._write(status, text)
            cycle.on_response()
        return True

    def _end_if_silent(self, seconds: float) -> Callable[[], bool]:
        peer = self.transport.get_extra_info("socket")
        if USER_TIMEOUT is not None and peer is not None and peer.family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError):  # The peer is gone already.
                peer.setsockopt(socket.IPPROTO_TCP, USER_TIMEOUT, round(seconds * 1_000))
        return lambda: self._vanished

    def _say_more_at_once(self, text: bytes) -> bool:
        """Say a piece of an answer of chunks, if it is under way and nothing waits ahead of it."""
        cycle = self._answering
        if cycle is None or not cycle.chunked_encoding or cycle.response_complete or cycle.disconnected:
            return False
        if self.flow.write_paused or self.transport.is_closing():
            return False
        self.transport.write(_chunk(text))
        return True

    def _write(self, status: int, text: bytes) -> None:
        """An answer from the status line on; `text` is what stands behind the date."""
        date = b"".join([b"%b: %b\r\n" % header for header in self.server_state.default_headers])
        self.transport.write(b"".join((STATUS_LINE[status], date, text)))

    def _rest(self) -> None:
        """Close after a while, unless something is asked for."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._sweeper.write_paused(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._sweeper.write_resumed(self)

    def send_400_response(self, msg: str) -> None:  # ours says it
        self.refuse(*self._refusal)

    def refuse(self, code: int, detail: str) -> None:
        """Answer the request that can't be read on, and close; if another's answer is under way, all is cut off."""
        self._sweeper.request_completed(self)
        if self.pipeline or (not self._idle() and self.cycle.response_started):
            self.abort()
            return
        self._sweeper.on_shed(str(code))
        self._gone()
        self.transport.write(closing_response(code, detail, self.server_state.default_headers))
        self.transport.close()


def closing_response(code: int, detail: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A whole answer that ends its connection: a problem document, below those headers."""
    title = STATUS_LINE[code].split(b" ", 2)[2].strip().decode()
    body = wire.encode(wire.Problem(title=title, status=code, detail=detail))
    own = (
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    )
    head = b"".join(b"%b: %b\r\n" % header for header in (*headers, *own))
    return b"".join((STATUS_LINE[code], head, b"\r\n", body))


def is_peer_timeout(error: Exception | None) -> bool:
    """Whether a connection ended with that error because the peer's system acknowledged nothing for too long."""
    return isinstance(error, OSError) and error.errno in PEER_TIMEOUT_ERRNOS


@lru_cache(MAX_CACHED_CHUNKS)
def _chunk(text: bytes) -> bytes:
    """A chunk of an endless answer. Thousands of watches are told the same."""
    return b"%x\r\n%b\r\n" % (len(text), text)
