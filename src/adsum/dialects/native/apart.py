"""Work that may take long, done apart from the loop so that it holds up no other request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TypeVar

T = TypeVar("T")


class Abandoned(Exception):
    """Nobody waits for the answer any more."""


class Apart:
    """A thread that does one piece of work after the other. While it works, the loop waits for Python's lock only.

    Work is a function of immutable values. It calls its argument now and then, which ends it once nobody waits for it.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "adsum-apart")

    async def run(self, work: Callable[[Callable[[], None]], T]) -> T:
        """The result of the work. What it raises is raised here."""
        abandoned = Event()

        def go_on() -> None:
            if abandoned.is_set():
                raise Abandoned

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, go_on)
        finally:
            abandoned.set()
