"""The heartbeat of all watches: one timer for them all, and every second another part of them is due."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from random import Random
from typing import Final

from adsum.watches import Watch

HEARTBEAT: Final = 15
"""Every so many seconds a watch is told that it is still up to date."""
BEAT: Final = 1.0
"""Seconds between two parts."""


class Pulse:
    """Interrupts each watch every `HEARTBEAT` seconds, each at a second of its own, by chance."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._parts: list[set[Watch]] = [set() for _ in range(HEARTBEAT)]
        self._due = 0
        self._timer: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def beats(self, watch: Watch) -> Iterator[None]:
        """Have the watch interrupted in time, while within."""
        part = self._rng.choice(self._parts)
        part.add(watch)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BEAT, self._beat)
        try:
            yield
        finally:
            part.discard(watch)
            if self._timer is not None and not any(self._parts):
                self._timer.cancel()
                self._timer = None

    def _beat(self) -> None:
        for watch in self._parts[self._due]:
            watch.interrupt()
        self._due = (self._due + 1) % HEARTBEAT
        self._timer = asyncio.get_running_loop().call_later(BEAT, self._beat)
