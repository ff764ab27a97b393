"""A worker thread for work that would delay other requests in the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Final, TypeVar

T = TypeVar("T")

MAX_LOCK_HOLD: Final = 0.001
"""Seconds that work holds Python's global lock at a time. Python itself takes the lock away after 5 ms."""
LOCK_RELEASE: Final = 0.0001
"""Seconds for which work releases the lock: long enough for the event loop to wake up."""


class WorkAbandoned(Exception):
    """No caller waits for the result any more."""


class WorkerThread:
    """A thread that runs one function at a time.

    The function works on immutable values. Its argument is a checkpoint, which it calls often: that lets the event loop
    run, and raises `WorkAbandoned` when no caller waits for the result any more.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "adsum-worker")

    async def run(self, work: Callable[[Callable[[], None]], T]) -> T:
        """Returns the result of the function. Raises what the function raises."""
        abandoned = Event()
        began = time.monotonic()

        def checkpoint() -> None:
            nonlocal began
            if abandoned.is_set():
                raise WorkAbandoned
            if time.monotonic() - began > MAX_LOCK_HOLD:
                time.sleep(LOCK_RELEASE)
                began = time.monotonic()

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, checkpoint)
        finally:
            abandoned.set()
