"""A bounded HTTP connection, with a fast path for responses that need no waiting."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, Final

from adsum import wire
from adsum.core.validation import quoted
from adsum.mounts import FastPathReply
from adsum.ports import ABORT_IF_SILENT, CLIENT_CERTIFICATE, ON_DISCONNECT, OPEN_CHUNKS, SEND_RESPONSE
from adsum.servers.http.chunk_writer import ChunkWriter
from adsum.servers.http.cross_origin import AllowedHosts, is_cross_origin
from adsum.servers.http.limits import MAX_HEAD_BYTES
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


class HttpConnection(UvicornConnection):
    """A connection with limits on everything that the peer can make the server hold."""

    def __init__(
        self,
        sweeper: Sweeper,
        allowed_hosts: AllowedHosts | None,
        fast_path: FastPathReply | None,
        **uvicorn: Any,
    ) -> None:
        super().__init__(**uvicorn)
        self._sweeper = sweeper
        self._allowed_hosts = allowed_hosts
        self._fast_path = fast_path
        self._unparsed = 0
        """Bytes received since the last part of a request was complete."""
        self._is_complete = True
        """True if no request is partly read."""
        self._refusal = NOT_HTTP
        """Status and detail of the response to a request that the parser can't read."""
        self._is_peer_lost = False
        """True if the connection ended because the peer's system acknowledged nothing for too long."""
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

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_peer_lost = is_peer_timeout(exc)
        self._sweeper.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
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
        return self._answer_fast()

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

    def _answer_fast(self) -> bool:
        """Answers without a task. Returns False, and writes nothing, if the fast path has no response."""
        if self._fast_path is None or not self.can_answer_without_task():
            return False
        response = self._fast_path(self.target, self.header_fields, self.client_certificate)
        if response is None:
            return False
        self.write_response(*response)
        self.restart_idle_timer()
        return True

    def disconnect_requests(self) -> None:
        super().disconnect_requests()
        if self._chunks is not None:
            self._chunks.close()
        callback, self._disconnected = self._disconnected, None
        if callback is not None:
            callback()

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
