"""The way from a store's writer to those who follow it, bounded: who falls too far behind is shown the whole again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from adsum.core.changes import Batch, Whole

MAX_BEHIND: Final = 1_000
"""How many batches wait for a follower; past it they are dropped, and it gets a `Whole` instead."""


class Feed:
    """One follower's stream."""

    def __init__(self, whole: Callable[[], Awaitable[Whole]]) -> None:
        self._whole = whole
        self._batches: deque[Batch] = deque()
        self._lost = True
        self._news = asyncio.Event()

    def tell(self, batch: Batch) -> None:
        """A batch is durable."""
        if len(self._batches) >= MAX_BEHIND:
            self.start_over()
        self._batches.append(batch)
        self._news.set()

    def start_over(self) -> None:
        """What the follower has been told may not be what is stored: show it the whole."""
        self._batches.clear()
        self._lost = True
        self._news.set()

    async def follow(self) -> AsyncIterator[Whole | Batch]:
        """The whole, then every batch, for ever. A batch may be in the whole already: applying it is harmless."""
        while True:
            if self._lost:
                self._lost = False
                yield await self._whole()
            while self._batches and not self._lost:
                yield self._batches.popleft()
            if not self._lost:
                self._news.clear()
                await self._news.wait()
