"""Draws docs/demo.svg from the running demo while its registry is down: python docs/picture.py"""

from __future__ import annotations

import asyncio
import io
import tempfile
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from adsum.demo.live_display import render
from adsum.demo.runner import run_scenario
from adsum.demo.scoreboard import Note, Scoreboard

WIDTH, HEIGHT = 112, 24
DOWN = 2.5
"""Seconds for which the registry has been down when the picture is taken."""

PATIENCE = 120.0
"""Seconds within which the demo must kill its registry."""


async def main() -> None:
    down = asyncio.Event()

    def tell(note: Note) -> None:
        if note.text.startswith("kill -9 the registry"):
            down.set()

    board = Scoreboard(tell)
    with tempfile.TemporaryDirectory(prefix="adsum-picture-", ignore_cleanup_errors=True) as folder:
        performing = asyncio.create_task(run_scenario(Path(folder), board, stay=False, pace=1.0, live=False))
        async with asyncio.timeout(PATIENCE):
            await down.wait()
        await asyncio.sleep(DOWN)
        console = Console(record=True, width=WIDTH, height=HEIGHT, file=io.StringIO())
        console.print(render(board, HEIGHT))
        console.save_svg(str(Path(__file__).with_name("demo.svg")), title="adsum demo")
        performing.cancel()
        with suppress(asyncio.CancelledError):
            await performing


asyncio.run(main())
