"""One event loop on its own thread for a whole process, for programs without asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401 - it registers fork hooks; imported later, the loop might do so during a fork
import encodings.idna  # noqa: F401 - else the first name look-up imports it in a thread that `pause` can't stop
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, TypeVar

T = TypeVar("T")

FORK_PAUSE_TIMEOUT: Final = 1.0
"""Seconds that a fork waits until the loop is idle; after that the process forks although the loop is busy."""
JOIN_TIMEOUT: Final = 5.0
"""Seconds that `stop` waits for the thread; a loop that hangs longer ends with the process."""


class BackgroundLoop:
    """An event loop that runs on its own thread until `stop`."""

    def __init__(self) -> None:
        self.user_count = 0
        # Always asyncio's own loop, whatever the policy: after a fork we must find its sockets.
        self.loop = asyncio.SelectorEventLoop()
        self._may_continue = threading.Event()
        self._thread = threading.Thread(target=self._run, name="adsum", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs the coroutine on the loop and returns its result. An exception in the waiting thread cancels it."""
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
        """Runs the coroutine on the loop, without waiting for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def pause(self) -> None:
        """Stops the loop between two of its turns, until `resume`. Called before a fork.

        A child that is forked while this thread imports a module would hang when it imports the same module.
        """
        is_paused = threading.Event()
        self._may_continue = threading.Event()
        with suppress(RuntimeError):  # The loop was closed.
            self.loop.call_soon_threadsafe(self._wait_paused, is_paused, self._may_continue)
            is_paused.wait(FORK_PAUSE_TIMEOUT)

    def resume(self) -> None:
        """Lets the loop run again. Idempotent."""
        self._may_continue.set()

    @property
    def is_current_thread(self) -> bool:
        """True if the caller runs on the loop's own thread."""
        return threading.current_thread() is self._thread

    @staticmethod
    def _wait_paused(is_paused: threading.Event, may_continue: threading.Event) -> None:
        is_paused.set()
        may_continue.wait(FORK_PAUSE_TIMEOUT)

    def stop(self) -> None:
        """Ends the loop and its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(JOIN_TIMEOUT)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()


_lock = threading.Lock()
_current: BackgroundLoop | None = None
_parent_loops: list[BackgroundLoop] = []
"""Loops of the parent process. They are never used again, and are kept so that no finalizer closes anything of them."""


def acquire() -> BackgroundLoop:
    """Returns the loop of this process, and starts it if needed. Call `release` once for each call of this."""
    global _current
    with _lock:
        if _current is None:
            _current = BackgroundLoop()
        _current.user_count += 1
        return _current


def release(background: BackgroundLoop) -> None:
    """Ends one use of the loop; the last release stops it."""
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


def _reset_in_child() -> None:
    """Gives up the parent's loop in a forked child: its thread does not exist there, and its sockets are the parent's.

    A copy of a socket that stays open in the child would keep the registry waiting for a watcher that no longer reads.
    """
    global _current, _lock
    _lock = threading.Lock()
    if _current is None:
        return
    for transport in list(getattr(_current.loop, "_transports", {}).values()):
        sock = getattr(transport.get_extra_info("socket"), "_sock", None)
        if sock is not None:
            with suppress(OSError):
                os.close(sock.detach())
    _parent_loops.append(_current)
    _current = None


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_reset_in_child)
