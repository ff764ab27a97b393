"""The heartbeat of all watches: one timer for them all, and every second another part of them is due."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from random import Random
from typing import Final, Protocol

HEARTBEAT: Final = 15
"""Every so many seconds a watch is told that it is still up to date."""
BEAT: Final = 1.0
"""Seconds between two parts."""


class Beats(Protocol):
    """What has a heartbeat."""

    def beat(self) -> None: ...


class Pulse:
    """Has each stream beat every `HEARTBEAT` seconds, each at a second of its own, by chance."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._parts: list[set[Beats]] = [set() for _ in range(HEARTBEAT)]
        self._due = 0
        self._timer: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def beats(self, stream: Beats) -> Iterator[None]:
        """Have the stream beat in time, while within."""
        part = self._rng.choice(self._parts)
        part.add(stream)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BEAT, self._beat)
        try:
            yield
        finally:
            part.discard(stream)
            if self._timer is not None and not any(self._parts):
                self._timer.cancel()
                self._timer = None

    def _beat(self) -> None:
        for stream in list(self._parts[self._due]):
            stream.beat()
        self._due = (self._due + 1) % HEARTBEAT
        self._timer = asyncio.get_running_loop().call_later(BEAT, self._beat)
