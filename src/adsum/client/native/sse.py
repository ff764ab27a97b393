"""Server-Sent Events, parsed as they arrive (WHATWG HTML, "Server-sent events", 9.2.6)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from adsum.client.errors import ProtocolViolation

MAX_EVENT_BYTES: Final = 64 * 1024 * 1024
"""Bytes of one event; a longer one is garbled. A service of 100,000 instances takes some 20 MB."""

_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One event; `id` is "" if it carried none."""

    name: str
    data: bytes
    id: str = ""


class SseParser:
    """Bytes in, events out; a chunk may end anywhere."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._seen = 0
        self._size = 0
        self._clear()

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that `chunk` completes. Raises `ProtocolViolation` past `MAX_EVENT_BYTES`."""
        self._rest += chunk
        self._size += len(chunk)
        events, start, end = [], 0, len(self._rest)
        if self._rest.endswith(b"\r"):
            end -= 1  # It may be half of \r\n.
        # What was already searched is not searched again: a long line may come in many chunks.
        for match in _LINE_END.finditer(self._rest, self._seen, end):
            event = self._line(bytes(self._rest[start : match.start()]))
            start = match.end()
            if event is not None:
                events.append(event)
        del self._rest[:start]
        self._seen = end - start if end > start else 0
        if events:
            self._size = len(self._rest)
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
