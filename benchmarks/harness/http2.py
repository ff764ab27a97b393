"""A minimal HTTP/2 (RFC 9113) and gRPC client for etcd, as cheap as the callers over HTTP/1.1.

Headers of answers are not decoded: a call that succeeds has a message, one that fails has only a status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

from benchmarks.harness.callers import CallerRun, LoadConnection

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1

MAX_WINDOW: Final = 2**31 - 1
"""Bytes of the flow-control windows: the maximum, so that the server never waits."""
WINDOW_REFILL: Final = 2**30
"""Received bytes after which the connection's window is refilled."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Encodes a frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def connection_preface() -> bytes:
    """Encodes what a client sends first, with the maximum of windows."""
    settings = (0x4).to_bytes(2, "big") + MAX_WINDOW.to_bytes(4, "big")
    wider = (MAX_WINDOW - 65_535).to_bytes(4, "big")
    start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    return start + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, wider)


def headers(path: str) -> bytes:
    """Encodes the header block of a gRPC call, the same for every call: literals without indexing (RFC 7541, 6.2.2)."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "127.0.0.1",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(
        b"\x00" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
        for name, value in fields.items()
    )


def message(body: bytes) -> bytes:
    """Frames a message for gRPC, uncompressed."""
    return b"\x00" + len(body).to_bytes(4, "big") + body


class FrameReader:
    """Splits a stream of bytes into frames: (kind, flags, payload)."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        data = self._rest + data if self._rest else data
        at = 0
        while len(data) - at >= 9:
            end = at + 9 + int.from_bytes(data[at : at + 3], "big")
            if end > len(data):
                break
            yield data[at + 3], data[at + 4], data[at + 9 : end]
            at = end
        self._rest = data[at:]


class GrpcConnection(LoadConnection):
    """Sends unary calls of one method, one after the other; requests are messages."""

    def __init__(self, run: CallerRun, path: str) -> None:
        super().__init__(run)
        self._headers = headers(path)
        self._frames = FrameReader()
        self._stream = -1
        self._size = 0
        self._received = 0

    @staticmethod
    def for_method(path: str) -> Callable[[CallerRun], GrpcConnection]:
        return lambda run: GrpcConnection(run, path)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(connection_preface())
        self.send_next()

    def write(self, request: bytes) -> None:
        self._stream += 2
        self._size = 0
        self.transport.write(
            frame(HEADERS, END_HEADERS, self._stream, self._headers)
            + frame(DATA, END_STREAM, self._stream, message(request))
        )

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > WINDOW_REFILL:
            self.transport.write(frame(WINDOW_UPDATE, 0, 0, self._received.to_bytes(4, "big")))
            self._received = 0
        for kind, flags, payload in self._frames.feed(data):
            if kind == DATA:
                self._size += len(payload)
            elif kind == HEADERS and flags & END_STREAM:
                self.answered(self._size > 0, self._size)
            elif kind == SETTINGS and not flags & ACK:
                self.transport.write(frame(SETTINGS, ACK, 0))
            elif kind == PING and not flags & ACK:
                self.transport.write(frame(PING, ACK, 0, payload))
            elif kind in (RST_STREAM, GOAWAY):
                self.transport.abort()
                return
