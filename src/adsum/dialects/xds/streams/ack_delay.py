"""Delays acknowledgements: an ACK says that a configuration was accepted; worker threads apply it a moment later."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from adsum.watches import Watch

ACK_DELAY: Final = 0.1
"""Seconds from a client's ACK until it counts as routing by that configuration (measured: requests arrive by the
configuration before for up to 3 ms more)."""


class AckDelay:
    """Acknowledges revisions for watches, each `ACK_DELAY` seconds after it was added."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, Watch, int]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, watch: Watch, revision: int) -> None:
        """Acknowledges the revision for the watch, `ACK_DELAY` seconds from now."""
        loop = asyncio.get_running_loop()
        self._waiting.append((loop.time() + ACK_DELAY, watch, revision))
        if self._timer is None:
            self._timer = loop.call_later(ACK_DELAY, self._acknowledge_due)

    def clear(self) -> None:
        """Drops the acknowledgements that wait."""
        self._waiting.clear()

    def close(self) -> None:
        """Acknowledges nothing more; idempotent."""
        self.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _acknowledge_due(self) -> None:
        loop, waiting = asyncio.get_running_loop(), self._waiting
        self._timer = None
        while waiting and waiting[0][0] <= loop.time():
            _, watch, revision = waiting.popleft()
            watch.acknowledge(revision)
        if waiting:
            self._timer = loop.call_at(waiting[0][0], self._acknowledge_due)
