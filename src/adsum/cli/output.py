"""What is printed: data on standard output, talk on standard error; tables for people, plain lines for pipes.

Colour: `NO_COLOR` switches it off, else `FORCE_COLOR` or `CLICOLOR_FORCE` switches it on, else a terminal that is not
dumb has it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final, TextIO

import msgspec

COLOURS: Final[Mapping[str, str]] = MappingProxyType(
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
"""Status → its colour, the same everywhere."""

_ANSI: Final = MappingProxyType(
    {"green": 32, "yellow": 33, "cyan": 36, "red": 31, "magenta": 35, "blue": 34, "bright_black": 90}
)


def rich_wanted(stream: TextIO, environ: Mapping[str, str] | None = None) -> bool:
    """Whether a person looks at `stream` on a terminal that can do more than print lines."""
    environ = os.environ if environ is None else environ
    return colour_wanted(stream, environ) or (stream.isatty() and environ.get("TERM") != "dumb")


def colour_wanted(stream: TextIO, environ: Mapping[str, str] | None = None) -> bool:
    """Whether `stream` is to have colours."""
    environ = os.environ if environ is None else environ
    if environ.get("NO_COLOR"):
        return False
    if any(environ.get(name, "0") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    return stream.isatty() and environ.get("TERM") != "dumb"


def say(sentence: str) -> None:
    """Tell the person, not the program."""
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201


def line(text: str) -> None:
    """One line for whoever reads us, at once."""
    print(text, flush=True)  # noqa: T201


def json(value: object) -> None:
    """One line of JSON: the value as the registry's API has it."""
    line(msgspec.json.encode(value).decode())


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], status: str = "STATUS") -> None:
    """A table; the column named `status` is coloured by what it says. Empty columns are left out."""
    rows = list(rows)
    kept = [n for n in range(len(columns)) if n == 0 or any(row[n] for row in rows)]
    columns, rows = [columns[n] for n in kept], [[row[n] for n in kept] for row in rows]
    if rich_wanted(sys.stdout):
        _rich_table(columns, rows, status)
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in [columns, *rows] if any(columns) else rows:
        line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def coloured(text: str, status: str) -> str:
    """`text` in the colour of a status, if standard output is to have colours."""
    colour = _ANSI.get(COLOURS.get(status, ""))
    return f"\x1b[{colour}m{text}\x1b[0m" if colour and colour_wanted(sys.stdout) else text


def ago(at: float, now: float | None = None) -> str:
    """How long an instant on the wall clock is past, for people: `now`, `12 s ago`, `5 min ago`, `3 h ago`."""
    return f"{lasted((time.time() if now is None else now) - at)} ago" if at else ""


def lasted(length: float) -> str:
    """A length of time in whole units: `0 s`, `12 s`, `5 min`, `3 h`, `2 d`."""
    for unit, name, most in ((1.0, "s", 120.0), (60.0, "min", 3_600.0), (3_600.0, "h", 172_800.0)):
        if length < most:
            return f"{max(0.0, length) // unit:.0f} {name}"
    return f"{length // 86_400:.0f} d"


def took(length: float) -> str:
    """A short length of time in two digits, or to a millisecond, for people: `0.42 ms`, `17 ms`, `250 ms`, `1.5 s`."""
    milliseconds = float(f"{length * 1_000:.2g}") if length < 0.1 else round(length * 1_000)
    return f"{length:.2g} s" if milliseconds >= 1_000 else f"{milliseconds:g} ms"


def clock(at: float) -> str:
    """An instant as local time of day."""
    return datetime.fromtimestamp(at).strftime("%H:%M:%S")


def why(cause: str, actor: str, reason: str) -> str:
    """Why something stands as it does, in a clause."""
    by = f" by {actor}" if actor else ""
    return f"{cause}{by}: {reason}" if reason else f"{cause}{by}"


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], status: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colour = colour_wanted(sys.stdout)
    console = Console(force_terminal=True, no_color=not colour, color_system="standard", highlight=False)
    shown = Table(box=None, pad_edge=False, show_header=any(columns), header_style="bold" if colour else "")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        cells = [
            Text(cell, style=COLOURS.get(cell, "") if name == status else "")
            for name, cell in zip(columns, row, strict=True)
        ]
        shown.add_row(*cells)
    console.print(shown)
