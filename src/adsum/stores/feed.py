"""The way from a store's writer to those who follow it, bounded: who falls too far behind is shown the whole again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from adsum.core.changes import Batch, Whole

MAX_BEHIND: Final = 1_000
"""How many batches wait for a follower; past it they are dropped, and it gets a `Whole` instead."""


class Feeds:
    """All who follow one store; `whole` reads what it holds."""

    def __init__(self, whole: Callable[[], Awaitable[Whole]]) -> None:
        self._whole = whole
        self._feeds: set[_Feed] = set()

    async def watch(self) -> AsyncIterator[Whole | Batch]:
        """The whole, then every batch after it, for ever. Raises what reading the whole raises, and ends then."""
        feed = _Feed(self._whole)
        self._feeds.add(feed)
        try:
            while True:
                yield await feed.next()
        finally:
            self._feeds.discard(feed)

    def tell(self, batch: Batch) -> None:
        """A batch is durable."""
        for feed in self._feeds:
            feed.tell(batch)

    def start_over(self) -> None:
        """What was told may not be what is stored: show the whole again."""
        for feed in self._feeds:
            feed.start_over()


class _Feed:
    """One follower's share."""

    def __init__(self, whole: Callable[[], Awaitable[Whole]]) -> None:
        self._whole = whole
        self._batches: deque[Batch] = deque()
        self._news = asyncio.Event()
        self._lost = True
        self._shown = 0

    def tell(self, batch: Batch) -> None:
        if len(self._batches) >= MAX_BEHIND:
            self.start_over()
        self._batches.append(batch)
        self._news.set()

    def start_over(self) -> None:
        self._batches.clear()
        self._lost = True
        self._news.set()

    async def next(self) -> Whole | Batch:
        while True:
            if self._lost:
                self._lost = False
                whole = await self._whole()
                self._shown = whole.revision
                return whole
            while self._batches:
                batch = self._batches.popleft()
                # What was told while the whole was being read may be in it.
                if batch.revision > self._shown:
                    return batch
            self._news.clear()
            await self._news.wait()
