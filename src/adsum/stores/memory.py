"""The store that forgets when its process ends: for tests, demos and registries that may start empty."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import AsyncIterator, Sequence

from adsum.core.changes import HISTORY, Batch, Change, Recorded, Whole
from adsum.core.errors import Invalid, StoreConflict, StoreUnavailable
from adsum.core.model import Key, Listing
from adsum.stores.feed import Feed


class MemoryStore:
    """Keeps batches in this process's memory. See `ports.Store` for what each method promises."""

    def __init__(self) -> None:
        self._epoch = secrets.token_hex(16)
        self._revision = 0
        self._listings: dict[Key, tuple[int, Listing]] = {}
        self._history: deque[Recorded] = deque(maxlen=HISTORY)
        self._feeds: set[Feed] = set()
        self._open = False

    @classmethod
    def of(cls, url: str) -> MemoryStore:
        """`memory:` and nothing else."""
        if url != "memory:":
            raise Invalid("store", f"must be memory: without anything behind it, not {url!r}")
        return cls()

    async def open(self) -> None:
        self._open = True

    async def commit(self, changes: Sequence[Change], basis: int) -> int:
        if not self._open:
            raise StoreUnavailable("the store is closed")
        if basis != self._revision:
            raise StoreConflict(f"decided on revision {basis}, but the store is at {self._revision}")
        self._revision += 1
        for change in changes:
            if change.listing is None:
                self._listings.pop(change.key, None)
            else:
                self._listings[change.key] = (self._revision, change.listing)
            status = change.listing.status.value if change.listing is not None else ""
            self._history.append(Recorded(self._revision, change.key, status, change.why))
        batch = Batch(self._revision, changes)
        for feed in self._feeds:
            feed.tell(batch)
        return self._revision

    async def watch(self) -> AsyncIterator[Whole | Batch]:
        feed = Feed(self._whole)
        self._feeds.add(feed)
        try:
            async for event in feed.follow():
                yield event
        finally:
            self._feeds.discard(feed)

    async def _whole(self) -> Whole:
        return Whole(self._epoch, self._revision, list(self._listings.values()))

    async def history(self, service: str | None, id: str | None, limit: int) -> Sequence[Recorded]:
        found = (
            recorded
            for recorded in reversed(self._history)
            if service in (None, recorded.key.service) and id in (None, recorded.key.id)
        )
        return [recorded for recorded, _ in zip(found, range(limit), strict=False)]

    def age(self) -> float:
        return 0.0

    async def close(self) -> None:
        self._open = False
