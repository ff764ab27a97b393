"""Prints data to standard output and messages to standard error: tables for people, plain lines for pipes.

Colour is off if `NO_COLOR` is set. Otherwise it is on if `FORCE_COLOR` or `CLICOLOR_FORCE` is set, or if the stream is
a terminal other than a dumb one.

Texts come from untrusted sources. Characters that are not printable are escaped here, and only here. Characters that
the encoding of a stream lacks are escaped too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, TextIO

import msgspec

from adsum.core.validation import escape_unprintable

if TYPE_CHECKING:
    from rich.console import Console

    from adsum.telemetry.sink import Sink

STATUS_COLOURS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "passing": "green",
        "warning": "yellow",
        "starting": "cyan",
        "critical": "red",
        "draining": "magenta",
        "maintenance": "blue",
        "gone": "bright_black",
    }
)
"""Status → its colour."""

_ANSI: Final = MappingProxyType(
    {"green": 32, "yellow": 33, "cyan": 36, "red": 31, "magenta": 35, "blue": 34, "bright_black": 90}
)
_UNITS: Final = MappingProxyType({1.0: "s", 60.0: "min", 3_600.0: "h", 86_400.0: "d"})
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7e]+")
_sinks: dict[str, Sink] = {}
"""The writers of standard output and standard error within `non_blocking`; empty outside of it."""


def wants_rich(stream: TextIO, environ: Mapping[str, str] | None = None) -> bool:
    """Returns whether `stream` gets tables made by rich: on a terminal that is not dumb, or with forced colours."""
    environ = os.environ if environ is None else environ
    return wants_colour(stream, environ) or (stream.isatty() and environ.get("TERM") != "dumb")


def wants_colour(stream: TextIO, environ: Mapping[str, str] | None = None) -> bool:
    """Returns whether `stream` gets colours."""
    environ = os.environ if environ is None else environ
    if environ.get("NO_COLOR"):
        return False
    if any(environ.get(name, "0") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    return stream.isatty() and environ.get("TERM") != "dumb"


@contextlib.contextmanager
def non_blocking() -> Iterator[None]:
    """A context in which printing never waits for a reader: lines that nobody reads are dropped and counted.

    For commands that do more than print, such as renewing a lease.
    """
    from adsum.telemetry.sink import Sink

    sinks = {"stdout": Sink(sys.stdout.fileno()), "stderr": Sink(sys.stderr.fileno())}
    _sinks.update(sinks)
    try:
        yield
    finally:
        _sinks.clear()
        for sink in sinks.values():
            sink.close()


class MessageHandler(logging.Handler):
    """A log handler that prints each record to standard error with `print_message`."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print_message(self.format(record))
        except Exception:
            self.handleError(record)


def print_message(message: str) -> None:
    """Print a message for people to standard error. A text of several lines keeps its lines."""
    _write("stderr", "\n".join(map(escape_unprintable, message.split("\n"))))


class StatusText(NamedTuple):
    """A part of a line, printed in the colour of a status."""

    text: str
    status: str


def print_line(*parts: str | StatusText) -> None:
    """Print one line to standard output at once. A line that is wider than the terminal is broken between words."""
    width = sum(len(part.text if isinstance(part, StatusText) else part) for part in parts)
    if width > shutil.get_terminal_size().columns and wants_rich(sys.stdout) and not _sinks:
        _rich_line(parts)
    else:
        _write("stdout", "".join(_format_part(part) for part in parts))


def _format_part(part: str | StatusText) -> str:
    if isinstance(part, str):
        return escape_unprintable(part)
    colour = _ANSI.get(STATUS_COLOURS.get(part.status, ""))
    text = escape_unprintable(part.text)
    return f"\x1b[{colour}m{text}\x1b[0m" if colour and wants_colour(sys.stdout) else text


def print_json(value: object) -> None:
    """Print the value as one line of JSON, in the format of the registry's API.

    Characters that are not printable, or that standard output can't encode, are written as JSON escapes.
    """
    text = msgspec.json.encode(value).decode()
    encoding = sys.stdout.encoding or "ascii"
    _write("stdout", _NOT_ASCII.sub(lambda match: _json_escaped(match[0], encoding), text))


def _json_escaped(text: str, encoding: str) -> str:
    """Returns the text itself if it is printable and can be encoded, else JSON escapes in UTF-16 units (RFC 8259)."""
    with contextlib.suppress(UnicodeEncodeError):
        text.encode(encoding)
        if text.isprintable():
            return text
    units = text.encode("utf-16-be")
    return "".join(f"\\u{units[n]:02x}{units[n + 1]:02x}" for n in range(0, len(units), 2))


def _write(name: str, text: str) -> None:
    """Write one line to the standard stream `name`."""
    sink = _sinks.get(name)
    stream = getattr(sys, name)
    if sink is not None:
        sink.put(f"{text}\n".encode(stream.encoding or "ascii", errors="backslashreplace"))
    else:
        print(text, file=stream, flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], status: str = "STATUS") -> None:
    """Print a table without its empty columns. The column named `status` is coloured by its values."""
    rows = [[escape_unprintable(cell) for cell in row] for row in rows]
    columns_kept = [n for n in range(len(columns)) if n == 0 or any(row[n] for row in rows)]
    columns, rows = [columns[n] for n in columns_kept], [[row[n] for n in columns_kept] for row in rows]
    if wants_rich(sys.stdout):
        _rich_table(columns, rows, status)
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in [columns, *rows] if any(columns) else rows:
        print_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def ago(at: float, now: float | None = None) -> str:
    """Returns the time since an instant of the wall clock, such as `12 s ago` or `5 min ago`; "" for the instant 0."""
    return f"{format_duration((time.time() if now is None else now) - at)} ago" if at else ""


def until(at: float, now: float) -> str:
    """Returns the time until an instant of the wall clock, such as `in 5 min`, or since it, such as `2 d ago`.

    A time left is rounded, so that 90 d are not shown as 89 d at once.
    """
    if at <= now:
        return ago(at, now)
    return f"in {format_duration(at - now + _unit(at - now) / 2)}"


def format_duration(duration: float) -> str:
    """Returns a duration in whole units: `0 s`, `12 s`, `5 min`, `3 h`, `2 d`."""
    unit = _unit(duration)
    return f"{max(0.0, duration) // unit:.0f} {_UNITS[unit]}"


def _unit(duration: float) -> float:
    """Returns the unit in which a duration is shown, in seconds."""
    for unit, limit in ((1.0, 120.0), (60.0, 3_600.0), (3_600.0, 172_800.0)):
        if duration < limit:
            return unit
    return 86_400.0


def format_latency(duration: float) -> str:
    """Returns a short duration with two digits, or in whole milliseconds: `0.42 ms`, `17 ms`, `250 ms`, `1.5 s`."""
    milliseconds = float(f"{duration * 1_000:.2g}") if duration < 0.1 else round(duration * 1_000)
    return f"{duration:.2g} s" if milliseconds >= 1_000 else f"{milliseconds:g} ms"


def time_of_day(at: float) -> str:
    """Returns an instant as the local time of day."""
    return datetime.fromtimestamp(at).strftime("%H:%M:%S")


def format_cause(cause: str, actor: str, reason: str, peer: str = "", claimed: str = "") -> str:
    """Returns a cause, its actor and its reason as one clause.

    `peer` is the address that the request came from. `claimed` is the actor that it named without proof.
    """
    notes = [f"as {claimed}"] if claimed and claimed != actor else []
    notes += [f"from {peer}"] if peer and not actor.endswith(f"@{peer}") else []
    by = f" by {actor}" if actor else ""
    by += f" ({', '.join(notes)})" if notes else ""
    return f"{cause}{by}: {reason}" if reason else f"{cause}{by}"


def _rich_line(parts: Sequence[str | StatusText]) -> None:
    from rich.text import Text

    text = Text()
    for part in parts:
        if isinstance(part, StatusText):
            text.append(escape_unprintable(part.text), STATUS_COLOURS.get(part.status))
        else:
            text.append(escape_unprintable(part))
    _console().print(text)


def _console() -> Console:
    from rich.console import Console

    no_color = not wants_colour(sys.stdout)
    return Console(force_terminal=True, no_color=no_color, color_system="standard", highlight=False)


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], status: str) -> None:
    from rich.table import Table
    from rich.text import Text

    colour = wants_colour(sys.stdout)
    table = Table(box=None, pad_edge=False, show_header=any(columns), header_style="bold" if colour else "")
    words = [max((len(word) for row in rows for word in row[n].split()), default=0) for n in range(len(columns))]
    fits = sum(words) + 2 * len(words) <= shutil.get_terminal_size().columns
    for column, longest in zip(columns, words, strict=True):
        # Words are cut only if the terminal is too narrow for the longest word of each column.
        table.add_column(column, overflow="fold", min_width=longest if fits else None)
    for row in rows:
        cells = [
            Text(cell, style=STATUS_COLOURS.get(cell, "") if name == status else "")
            for name, cell in zip(columns, row, strict=True)
        ]
        table.add_row(*cells)
    _console().print(table)
