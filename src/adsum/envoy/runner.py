"""Runs a gateway as a process of its own, until a signal ends it."""

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
"""The exit code after a second signal has cut the drain short is this plus the signal's number."""

_log = logging.getLogger("adsum.gateway")


class GatewayRunner:
    """Runs one gateway until a signal or a failure ends it."""

    def __init__(self, gateway: Gateway, on_ready: Callable[[], None]) -> None:
        """`on_ready` is called once the gateway accepts requests."""
        self._gateway = gateway
        self._on_ready = on_ready
        self._stop_requested = asyncio.Event()
        self._abort_signal: signal.Signals | None = None

    async def run(self) -> int:
        """Runs until a signal or a failure and returns the exit code. Raises `CannotServe` if it never served."""
        with self._signals():
            if await self._finishes_before_stop(self._gateway.start()):
                self._on_ready()
                systemd.notify(systemd.READY)
                await self._finishes_before_stop(self._gateway.wait_until_failed())
                _log.info("draining")
            systemd.notify(systemd.STOPPING)
            await self._gateway.stop()
        return 0 if self._abort_signal is None else SIGNAL_EXIT_BASE + self._abort_signal

    async def _finishes_before_stop(self, work: Coroutine[Any, Any, None]) -> bool:
        """Returns whether the work finished before a stop request; otherwise cancels it. Raises what it raises."""
        task, stopping = asyncio.create_task(work), asyncio.create_task(self._stop_requested.wait())
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            return False
        task.result()
        return True

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        stop_signals = (signal.SIGTERM, signal.SIGINT)
        for number in stop_signals:
            loop.add_signal_handler(number, self._request_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        try:
            yield
        finally:
            for number in (*stop_signals, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _reload(self) -> None:
        systemd.notify(systemd.reloading_state())
        self._gateway.reload(lambda: systemd.notify(systemd.READY))

    def _request_stop(self, number: signal.Signals) -> None:
        if self._stop_requested.is_set():
            self._abort_signal = number
            self._gateway.abort()
        self._stop_requested.set()
