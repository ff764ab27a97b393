"""The bounded queues from a store's writer to its followers. A follower that falls too far behind is resynced."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from adsum.core.catalog.changes import Batch, FullState

MAX_QUEUED_BATCHES: Final = 1_000
"""Batches that wait for one follower. Past it they are dropped, and the follower gets a new `FullState` instead."""
MAX_QUEUED_BYTES: Final = 64 * 1024 * 1024
"""Bytes of the registrations in the waiting batches. The same happens past it; a single batch may be larger."""


class BatchFeed:
    """Hands every committed batch to all followers of one store.

    `read_full_state` reads what the store holds now.
    """

    def __init__(self, read_full_state: Callable[[], Awaitable[FullState]]) -> None:
        self._read_full_state = read_full_state
        self._queues: set[_FollowerQueue] = set()

    async def watch(self) -> AsyncIterator[FullState | Batch]:
        """Yields the full state, then every batch after it, for ever.

        Ends with the error that reading the full state raises.
        """
        queue = _FollowerQueue(self._read_full_state)
        self._queues.add(queue)
        try:
            while True:
                yield await queue.next()
        finally:
            self._queues.discard(queue)

    def publish(self, batch: Batch) -> None:
        """Queues a durable batch for every follower."""
        size = sum(change.listing.registration.size for change in batch.changes if change.listing is not None)
        for queue in self._queues:
            queue.put(batch, size)

    def resync(self) -> None:
        """Gives every follower a new full state. Called when the published batches may differ from what is stored."""
        for queue in self._queues:
            queue.resync()


class _FollowerQueue:
    """The batches that wait for one follower."""

    def __init__(self, read_full_state: Callable[[], Awaitable[FullState]]) -> None:
        self._read_full_state = read_full_state
        self._batches: deque[tuple[Batch, int]] = deque()
        """The waiting batches, each with its size in bytes."""
        self._size = 0
        self._wakeup = asyncio.Event()
        self._needs_full_state = True
        self._full_state_revision = 0

    def put(self, batch: Batch, size: int) -> None:
        if self._batches and (len(self._batches) >= MAX_QUEUED_BATCHES or self._size + size > MAX_QUEUED_BYTES):
            self.resync()
        self._batches.append((batch, size))
        self._size += size
        self._wakeup.set()

    def resync(self) -> None:
        self._batches.clear()
        self._size = 0
        self._needs_full_state = True
        self._wakeup.set()

    async def next(self) -> FullState | Batch:
        while True:
            if self._needs_full_state:
                self._needs_full_state = False
                state = await self._read_full_state()
                self._full_state_revision = state.revision
                return state
            while self._batches:
                batch, size = self._batches.popleft()
                self._size -= size
                # A batch that was published while the full state was being read may be part of it.
                if batch.revision > self._full_state_revision:
                    return batch
            self._wakeup.clear()
            await self._wakeup.wait()
