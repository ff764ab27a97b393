"""Follows the registry for the demo: the views of the services, and every change with its cause."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final

from adsum import wire
from adsum.client.client import Client
from adsum.core.errors import AdsumError
from adsum.demo.scoreboard import NoteKind, Scoreboard

POLL_INTERVAL: Final = 0.25
"""Seconds between two reads of the history."""
MAX_CHANGES_READ: Final = 100
"""The most changes that one read returns."""


async def watch_views(client: Client, service: str, board: Scoreboard) -> None:
    """Keep the scoreboard's view of a service up to date."""
    async with aclosing(client.resolver(service).watch()) as views:
        async for view in views:
            board.views[service] = view


async def watch_changes(client: Client, board: Scoreboard) -> None:
    """Add every change with its cause to the time line, and record whether the registry answers."""
    latest = 0
    while True:
        try:
            history = await client.api.changes(limit=MAX_CHANGES_READ)
            board.registry_up = True
            new = [change for change in reversed(history.changes) if change.revision > latest]
            for change in new:
                board.note(NoteKind.CATALOG, format_change(change))
                latest = change.revision
        except AdsumError:
            board.registry_up = False
        await asyncio.sleep(POLL_INTERVAL)


def format_change(change: wire.ChangeView) -> str:
    """Returns the text of a change on the time line."""
    reason = f": {change.reason}" if change.reason else ""
    return f"{change.service}/{change.id} {change.status or 'gone'} ({change.cause}{reason})"
