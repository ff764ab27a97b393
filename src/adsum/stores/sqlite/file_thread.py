"""The thread that uses the file of a registry.

A job costs one wake-up of the thread and one of the event loop. Between jobs the thread maintains the file.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

T = TypeVar("T")

IDLE_SECONDS: Final = 0.05
"""Seconds without a job after which the thread does what can wait."""

_log = logging.getLogger("adsum.store")


class FileThread:
    """Runs jobs one after the other, and calls `maintain` after each.

    `maintain(idle)` returns whether there is more to do. Then it is called again and again with `idle` true, from
    `IDLE_SECONDS` after the last job on, until the next job.
    """

    def __init__(self, maintain: Callable[[bool], bool]) -> None:
        self._maintain = maintain
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        # A process that ends without closing the store loses nothing: it must not wait for the thread.
        self._thread = threading.Thread(target=self._serve, name="adsum-sqlite", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], None]) -> None:
        """Runs a job on the thread. It must not raise, and reports its result by `notify`."""
        self._jobs.put(job)

    def notify(self, callback: Callable[..., object], *args: object) -> None:
        """Calls `callback` on the event loop. For jobs."""
        with suppress(RuntimeError):  # The loop is closed, and nobody waits.
            self._loop.call_soon_threadsafe(callback, *args)

    async def run(self, work: Callable[[], T]) -> T:
        """Runs `work` on the thread. Returns what it returns, and raises what it raises."""
        done: asyncio.Future[T] = self._loop.create_future()

        def job() -> None:
            try:
                result = work()
            except BaseException as error:
                self.notify(_set_error, done, error)
            else:
                self.notify(_set_result, done, result)

        self.submit(job)
        return await done

    def stop(self) -> None:
        """Ends the thread after the jobs that wait, and returns when it has ended."""
        self._jobs.put(None)
        self._thread.join()

    def _serve(self) -> None:
        wait: float | None = None
        while True:
            try:
                job = self._jobs.get(timeout=wait)
            except Empty:
                wait = 0.0 if self._maintained(idle=True) else None
                continue
            if job is None:
                return
            job()
            wait = IDLE_SECONDS if self._maintained(idle=False) else None

    def _maintained(self, *, idle: bool) -> bool:
        try:
            return self._maintain(idle)
        except Exception:
            # The next jobs must run nevertheless.
            _log.exception("maintaining the file of the registry failed")
            return False


def _set_result(done: asyncio.Future[T], result: T) -> None:
    if not done.done():  # The caller was cancelled.
        done.set_result(result)


def _set_error(done: asyncio.Future[T], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)
