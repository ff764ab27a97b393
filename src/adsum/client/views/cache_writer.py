"""Keeping a resolver's views on disk, off the loop and not for every change."""

from __future__ import annotations

import asyncio
from typing import Final

from adsum.client.views.view_cache import CachedView, ViewCache
from adsum.client.wakeup import Wakeup
from adsum.ports import Clock

FIRST_WRITE_DELAY: Final = 0.1
"""Seconds from the first view to its write, so that a program that lives for a second leaves a fresh one behind."""
WRITE_DELAY: Final = 1.0
"""Seconds from a change to its write; changes in between are written with it."""
REWRITE_INTERVAL: Final = 60.0
"""Seconds after which a view that has not changed is written again, so that its stated age stays about right."""


class CacheWriter:
    """Writes the latest view of one service; views in between are skipped."""

    def __init__(self, service: str, cache: ViewCache, clock: Clock) -> None:
        self._service = service
        self._shelf = cache
        self._clock = clock
        self._alarm = Wakeup(clock)
        self._latest: CachedView | None = None
        self._due: float | None = None
        self._written_at = clock.now()
        self._pause = FIRST_WRITE_DELAY

    def schedule(self, view: CachedView, *, changed: bool) -> None:
        """Let this be the latest view from now on."""
        now = self._clock.now()
        due = now + self._pause if changed else self._written_at + REWRITE_INTERVAL
        self._latest = view
        if self._due is None or due < self._due:
            self._due = due
            self._alarm.wake()

    async def run(self) -> None:
        """Write what is due, for ever; a last time when cancelled."""
        try:
            while True:
                await self._alarm.wait(self._due)
                if self._due is not None and self._due <= self._clock.now():
                    await self._write()
        finally:
            if self._latest is not None:
                # Cancelled, so no waiting: one small file, unsynced.
                self._shelf.save(self._service, self._latest)

    async def _write(self) -> None:
        latest, self._latest, self._due, self._pause = self._latest, None, None, WRITE_DELAY
        if latest is not None:
            self._written_at = self._clock.now()
            await asyncio.to_thread(self._shelf.save, self._service, latest)
