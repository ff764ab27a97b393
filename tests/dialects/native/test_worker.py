"""The worker thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from adsum.dialects.native.worker import WorkerThread


async def test_abandoned_work_ends() -> None:
    worker, began, ended = WorkerThread(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(checkpoint: Callable[[], None]) -> None:
        loop.call_soon_threadsafe(began.set)
        try:
            while True:
                checkpoint()
        finally:
            loop.call_soon_threadsafe(ended.set)

    task = asyncio.create_task(worker.run(work))
    await began.wait()
    task.cancel()
    await ended.wait()
