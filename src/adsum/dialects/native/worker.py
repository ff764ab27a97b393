"""Work that may take long, done apart from the loop so that it holds up no other request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Final, TypeVar

T = TypeVar("T")

MAX_LOCK_HOLD: Final = 0.001
"""Seconds that work keeps Python's lock before it leaves it to the loop; Python itself takes it away after 5 ms."""
LOCK_RELEASE: Final = 0.0001
"""Seconds that it leaves the lock for: long enough for the loop to wake up."""


class WorkAbandoned(Exception):
    """Nobody waits for the answer any more."""


class WorkerThread:
    """A thread that does one piece of work after the other.

    Work is a function of immutable values. It calls its argument now and then, which lets the loop go on,
    and ends the work once nobody waits for it.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "adsum-apart")

    async def run(self, work: Callable[[Callable[[], None]], T]) -> T:
        """The result of the work. What it raises is raised here."""
        abandoned = Event()

        began = time.monotonic()

        def go_on() -> None:
            nonlocal began
            if abandoned.is_set():
                raise WorkAbandoned
            if time.monotonic() - began > MAX_LOCK_HOLD:
                time.sleep(LOCK_RELEASE)
                began = time.monotonic()

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, go_on)
        finally:
            abandoned.set()
