"""The clock of this machine."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """Implements `ports.Clock`."""

    # Asked at every pick and twice a request: the library's own, without a function of ours around it.
    now = staticmethod(time.monotonic)
    """Monotonic seconds."""
    wall = staticmethod(time.time)
    """Seconds since 1970."""

    async def sleep(self, length: float) -> None:
        """Return after `length` seconds; one of zero or less yields once."""
        await asyncio.sleep(length)
