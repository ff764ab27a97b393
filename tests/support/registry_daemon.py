"""A registry node that runs in a thread beside the test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import TypeVar

import uvloop

from adsum.config.serve import ServeConfig
from adsum.daemon import Daemon
from adsum.registry import Registry

T = TypeVar("T")


class RunningDaemon:
    """A registry node on a free loopback port, in a thread and an event loop of its own."""

    def __init__(self, config: ServeConfig) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="daemon", daemon=True)
        self._thread.start()
        self._daemon = self._call(self._create(config))
        self._call(self._daemon.start())
        self.url: str = self._daemon.urls[0]
        self.xds: str = self._daemon.xds

    @staticmethod
    async def _create(config: ServeConfig) -> Daemon:
        return Daemon(config)

    @property
    def registry(self) -> Registry:
        """The registry, to be read from any thread: its snapshots never change."""
        return self._daemon.registry

    def reload(self, config: ServeConfig) -> None:
        """Applies other settings, as on SIGHUP."""
        self._call(self._daemon.reload(config))

    def run(self, work: Coroutine[object, object, T]) -> T:
        """Runs a coroutine in the event loop of the node. Returns its result."""
        return self._call(work)

    def stop(self) -> None:
        """Stops the node as SIGTERM does; idempotent."""
        if not self._loop.is_closed():
            self._call(self._daemon.stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10.0)
            self._loop.close()

    def _call(self, work: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20.0)
