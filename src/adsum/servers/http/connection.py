"""A bounded HTTP connection, with a fast path for brief requests.

A brief request goes past the parser if it arrives whole, while nothing else is under way, with a header block that the
connection remembers (`request_heads`). Everything else takes the way through the parser, with the same bytes.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, Final

from adsum import wire
from adsum.core.validation import quoted
from adsum.mounts import FastPath, Reply
from adsum.ports import ABORT_IF_SILENT, CLIENT_CERTIFICATE, ON_DISCONNECT, OPEN_CHUNKS, SEND_RESPONSE
from adsum.servers.http.chunk_writer import ChunkWriter
from adsum.servers.http.cross_origin import AllowedHosts, is_cross_origin
from adsum.servers.http.limits import MAX_HEAD_BYTES
from adsum.servers.http.request_heads import (
    BRIEF_METHODS,
    END_OF_HEAD,
    MAX_REMEMBERED_BLOCK_BYTES,
    MAX_REMEMBERED_BLOCKS,
    REQUEST_LINE,
    JudgedBlock,
    body_size,
)
from adsum.servers.http.sweeper import Sweeper
from adsum.servers.http.uvicorn_adapter import UvicornConnection, status_line

NOT_HTTP: Final = (400, "this is not a valid HTTP/1.1 request")
HEAD_TOO_LARGE: Final = (431, f"the head of a request may have at most {MAX_HEAD_BYTES} bytes")
USER_TIMEOUT: Final[int | None] = getattr(socket, "TCP_USER_TIMEOUT", None)
"""The socket option that ends a connection when the peer's system acknowledges nothing; None if the platform has
none."""
PEER_TIMEOUT_ERRNOS: Final = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN})
"""Errors with which the system ends a connection when the peer acknowledges nothing. It reports the last obstacle:
EHOSTUNREACH for a sleeping host in the same network."""
HOST_ADVICE: Final = "use an address or localhost, or allow the name with --host-name"
CROSS_ORIGIN: Final = (
    403,
    "a browser sent this request for a page of another site, which may not change anything here",
)

_log = logging.getLogger("adsum.http")


class HttpConnection(UvicornConnection):
    """A connection with limits on everything that the peer can make the server hold."""

    def __init__(
        self,
        sweeper: Sweeper,
        allowed_hosts: AllowedHosts | None,
        fast_path: FastPath | None,
        **uvicorn: Any,
    ) -> None:
        super().__init__(**uvicorn)
        self._sweeper = sweeper
        self._allowed_hosts = allowed_hosts
        self._fast_path = fast_path
        self._recognizes_heads = fast_path is not None
        """True if brief requests of this connection may go past the parser."""
        self._unparsed = 0
        """Bytes received since the last part of a request was complete."""
        self._is_complete = True
        """True if no request is partly read."""
        self._refusal = NOT_HTTP
        """Status and detail of the response to a request that the parser can't read."""
        self._is_peer_lost = False
        """True if the connection ended because the peer's system acknowledged nothing for too long."""
        self._judged: dict[bytes, JudgedBlock] | None = None
        """The header blocks that are remembered; None if there is none."""
        self._last_block = b""
        """The header block of the latest request that could have been brief. It is remembered when it comes again."""
        self._block_to_judge = b""
        """The header block of the request that the parser reads, if it is to be remembered."""
        self._is_declined = False
        """True if the fast path does not answer the request that the parser reads."""
        self._held = b""
        """The first read of a brief request whose body is not complete."""
        self._pending = b""
        """The brief request whose response is awaited."""
        self._queued = b""
        """What arrived behind it: one read, because no more is read until the response is written."""
        self._is_stopping = False
        """True if the connection ends after the response that is awaited."""
        self._disconnected: Callable[[], None] | None = None
        """Called when the client of the response under way disconnects."""
        self._chunks: ChunkWriter | None = None
        """Writes chunks of the response under way."""

    def abort(self) -> None:
        """Closes without a response."""
        self._sweeper.on_shed("aborted")
        self.disconnect_requests()
        self.abort_transport()

    def refuse(self, code: int, detail: str) -> None:
        """Answers a request that can't be read, and closes. Aborts if this would break a response that is under way."""
        self._sweeper.request_completed(self)
        if self.has_begun_response:
            self.abort()
            return
        self._sweeper.on_shed(str(code))
        self.disconnect_requests()
        self.write_last_response(code, problem_and_close(code, detail))

    def disconnect_requests(self) -> None:
        self._held = self._pending = self._queued = b""
        super().disconnect_requests()
        if self._chunks is not None:
            self._chunks.close()
        callback, self._disconnected = self._disconnected, None
        if callback is not None:
            callback()

    def keeps_open(self) -> bool:
        return bool(self._held or self._pending)

    def delays_stop(self) -> bool:
        self._is_stopping = bool(self._pending)
        return self._is_stopping

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_peer_lost = is_peer_timeout(exc)
        self._sweeper.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._pending:
            self._queued += data
            self.hold_reading()
            return
        held = self._held
        if held:
            data, self._held = held + data, b""
        if (
            self._fast_path is None
            or not self._recognizes_heads
            or not self._is_complete
            or not self.takes_brief_requests
            or not self._take_brief(self._fast_path, data, has_waited=bool(held))
        ):
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        self._unparsed += len(data)
        self._is_complete = False
        super().data_received(data)
        if self._is_complete or self.is_closing:
            self._sweeper.request_completed(self)
        elif self._unparsed > MAX_HEAD_BYTES:
            self.refuse(*HEAD_TOO_LARGE)
        else:
            self._sweeper.request_started(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._chunks is not None:
            self._chunks.is_paused = True
        self._sweeper.peer_stalled(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._chunks is not None:
            self._chunks.is_paused = False
        self._sweeper.peer_resumed(self)

    def request_began(self) -> None:
        self._is_complete = False

    def head_received(self) -> bool:
        if self._unparsed > MAX_HEAD_BYTES and self._head_bytes() > MAX_HEAD_BYTES:
            self._refusal = HEAD_TOO_LARGE
            raise ValueError
        refusal = self._browser_refusal()
        if refusal is not None:
            self._refusal = refusal
            raise ValueError
        self._unparsed = 0
        return self._fast_path is not None and self._answer_parsed(self._fast_path)

    def task_starting(self, state: MutableMapping[str, Any]) -> None:
        state[SEND_RESPONSE] = self.answer_latest
        state[OPEN_CHUNKS] = self._open_chunk_sender
        state[ABORT_IF_SILENT] = self._abort_if_silent
        state[ON_DISCONNECT] = self._on_disconnect
        if self.client_certificate:
            state[CLIENT_CERTIFICATE] = self.client_certificate

    def body_received(self) -> None:
        self._unparsed = 0

    def request_completed(self) -> None:
        self._unparsed = 0
        self._is_complete = True

    def request_unreadable(self) -> None:
        self.refuse(*self._refusal)

    def _head_bytes(self) -> int:
        """Returns the size of the head that is complete now."""
        return len(self.target) + sum(len(name) + len(value) for name, value in self.header_fields)

    def _browser_refusal(self) -> tuple[int, str] | None:
        """Returns status and detail of a refusal if a foreign page may have caused the request (see `cross_origin`)."""
        hosts = self._allowed_hosts
        if hosts is not None:
            for name, value in self.header_fields:
                if name == b"host":
                    if value in hosts.cached or hosts.allows(value):
                        break
                    return 421, f"this server has no host name {quoted(value.decode('latin-1'))}: {HOST_ADVICE}"
        method = self.method
        return CROSS_ORIGIN if method != b"GET" and is_cross_origin(method, self.header_fields) else None

    def _take_brief(self, fast_path: FastPath, data: bytes, *, has_waited: bool) -> bool:
        """Takes a brief request, or its first read. Returns False, and does nothing, if the parser must read it.

        `has_waited`: the data is the first read and the second one.
        """
        line = REQUEST_LINE.match(data)
        if line is None:
            return False
        start = line.end()
        end = data.find(END_OF_HEAD, start) + len(END_OF_HEAD)
        block = data[start:end]
        judged = self._judged.get(block) if self._judged is not None else None
        if judged is None:
            if 0 < len(block) <= MAX_REMEMBERED_BLOCK_BYTES:
                self._block_to_judge = block if block == self._last_block else b""
                self._last_block = block
            return False
        if judged.prepared is None:
            self._is_declined = True
            return False
        missing = end + judged.body_size - len(data)
        if missing:
            if missing < 0 or has_waited:  # Several requests, or a body in many pieces.
                return False
            self._held = data
            self._sweeper.request_started(self)
            return True
        if has_waited:
            self._sweeper.request_completed(self)
        method, target = line.groups()
        self._pending = data
        is_taken = self._answer(fast_path, method, target, judged.prepared, data[end:], self._reply)
        if is_taken or not self._pending:
            return True
        self._pending = b""
        self._is_declined = True
        return False

    def _answer(
        self, fast_path: FastPath, method: bytes, target: bytes, prepared: object, body: bytes, reply: Reply
    ) -> bool:
        """Has the fast path answer a request. Returns whether it does."""
        try:
            return fast_path.answer(method, target, prepared, body, self.peer_ip, reply)
        except Exception:
            _log.exception("the fast path failed, so the application answers")
            return False

    def _reply(self, status: int | None, encoded: bytes) -> None:
        """Takes the response to the brief request that is pending. Does nothing if the connection has ended."""
        request, self._pending = self._pending, b""
        if not request or self.is_closing:
            return
        if status is None:
            self._parse(request)
            if self._is_stopping:
                self.close_when_answered()
        elif self._is_stopping:
            self.write_last_response(status, b"connection: close\r\n" + encoded)
        else:
            self.write_brief_response(status, encoded)
        if self._queued and not self.is_closing:
            data, self._queued = self._queued, b""
            self.go_on_reading()
            self.data_received(data)

    def _answer_parsed(self, fast_path: FastPath) -> bool:
        """Answers a GET whose head the parser has read, and remembers its header block if it came before.

        Returns False, and writes nothing, if the application must answer.
        """
        block, self._block_to_judge = self._block_to_judge, b""
        is_declined, self._is_declined = self._is_declined, False
        if not self.is_plain_request:
            self._recognizes_heads = False  # The parser may know more about what follows.
            return False
        is_read = not is_declined and self.method == b"GET" and self.takes_brief_requests
        if not (block or is_read):
            return False
        headers = self.header_fields
        prepared = fast_path.prepare(headers, self.client_certificate)
        size = body_size(block, headers) if block else None
        if size is not None and self.method in BRIEF_METHODS and not is_cross_origin(b"POST", headers):
            self._remember(block, JudgedBlock(size, prepared))
        if not is_read or prepared is None:
            return False
        self._pending = b"GET"
        self._answer(fast_path, b"GET", self.target, prepared, b"", self._reply_parsed)
        is_answered, self._pending = not self._pending, b""
        return is_answered

    def _remember(self, block: bytes, judged: JudgedBlock) -> None:
        blocks = self._judged = {} if self._judged is None else self._judged
        if len(blocks) >= MAX_REMEMBERED_BLOCKS:
            del blocks[next(iter(blocks))]
        blocks[block] = judged

    def _reply_parsed(self, status: int | None, encoded: bytes) -> None:
        """Takes the response to a GET whose head the parser has read."""
        if status is not None:
            self._pending = b""
            self.write_response(status, encoded)
            self.restart_idle_timer()

    def _open_chunk_sender(self) -> ChunkWriter | None:
        """Implements `ports.OpenChunks`."""
        self._chunks = self.open_chunks()
        return self._chunks

    def _on_disconnect(self, callback: Callable[[], None] | None) -> bool:
        """Implements `ports.OnDisconnect`."""
        self._disconnected = callback
        return not self.is_disconnected

    def _abort_if_silent(self, seconds: float) -> Callable[[], bool]:
        """Implements `ports.AbortIfSilent`."""
        peer = self.peer_socket
        if USER_TIMEOUT is not None and peer is not None and peer.family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError):  # The peer has left.
                peer.setsockopt(socket.IPPROTO_TCP, USER_TIMEOUT, round(seconds * 1_000))
        return lambda: self._is_peer_lost


def problem_and_close(code: int, detail: str) -> bytes:
    """Returns a problem document (RFC 9457) with the headers that end its connection."""
    title = status_line(code).split(b" ", 2)[2].strip().decode()
    body = wire.encode(wire.Problem(title=title, status=code, detail=detail))
    return b"content-type: application/problem+json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
        len(body),
        body,
    )


def closing_response(code: int, detail: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Returns a whole response with these headers: a problem document, after which the connection ends."""
    head = b"".join(b"%b: %b\r\n" % header for header in headers)
    return status_line(code) + head + problem_and_close(code, detail)


def is_peer_timeout(error: Exception | None) -> bool:
    """Returns whether a connection ended with that error because the peer acknowledged nothing for too long."""
    return isinstance(error, OSError) and error.errno in PEER_TIMEOUT_ERRNOS
