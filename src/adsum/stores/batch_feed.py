"""The way from a store's writer to those who follow it, bounded: who falls too far behind is shown the whole again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from adsum.core.catalog.changes import Batch, FullState

MAX_QUEUED_BATCHES: Final = 1_000
"""How many batches wait for a follower; past it they are dropped, and it gets a `FullState` instead."""
MAX_QUEUED_BYTES: Final = 64 * 1024 * 1024
"""Bytes of the registrations in them, likewise; one batch may be larger."""


class BatchFeed:
    """All who follow one store; `whole` reads what it holds."""

    def __init__(self, read_full_state: Callable[[], Awaitable[FullState]]) -> None:
        self._whole = read_full_state
        self._feeds: set[_Feed] = set()

    async def watch(self) -> AsyncIterator[FullState | Batch]:
        """The whole, then every batch after it, for ever. Raises what reading the whole raises, and ends then."""
        feed = _Feed(self._whole)
        self._feeds.add(feed)
        try:
            while True:
                yield await feed.next()
        finally:
            self._feeds.discard(feed)

    def publish(self, batch: Batch) -> None:
        """A batch is durable."""
        size = sum(change.listing.registration.size for change in batch.changes if change.listing is not None)
        for feed in self._feeds:
            feed.tell(batch, size)

    def resync(self) -> None:
        """What was told may not be what is stored: show the whole again."""
        for feed in self._feeds:
            feed.start_over()


class _Feed:
    """One follower's share."""

    def __init__(self, whole: Callable[[], Awaitable[FullState]]) -> None:
        self._whole = whole
        self._batches: deque[tuple[Batch, int]] = deque()
        """Those that wait, each with its bytes."""
        self._size = 0
        self._news = asyncio.Event()
        self._lost = True
        self._shown = 0

    def tell(self, batch: Batch, size: int) -> None:
        if self._batches and (len(self._batches) >= MAX_QUEUED_BATCHES or self._size + size > MAX_QUEUED_BYTES):
            self.start_over()
        self._batches.append((batch, size))
        self._size += size
        self._news.set()

    def start_over(self) -> None:
        self._batches.clear()
        self._size = 0
        self._lost = True
        self._news.set()

    async def next(self) -> FullState | Batch:
        while True:
            if self._lost:
                self._lost = False
                whole = await self._whole()
                self._shown = whole.revision
                return whole
            while self._batches:
                batch, size = self._batches.popleft()
                self._size -= size
                # What was told while the whole was being read may be in it.
                if batch.revision > self._shown:
                    return batch
            self._news.clear()
            await self._news.wait()
