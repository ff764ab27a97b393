"""The clock of the system."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """Implements `ports.Clock`."""

    # Called at every pick and twice per request, so it is the function of the library, without a wrapper.
    now = staticmethod(time.monotonic)
    """Monotonic seconds."""
    wall = staticmethod(time.time)
    """Seconds since 1970."""

    async def sleep(self, length: float) -> None:
        """Returns after `length` seconds. A length of zero or less yields once to other tasks."""
        await asyncio.sleep(length)
