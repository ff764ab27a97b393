"""Results as rows, and the one table that they make."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

HEADINGS: Final = ("what", "ours", "peer", "ratio", "aim", "met?")


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One result. `values` are the figures behind the words, for programs; SI units.

    `ratio` says how many times better than the peer we are: above 1.0 is ours to be proud of, whether the figure is a
    rate or a cost. `met` is None where there is no aim.
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
    """Something that could not be measured here, and why; `is_failure` if it should have been."""

    label: str
    reason: str
    is_failure: bool = False


Result = ResultRow | SkippedResult


def render(results: Sequence[tuple[str, Sequence[Result]]]) -> str:
    """Aligned text: one block of rows a benchmark."""
    rows = [result.cells() for _, block in results for result in block if isinstance(result, ResultRow)]
    widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
    rule = "  ".join("─" * width for width in widths)
    lines = [_line(HEADINGS, widths), rule]
    for number, (_, block) in enumerate(results):
        if number:
            lines.append("")
        lines.extend(_told(result, widths) for result in block)
    return "\n".join(line.rstrip() for line in lines)


def _told(result: Result, widths: Sequence[int]) -> str:
    if isinstance(result, SkippedResult):
        return f"{result.label}: {'FAILED' if result.is_failure else 'skipped'}, {result.reason}"
    return _line(result.cells(), widths)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))


def rate(value: float) -> str:
    """Of requests: 12,345/s."""
    return f"{value:,.0f}/s"


def duration(seconds: float) -> str:
    """A time in the unit that suits it, three digits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size * 0.9995:
            return f"{_three(seconds / size)} {unit}"
    return f"{_three(seconds / 1e-9)} ns"


def durations(seconds: Sequence[float]) -> str:
    """Several times in a row, the unit said once if it is the same."""
    each = [duration(one) for one in seconds]
    units = {one.rpartition(" ")[2] for one in each}
    if len(units) > 1:
        return " / ".join(each)
    return f"{' / '.join(one.rpartition(' ')[0] for one in each)} {units.pop()}"


def memory_size(count: float) -> str:
    """Of memory: 1,234 B, 12.3 KiB or 45.6 MiB."""
    if count < 4096:
        return f"{count:,.0f} B"
    return f"{_three(count / 1024)} KiB" if count < 1024**2 else f"{_three(count / 1024**2)} MiB"


def _three(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def log_progress(words: str) -> None:
    """Progress, for people who wait."""
    print(words, file=sys.stderr, flush=True)
