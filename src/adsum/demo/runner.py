"""Runs the demo from its first process to its last; `adsum demo` calls `run_demo`."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from adsum.client.client import Client
from adsum.core.errors import AdsumError
from adsum.demo import plain_output
from adsum.demo.cluster import DemoCluster
from adsum.demo.registry_watch import watch_changes, watch_views
from adsum.demo.scenario import Scenario
from adsum.demo.scoreboard import Note, Scoreboard
from adsum.demo.traffic import SERVICES, client_traffic, gateway_traffic

OK, FAILED, INTERRUPTED = 0, 1, 130


def run_demo(*, stay: bool, pace: float, live: bool) -> int:
    """Run the demo; returns the exit code, 0 if no request failed. `live`: show a live display on the terminal."""
    logging.getLogger("adsum").addHandler(logging.NullHandler())
    board = Scoreboard(_silent if live else plain_output.print_note)
    code = OK
    with tempfile.TemporaryDirectory(prefix="adsum-demo-", ignore_cleanup_errors=True) as folder:
        try:
            asyncio.run(run_scenario(Path(folder), board, stay=stay, pace=pace, live=live))
        except (KeyboardInterrupt, asyncio.CancelledError):
            code = OK if stay else INTERRUPTED
        except AdsumError as error:
            print(f"adsum demo: {error}", file=sys.stderr)  # noqa: T201
            code = FAILED
    print(summary(board))  # noqa: T201
    return code if code != OK or board.failed == 0 else FAILED


def summary(board: Scoreboard) -> str:
    """Returns the summary at the end of the demo."""
    lines = [
        ("requests sent", str(board.sent)),
        ("of them through the gateway", str(board.sent_through_gateway)),
        ("failed", str(board.failed)),
        ("retries (invisible to callers)", str(board.retried)),
        ("slowest call, retries included", f"{board.slowest:.2f} s"),
        *board.measurements,
    ]
    width = max(len(name) for name, _ in lines)
    rows = [f"  {name:<{width}}  {value}" for name, value in lines]
    return "\n".join(["", *rows, *(f"  failed: {reason}" for reason in board.failures)])


async def run_scenario(folder: Path, board: Scoreboard, *, stay: bool, pace: float, live: bool) -> None:
    """Run the scenario with its processes in `folder`; the scoreboard has the result. Raises `AdsumError`."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    cluster = DemoCluster(folder)
    try:
        async with (
            Client(cluster.url, cache=False, actor="demo") as client,
            _display(board, live),
            asyncio.TaskGroup() as tasks,
        ):
            scenario = Scenario(cluster, client, board, pace)
            background = [tasks.create_task(watch_views(client, name, board)) for name in dict.fromkeys(SERVICES)]
            background.append(tasks.create_task(watch_changes(client, board)))
            await scenario.start_services()
            traffic = [tasks.create_task(client_traffic(client, board).run())]
            if cluster.gateway:
                traffic.append(tasks.create_task(gateway_traffic(cluster.gateway, board).run()))
            await scenario.run()
            if stay:
                await scenario.run_until_cancelled()
            for traffic_task in traffic:
                traffic_task.cancel()
            await asyncio.wait(traffic)
            for watch_task in background:
                watch_task.cancel()
    except* AdsumError as errors:
        raise errors.exceptions[0] from None
    finally:
        await cluster.close()


@asynccontextmanager
async def _display(board: Scoreboard, live: bool) -> AsyncIterator[None]:
    if live:
        from rich.console import Console

        from adsum.demo import live_display

        async with live_display.live_display(board, Console()):
            yield
    else:
        async with plain_output.traffic_reports(board):
            yield


def _silent(_: Note) -> None:
    """Does nothing: the live display shows the notes itself."""
