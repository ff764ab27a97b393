"""The heartbeat of all watches: one timer for all of them, and at each beat another part of them is due."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterator
from random import Random
from typing import Final, Generic, TypeVar

SLOT_SECONDS: Final = 0.1
"""Seconds between two parts of the streams: few enough are due at a time that others are not held up."""

S = TypeVar("S")


class HeartbeatTimer(Generic[S]):
    """Has each stream beat every `heartbeat` seconds, each at an instant of its own, by chance."""

    def __init__(self, heartbeat: float, rng: Random, beat: Callable[[Collection[S]], None]) -> None:
        """`beat` has some streams beat: what they say is the same, and so is made once."""
        self._rng = rng
        self._beat_some = beat
        self._parts: list[set[S]] = [set() for _ in range(max(1, round(heartbeat / SLOT_SECONDS)))]
        self._pause = heartbeat / len(self._parts)
        self._due = 0
        self._timer: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def scheduled(self, stream: S) -> Iterator[None]:
        """Have the stream beat in time, while within."""
        part = self._rng.choice(self._parts)
        part.add(stream)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            first = loop.time() + self._pause
            self._timer = loop.call_at(first, self._beat, first)
        try:
            yield
        finally:
            part.discard(stream)
            if self._timer is not None and not any(self._parts):
                self._timer.cancel()
                self._timer = None

    def _beat(self, at: float) -> None:
        loop = asyncio.get_running_loop()
        due, self._due = self._parts[self._due], (self._due + 1) % len(self._parts)
        # From when it should have been, not from when it was: else beats would come late when there is much to do.
        after = max(at + self._pause, loop.time())
        self._timer = loop.call_at(after, self._beat, after)
        self._beat_some(tuple(due))
