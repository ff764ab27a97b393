"""The types of ASGI that the dialect uses, and a whole response. The dialect needs no server and no framework."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from adsum.ports import SEND_RESPONSE, SendResponse

Scope = MutableMapping[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

JSON: Final = (b"content-type", b"application/json")
NO_STORE: Final = (b"cache-control", b"no-store")
JSON_HEADERS: Final = (JSON, NO_STORE)
"""The headers of a response that has no others."""

BODY_PIECE_BYTES: Final = 64 * 1024
"""Bytes of a body that the server gets at a time. A longer body follows in pieces as the client reads it: a client that
does not read makes the server hold one piece, and not a copy of the page."""
MAX_JOINED_BYTES: Final = 8 * 1024
"""Bytes of a piece that is joined with those beside it. A longer one is sent by itself, unless a short one precedes it:
then it costs less to copy both than to send twice."""


Piece = bytes | memoryview


class PiecedBody:
    """A body in pieces, which it shares with the bodies before and after it. `bytes` joins them."""

    __slots__ = ("_size", "pieces")

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces
        self._size = sum(map(len, pieces))

    def __len__(self) -> int:
        """The bytes of the whole body."""
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)

    def parts(self) -> Iterator[Piece]:
        """Yields the body in parts of at most `BODY_PIECE_BYTES`. Short pieces are joined, long ones are not copied."""
        short: list[Piece] = []
        size = 0
        for piece in self.pieces:
            if short and size + len(piece) > BODY_PIECE_BYTES:
                yield b"".join(short)
                short, size = [], 0
            if not short and len(piece) > MAX_JOINED_BYTES:
                yield from _slices(piece)
            else:
                short.append(piece)
                size += len(piece)
        if short:
            yield b"".join(short)


def _slices(body: Piece) -> Iterator[memoryview]:
    view = memoryview(body)
    for start in range(0, len(view), BODY_PIECE_BYTES):
        yield view[start : start + BODY_PIECE_BYTES]


@dataclass(frozen=True, slots=True)
class ApiReply:
    """A whole response: status, body, and every header but Content-Length."""

    status: int
    body: bytes | PiecedBody = b""
    headers: Headers = JSON_HEADERS

    def all_headers(self) -> Headers:
        """Returns the headers with Content-Length."""
        if self.status in (204, 304):
            return self.headers
        return (*self.headers, (b"content-length", b"%d" % len(self.body)))

    def encode(self) -> bytes:
        """Returns the response in HTTP/1.1, without the status line and the default headers."""
        if self.headers is JSON_HEADERS and self.status not in (204, 304):
            return encode_json(bytes(self.body))
        lines = b"".join([b"%b: %b\r\n" % header for header in self.all_headers()])
        return b"%b\r\n%b" % (lines, bytes(self.body))

    async def respond(self, scope: Scope, _: Receive, send: Send, /) -> None:
        """Sends the response: in one write, if the server can and the body is short."""
        send_response: SendResponse | None = (
            scope.get("state", {}).get(SEND_RESPONSE) if len(self.body) <= BODY_PIECE_BYTES else None
        )
        if send_response is not None and send_response(self.status, self.encode()):
            return
        await send({"type": "http.response.start", "status": self.status, "headers": self.all_headers()})
        for part in self.body.parts() if isinstance(self.body, PiecedBody) else _slices(self.body):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def encode_json(body: bytes) -> bytes:
    """Returns a response with `JSON_HEADERS`, as `ApiReply.encode` does."""
    return b"content-type: application/json\r\ncache-control: no-store\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


def first_header(headers: Headers, name: bytes) -> str | None:
    """Returns the first header of that name (in lower case), None if there is none."""
    for key, value in headers:
        if key == name:
            return value.decode("latin-1")
    return None
