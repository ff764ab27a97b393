"""Log lines: structured, as JSON for programs or as text for people."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import msgspec

from adsum.core.validation import escape_unprintable
from adsum.telemetry.sink import Sink

_PLAIN: Final = re.compile(r"""[^\s"'=\\]*""")

LogFields = Mapping[str, object]
LineEntry = tuple[float, str, str, LogFields]
"""The wall clock's time, the level, the message and further fields."""
LineFormat = Callable[[float, str, str, LogFields], bytes]
"""From the wall clock's time, the level, the message and further fields to one line."""


def json_line(at: float, level: str, message: str, fields: LogFields) -> bytes:
    """One JSON object."""
    return msgspec.json.encode({"at": _instant(at), "level": level, "message": message, **fields}) + b"\n"


def text_line(at: float, level: str, message: str, fields: LogFields) -> bytes:
    """Time, level, message, then the fields as name=value; a text that could be taken for more than one is quoted.

    A line is one line: whatever would end it or hide a part of it is escaped, since a message can quote a peer.
    """
    words = "".join(f" {name}={_shown(value)}" for name, value in fields.items() if value != "")
    return f"{_instant(at)} {level:<7} {escape_unprintable(message)}{words}\n".encode(errors="backslashreplace")


LINE_FORMATS: Final[Mapping[str, LineFormat]] = MappingProxyType({"json": json_line, "text": text_line})


class Logs:
    """Takes everything that is logged in this process to standard error, until closed."""

    def __init__(self, level: str, format: str, fd: int | None = None) -> None:
        self._format = LINE_FORMATS[format]
        self._sink = Sink(sys.stderr.fileno() if fd is None else fd)
        self._root = logging.getLogger()
        self._level_before = self._root.level
        self._handler = _Handler(self)
        self._root.addHandler(self._handler)
        # What garbage peers send is counted and answered; uvicorn would log each piece of it.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """Take lines of that level and above."""
        self._root.setLevel(level.upper())
        self.logs_changes = self._root.isEnabledFor(logging.INFO)
        """Whether lines of level info are wanted."""

    def log(self, at: float, level: str, message: str, fields: LogFields) -> None:
        """Log one line; never waits."""
        self._sink.put(self._format(at, level, message, fields))

    def log_deferred(self, entries: Callable[[], Iterable[LineEntry]], count: int) -> None:
        """Log so many lines, made in the thread that writes them; never waits."""
        self._sink.put(lambda: b"".join(self._format(*each) for each in entries()), count)

    def close(self) -> None:
        """Write what is left, and leave logging as it was found; idempotent."""
        self._root.removeHandler(self._handler)
        self._root.setLevel(self._level_before)
        self._sink.close()


class _Handler(logging.Handler):
    """From the standard library's records to our lines."""

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields = {"logger": record.name}
            if record.exc_info:
                fields["error"] = logging.Formatter().formatException(record.exc_info)
            self._logs.log(record.created, record.levelname.lower(), record.getMessage(), fields)
        except Exception:
            self.handleError(record)


def _instant(at: float) -> str:
    return f"{_second(int(at))}.{int(at * 1_000) % 1_000:03}Z"


@lru_cache(maxsize=16)  # Most lines share their second with the one before.
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _shown(value: object) -> str:
    # Quoted too: what turns or hides text on a terminal, looks like a space, or ends a line for some readers.
    text = str(value)
    return text if text.isprintable() and _PLAIN.fullmatch(text) else repr(text)
