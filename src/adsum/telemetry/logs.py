"""Structured log lines, as JSON for programs or as text for people."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping
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
"""The wall-clock time, the level, the message and further fields of a line."""
LineFormat = Callable[[float, str, str, LogFields], bytes]
"""Formats the wall-clock time, the level, the message and further fields as one line."""


def json_line(at: float, level: str, message: str, fields: LogFields) -> bytes:
    """Returns the line as one JSON object."""
    return msgspec.json.encode({"at": format_time(at), "level": level, "message": message, **fields}) + b"\n"


def text_line(at: float, level: str, message: str, fields: LogFields) -> bytes:
    """Returns the line as text: time, level, message, then the fields as name=value, quoted where they are ambiguous.

    Characters that would end the line or hide a part of it are escaped, since a message can quote a peer.
    """
    text = f"{format_time(at)} {level:<7} {escape_unprintable(message)}{format_fields(fields)}\n"
    return text.encode(errors="backslashreplace")


def format_fields(fields: LogFields) -> str:
    """Returns the fields of a line as text, each with a space before it. Fields with the value "" are left out."""
    return "".join(f" {name}={_format_value(value)}" for name, value in fields.items() if value != "")


LINE_FORMATS: Final[Mapping[str, LineFormat]] = MappingProxyType({"json": json_line, "text": text_line})
"""Value of the setting `log_format` → its formatter."""


class Logs:
    """Writes everything that this process logs to standard error, until closed."""

    def __init__(self, level: str, format: str, fd: int | None = None) -> None:
        self.format = format
        """The name of the format, a key of `LINE_FORMATS`."""
        self._format_line = LINE_FORMATS[format]
        self._sink = Sink(sys.stderr.fileno() if fd is None else fd)
        self._root = logging.getLogger()
        self._previous_level = self._root.level
        self._handler = _Handler(self)
        self._root.addHandler(self._handler)
        # Invalid requests are counted and answered; uvicorn would log each of them.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """Log lines of this level and above."""
        self._root.setLevel(level.upper())
        self.logs_changes = self._root.isEnabledFor(logging.INFO)
        """True if changes are logged: their level is info."""

    def log(self, at: float, level: str, message: str, fields: LogFields) -> None:
        """Log one line; never waits."""
        self._sink.put(self._format_line(at, level, message, fields))

    def put_lines(self, lines: bytes | Callable[[], bytes], count: int) -> None:
        """Log `count` lines that are formatted already, or that the writing thread is to format; never waits."""
        self._sink.put(lines, count)

    def close(self) -> None:
        """Write the remaining lines and restore the logging configuration; idempotent."""
        self._root.removeHandler(self._handler)
        self._root.setLevel(self._previous_level)
        self._sink.close()


class _Handler(logging.Handler):
    """A handler that writes records of the standard library to `Logs`."""

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


def format_time(at: float) -> str:
    """Returns an instant on the wall clock, in UTC with milliseconds."""
    return f"{_format_second(int(at))}.{int(at * 1_000) % 1_000:03}Z"


@lru_cache(maxsize=16)  # Most lines share their second with the one before.
def _format_second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _format_value(value: object) -> str:
    # Also quotes characters that reverse or hide text on a terminal, look like a space, or end a line for some readers.
    text = str(value)
    return text if text.isprintable() and _PLAIN.fullmatch(text) else repr(text)
