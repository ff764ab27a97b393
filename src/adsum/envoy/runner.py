"""A gateway as a process of its own: until it is told to end, reloaded when it is told to."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final

from adsum import systemd
from adsum.envoy.gateway import Gateway

SIGNAL_EXIT_BASE: Final = 128
"""Added to a signal's number: the exit code of who was ended by it without a drain."""

_log = logging.getLogger("adsum.gateway")


class GatewayRunner:
    """Runs one gateway once."""

    def __init__(self, gateway: Gateway, on_ready: Callable[[], None]) -> None:
        """`on_ready` is called when it takes requests."""
        self._gateway = gateway
        self._ready = on_ready
        self._told = asyncio.Event()
        self._hurry: signal.Signals | None = None

    async def run(self) -> int:
        """The exit code, once it has ended. Raises `CannotServe` if it never served."""
        with self._signals():
            if await self._unless_told(self._gateway.start()):
                self._ready()
                systemd.notify(systemd.READY)
                await self._unless_told(self._gateway.wait_until_failed())
                _log.info("draining")
            systemd.notify(systemd.STOPPING)
            await self._gateway.stop()
        return 0 if self._hurry is None else SIGNAL_EXIT_BASE + self._hurry

    async def _unless_told(self, doing: Coroutine[Any, Any, None]) -> bool:
        """Whether it was done before we were told to end; then it is given up. Raises what it raises."""
        task, told = asyncio.create_task(doing), asyncio.create_task(self._told.wait())
        try:
            await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            told.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            return False
        task.result()
        return True

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        ending = (signal.SIGTERM, signal.SIGINT)
        for each in ending:
            loop.add_signal_handler(each, self._end, each)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        try:
            yield
        finally:
            for each in (*ending, signal.SIGHUP):
                loop.remove_signal_handler(each)

    def _reload(self) -> None:
        systemd.notify(systemd.reloading_state())
        self._gateway.reload(lambda: systemd.notify(systemd.READY))

    def _end(self, number: signal.Signals) -> None:
        if self._told.is_set():
            self._hurry = number
            self._gateway.abort()
        self._told.set()
