"""One timer for the heartbeats of all watches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from random import Random
from typing import Final, Generic, TypeVar

SLOT_SECONDS: Final = 0.1
"""Seconds between two slots of the timer. With so many slots, each has too few streams to delay other requests."""

S = TypeVar("S")


class HeartbeatTimer(Generic[S]):
    """A timer that sends a heartbeat over each stream every `interval` seconds, in a random slot of this interval."""

    def __init__(self, interval: float, rng: Random, send: Callable[[Collection[S]], None]) -> None:
        """`send` is called with the streams of one slot, and sends the heartbeats of all of them."""
        self._rng = rng
        self._send = send
        self._slots: list[set[S]] = [set() for _ in range(max(1, round(interval / SLOT_SECONDS)))]
        self._pause = interval / len(self._slots)
        self._next_slot = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, stream: S) -> set[S]:
        """Sends heartbeats over the stream from now on. Returns the slot, for `remove`."""
        slot = self._rng.choice(self._slots)
        slot.add(stream)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            first = loop.time() + self._pause
            self._timer = loop.call_at(first, self._run_slot, first)
        return slot

    def remove(self, stream: S, slot: set[S]) -> None:
        """Sends no more heartbeats over the stream, which is in this slot."""
        slot.discard(stream)
        if self._timer is not None and not any(self._slots):
            self._timer.cancel()
            self._timer = None

    def _run_slot(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        slot, self._next_slot = self._slots[self._next_slot], (self._next_slot + 1) % len(self._slots)
        # The next slot follows from when this one was due, not from now: otherwise heartbeats drift under load.
        following = max(due + self._pause, loop.time())
        self._timer = loop.call_at(following, self._run_slot, following)
        self._send(tuple(slot))
