"""The table of results, and the formats of its values."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

HEADINGS: Final = ("measurement", "ours", "peer", "ratio", "aim", "met?")


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One result. `values` are the numbers for programs, in SI units.

    `ratio` compares the result with the peer's: above 1.0 is better, for rates and costs alike. `is_met` is
    None if there is no aim.
    """

    label: str
    ours: str
    peer: str = ""
    ratio: float | None = None
    aim: str = ""
    is_met: bool | None = None
    values: tuple[tuple[str, float], ...] = ()

    def cells(self) -> tuple[str, ...]:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}x" if self.ratio < 10 else f"{self.ratio:.0f}x"
        return self.label, self.ours, self.peer, ratio, self.aim, "" if self.is_met is None else _verdict(self.is_met)


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


@dataclass(frozen=True, slots=True)
class SkippedResult:
    """A measurement that is missing, and the reason; `is_failure` if a benchmark failed instead of being skipped."""

    label: str
    reason: str
    is_failure: bool = False


Result = ResultRow | SkippedResult


def is_failed(result: Result) -> bool:
    return isinstance(result, SkippedResult) and result.is_failure


def render(results: Sequence[tuple[str, Sequence[Result]]]) -> str:
    """Returns the table as aligned text, with one block of rows for each benchmark."""
    rows = [result.cells() for _, block in results for result in block if isinstance(result, ResultRow)]
    widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
    rule = "  ".join("─" * width for width in widths)
    lines = [_line(HEADINGS, widths), rule]
    for number, (_, block) in enumerate(results):
        if number:
            lines.append("")
        lines.extend(_result(result, widths) for result in block)
    return "\n".join(line.rstrip() for line in lines)


def _result(result: Result, widths: Sequence[int]) -> str:
    if isinstance(result, SkippedResult):
        return f"{result.label}: {'FAILED' if result.is_failure else 'skipped'}, {result.reason}"
    return _line(result.cells(), widths)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))


def rate(value: float) -> str:
    """Formats a rate: 12,345/s."""
    return f"{value:,.0f}/s"


def duration(seconds: float) -> str:
    """Formats a time with three digits, in the largest unit that it reaches."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size * 0.9995:
            return f"{_three(seconds / size)} {unit}"
    return f"{_three(seconds / 1e-9)} ns"


def durations(seconds: Sequence[float]) -> str:
    """Formats several times, with the unit once at the end if it is the same for all."""
    texts = [duration(value) for value in seconds]
    units = {text.rpartition(" ")[2] for text in texts}
    if len(units) > 1:
        return " / ".join(texts)
    return f"{' / '.join(text.rpartition(' ')[0] for text in texts)} {units.pop()}"


def memory_size(count: float) -> str:
    """Formats a size of memory: 1,234 B, 12.3 KiB or 45.6 MiB."""
    if count < 4096:
        return f"{count:,.0f} B"
    return f"{_three(count / 1024)} KiB" if count < 1024**2 else f"{_three(count / 1024**2)} MiB"


def _three(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def log_progress(message: str) -> None:
    """Prints progress to standard error."""
    print(message, file=sys.stderr, flush=True)
