"""Waiting for an instant that may come closer: sleep until then, or until somebody rings."""

from __future__ import annotations

import asyncio

from adsum.ports import Clock


class Wakeup:
    """One sleeper; anybody on its loop may ring."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rung = asyncio.Event()

    def wake(self) -> None:
        """Wake the sleeper, now or as soon as it sleeps."""
        self._rung.set()

    async def wait(self, deadline: float | None) -> None:
        """Return at `deadline` (None: never) or when rung."""
        if deadline is None:
            await self._rung.wait()
        else:
            await self._either(deadline - self._clock.now())
        self._rung.clear()

    async def _either(self, length: float) -> None:
        waiting = [
            asyncio.ensure_future(self._clock.sleep(max(0.0, length))),
            asyncio.ensure_future(self._rung.wait()),
        ]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiting:
                waiter.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
