"""The clock of this machine."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """Implements `ports.Clock`."""

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970."""
        return time.time()

    async def sleep(self, length: float) -> None:
        """Return after `length` seconds; one of zero or less yields once."""
        await asyncio.sleep(length)
