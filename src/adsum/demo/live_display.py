"""Shows the demo as a live display: services, instances with their share of the calls, events and failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from adsum.client.views.view import View
from adsum.core.model import Endpoint
from adsum.demo.scoreboard import Note, NoteKind, Scoreboard

REFRESH_INTERVAL: Final = 0.2
"""Seconds between two updates of the display."""
BAR_COLUMNS: Final = 24
"""Columns of a full bar."""
MAX_NOTES_SHOWN: Final = 12
"""The most lines of the time line; fewer if the terminal is low."""

_STATUS: Final = MappingProxyType(
    {
        "passing": "green",
        "warning": "yellow",
        "starting": "cyan",
        "critical": "red",
        "draining": "magenta",
        "maintenance": "blue",
    }
)
_KIND: Final = MappingProxyType(
    {NoteKind.STEP: "bold", NoteKind.CATALOG: "bright_black", NoteKind.GOOD: "green", NoteKind.BAD: "bold red"}
)


@asynccontextmanager
async def live_display(board: Scoreboard, console: Console) -> AsyncIterator[None]:
    """A context with a live display; its last state stays on the terminal."""
    with Live(render(board, console.height), console=console, auto_refresh=False, vertical_overflow="crop") as live:
        task = asyncio.create_task(_refresh(board, live, console))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            live.update(render(board, console.height), refresh=True)


async def _refresh(board: Scoreboard, live: Live, console: Console) -> None:
    while True:
        live.update(render(board, console.height), refresh=True)
        await asyncio.sleep(REFRESH_INTERVAL)


def render(board: Scoreboard, height: int) -> Group:
    """Renders the scoreboard in at most `height` lines."""
    instances = sum(len(view.endpoints) for view in board.views.values()) + len(board.views)
    room = max(3, min(MAX_NOTES_SHOWN, height - instances - 9))
    return Group(
        Panel(
            _services(board),
            title=Text(board.scene or "services", style="bold"),
            title_align="left",
            border_style="bright_black",
        ),
        Panel(_notes(board, room), title="events", title_align="left", border_style="bright_black"),
        _counts(board),
    )


def _services(board: Scoreboard) -> Table:
    table = Table.grid(padding=(0, 2))
    shares = board.shares()
    for name in sorted(board.views):
        view = board.views[name]
        table.add_row(Text(f"http://{name}", style="bold"), "", "", _age(view, board.registry_up))
        total = sum(count for instance, count in shares.items() if instance.startswith(f"{name}/"))
        for endpoint in view.endpoints:
            table.add_row(*_row(endpoint, shares.get(f"{name}/{endpoint.id}", 0) / max(1, total)))
    return table


def _row(endpoint: Endpoint, share: float) -> tuple[Text, Text, Text, Text]:
    colour = _STATUS.get(endpoint.status, "")
    filled = round(share * BAR_COLUMNS)
    return (
        Text(f"  {endpoint.id}"),
        Text(endpoint.status, style=colour),
        Text(endpoint.authority, style="bright_black"),
        Text("█" * filled, style=colour) + Text("░" * (BAR_COLUMNS - filled), style="bright_black") + f" {share:4.0%}",
    )


def _age(view: View, up: bool) -> Text:
    if up:
        return Text(f"revision {view.revision}", style="bright_black")
    return Text(f"no registry: view is {view.age():.0f} s old", style="yellow")


def _notes(board: Scoreboard, room: int) -> Text:
    notes = list(board.notes)[-room:]
    lines = [_note(note) for note in notes] + [Text()] * (room - len(notes))
    return Text("\n", no_wrap=True, overflow="ellipsis").join(lines)


def _note(note: Note) -> Text:
    return Text(f"{note.at:5.1f} s  ", style="bright_black") + Text(note.text, style=_KIND[note.kind])


def _counts(board: Scoreboard) -> Text:
    """Returns the last line. A mark separates the counts, because an SVG may lose spaces where the style changes."""
    failed = Text(f"{board.failed} failed", style="bold red" if board.failed else "bold green")
    registry = Text("registry up", style="green") if board.registry_up else Text("registry down", style="bold red")
    through = f", {board.sent_through_gateway} through the gateway" if board.sent_through_gateway else ""
    counts = [
        Text(f" {board.rate():.0f} calls/s"),
        Text(f"{board.sent} sent{through}"),
        failed,
        Text(f"{board.retried} retries"),
        registry,
    ]
    return Text(" · ", style="bright_black").join(counts)
