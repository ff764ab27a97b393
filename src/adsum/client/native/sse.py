"""A parser of Server-Sent Events (WHATWG HTML, "Server-sent events", 9.2.6)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from adsum.client.errors import ProtocolViolation

MAX_EVENT_BYTES: Final = 64 * 1024 * 1024
"""Bytes of one event; a longer one is a protocol violation. A service of 100,000 instances takes about 20 MB."""

_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One event. `id` is "" if the event has none."""

    name: str
    data: bytes
    id: str = ""


class SseParser:
    """Turns bytes into events; a chunk may end anywhere."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._size = 0
        self._clear()

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Returns the events that `chunk` completes.

        Raises `ProtocolViolation` if an event is longer than `MAX_EVENT_BYTES`.
        """
        self._buffer += chunk
        self._size += len(chunk)
        events, start, end = [], 0, len(self._buffer)
        if self._buffer.endswith(b"\r"):
            end -= 1  # It may be the first half of \r\n.
        # What was searched before is not searched again, since a long line may come in many chunks.
        for match in _LINE_END.finditer(self._buffer, self._searched, end):
            event = self._line(bytes(self._buffer[start : match.start()]))
            start = match.end()
            if event is not None:
                events.append(event)
        del self._buffer[:start]
        self._searched = end - start if end > start else 0
        if events:
            self._size = len(self._buffer)
        if self._size > MAX_EVENT_BYTES:
            raise ProtocolViolation(f"an event is longer than {MAX_EVENT_BYTES} bytes")
        return events

    def _line(self, line: bytes) -> SseEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode(errors="replace")
        elif field == b"id" and b"\0" not in value:
            self._id = value.decode(errors="replace")
        return None

    def _dispatch(self) -> SseEvent | None:
        event = SseEvent(self._name or "message", b"\n".join(self._data), self._id) if self._data else None
        self._clear()
        return event

    def _clear(self) -> None:
        self._name, self._id, self._size = "", "", 0
        self._data: list[bytes] = []
