"""One event loop on one thread for a whole process, for programs that have none."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401 - it registers hooks for forks, which an import by the loop may do within one
import encodings.idna  # noqa: F401 - or the first look-up of an address imports it, in a thread we can't hold (`hold`)
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, TypeVar

T = TypeVar("T")

FORK_PAUSE_TIMEOUT: Final = 1.0
"""Seconds that a fork waits for the loop to have nothing at hand; one that is busy for longer is forked as it is."""
JOIN_TIMEOUT: Final = 5.0
"""Seconds that stopping waits for the thread; a loop that hangs longer ends with the process."""


class BackgroundLoop:
    """A loop that runs on a thread of its own until `stop`."""

    def __init__(self) -> None:
        self.user_count = 0
        # The plain loop of asyncio, whatever the policy: after a fork we must find its sockets.
        self.loop = asyncio.SelectorEventLoop()
        self._go_on = threading.Event()
        self._thread = threading.Thread(target=self._run, name="adsum", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it there and wait for what it returns or raises; if this thread is interrupted, so is it."""
        if self.is_current_thread:
            coroutine.close()
            raise RuntimeError("the synchronous client can't wait inside its own loop")
        future = self.submit(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run it there, without waiting for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def pause(self) -> None:
        """Have the loop rest until `go_on`, between two of its turns.

        A child that is forked while this thread imports a module would wait for ever when it imports the same.
        """
        resting = threading.Event()
        self._go_on = threading.Event()
        with suppress(RuntimeError):  # The loop was closed.
            self.loop.call_soon_threadsafe(self._rest, resting, self._go_on)
            resting.wait(FORK_PAUSE_TIMEOUT)

    def resume(self) -> None:
        """Idempotent."""
        self._go_on.set()

    @property
    def is_current_thread(self) -> bool:
        """Whether this is the loop's own thread."""
        return threading.current_thread() is self._thread

    @staticmethod
    def _rest(resting: threading.Event, go_on: threading.Event) -> None:
        resting.set()
        go_on.wait(FORK_PAUSE_TIMEOUT)

    def stop(self) -> None:
        """End the loop and its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(JOIN_TIMEOUT)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            left = asyncio.all_tasks(self.loop)
            for task in left:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()


_lock = threading.Lock()
_current: BackgroundLoop | None = None
_left_behind: list[BackgroundLoop] = []
"""Loops of the process we were forked from: never used again, and kept so that nothing is closed for the parent."""


def acquire() -> BackgroundLoop:
    """The loop of this process, started if need be; `release` it once for each time."""
    global _current
    with _lock:
        if _current is None:
            _current = BackgroundLoop()
        _current.user_count += 1
        return _current


def release(background: BackgroundLoop) -> None:
    """One user less; the last one ends the loop."""
    global _current
    with _lock:
        background.user_count -= 1
        if background.user_count > 0:
            return
        if _current is background:
            _current = None
    background.stop()


def _before_fork() -> None:
    if _current is not None and not _current.is_current_thread:
        _current.pause()


def _after_fork() -> None:
    if _current is not None:
        _current.resume()


def _begin_in_child() -> None:
    """In the child the thread is gone and the loop's sockets are the parent's: let go of both.

    A copy of a socket held open here would keep the registry waiting for a watcher that reads no more.
    """
    global _current, _lock
    _lock = threading.Lock()
    if _current is None:
        return
    for transport in list(getattr(_current.loop, "_transports", {}).values()):
        held = getattr(transport.get_extra_info("socket"), "_sock", None)
        if held is not None:
            with suppress(OSError):
                os.close(held.detach())
    _left_behind.append(_current)
    _current = None


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_begin_in_child)
