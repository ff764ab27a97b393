"""A timer for one task: sleep until a deadline, or until another task wakes it earlier."""

from __future__ import annotations

import asyncio
from typing import Final

from adsum.ports import Clock

MAX_SLEEP_OVERRUN: Final = 0.5
"""Seconds; a sleep that ends later than this after its deadline shows that this program was suspended. The silence of
the registry until then means nothing."""


class Wakeup:
    """Sleeps for one task at a time; any other task on its event loop may wake it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Ends the current sleep, or the next one if there is none."""
        self._woken.set()

    async def wait(self, deadline: float | None) -> None:
        """Sleeps until `deadline` (monotonic seconds; None: for ever) or until woken."""
        if deadline is None:
            await self._woken.wait()
        else:
            await self._sleep_or_wake(deadline - self._clock.now())
        self._woken.clear()

    async def _sleep_or_wake(self, delay: float) -> None:
        waiters = [
            asyncio.ensure_future(self._clock.sleep(max(0.0, delay))),
            asyncio.ensure_future(self._woken.wait()),
        ]
        try:
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()
            await asyncio.gather(*waiters, return_exceptions=True)
