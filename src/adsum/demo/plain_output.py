"""Shows the demo as plain lines with the time, for pipes and logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Final

from adsum.demo.scoreboard import Note, NoteKind, Scoreboard

REPORT_INTERVAL: Final = 5.0
"""Seconds between two lines about the traffic."""

_MARKS: Final = MappingProxyType({NoteKind.STEP: "▶", NoteKind.CATALOG: " ", NoteKind.GOOD: "✓", NoteKind.BAD: "✗"})


def print_note(note: Note) -> None:
    """Print a note as one line."""
    _print(f"{note.at:5.1f} s  {_MARKS[note.kind]} {note.text}")


@asynccontextmanager
async def traffic_reports(board: Scoreboard) -> AsyncIterator[None]:
    """A context in which a line about the traffic is printed at every `REPORT_INTERVAL`."""
    task = asyncio.create_task(_traffic(board))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _traffic(board: Scoreboard) -> None:
    while True:
        await asyncio.sleep(REPORT_INTERVAL)
        if board.sent:
            shares = board.shares()
            among = ", ".join(f"{instance.partition('/')[2]} {shares[instance]}" for instance in sorted(shares))
            _print(f"{board.now():5.1f} s    {board.sent} sent, {board.failed} failed; the latest: {among}")


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201
