"""Writes the views of one resolver to disk, outside the event loop and at a bounded rate."""

from __future__ import annotations

import asyncio
from typing import Final

from adsum.client.views.view_cache import CachedView, ViewCache
from adsum.client.wakeup import Wakeup
from adsum.ports import Clock

FIRST_WRITE_DELAY: Final = 0.1
"""Seconds from the first view to its write, so that even a program that lives for a second leaves a fresh view."""
WRITE_DELAY: Final = 1.0
"""Seconds from a change to its write; later changes within this time are written with it."""
REWRITE_INTERVAL: Final = 60.0
"""Seconds after which an unchanged view is written again, so that its stored age stays about right."""


class CacheWriter:
    """Writes the latest view of one service and skips those in between."""

    def __init__(self, service: str, cache: ViewCache, clock: Clock) -> None:
        self._service = service
        self._cache = cache
        self._clock = clock
        self._wakeup = Wakeup(clock)
        self._latest: CachedView | None = None
        self._due: float | None = None
        self._written_at = clock.now()
        self._delay = FIRST_WRITE_DELAY

    def schedule(self, view: CachedView, *, changed: bool) -> None:
        """Makes this the latest view, to be written when it is due."""
        now = self._clock.now()
        due = now + self._delay if changed else self._written_at + REWRITE_INTERVAL
        self._latest = view
        if self._due is None or due < self._due:
            self._due = due
            self._wakeup.wake()

    async def run(self) -> None:
        """Writes what is due until cancelled, and then once more."""
        try:
            while True:
                await self._wakeup.wait(self._due)
                if self._due is not None and self._due <= self._clock.now():
                    await self._write()
        finally:
            if self._latest is not None:
                # The task is cancelled and must not wait: write one small file, unsynced.
                self._cache.save(self._service, self._latest)

    async def _write(self) -> None:
        latest, self._latest, self._due, self._delay = self._latest, None, None, WRITE_DELAY
        if latest is not None:
            self._written_at = self._clock.now()
            await asyncio.to_thread(self._cache.save, self._service, latest)
