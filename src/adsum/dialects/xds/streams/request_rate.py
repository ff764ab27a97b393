"""The rate limit of requests on one xDS stream."""

from __future__ import annotations

from typing import Final

REQUESTS_PER_SECOND: Final = 1_000
"""Requests a second that a stream may send for long; past it the next request is read later."""
REQUEST_BURST: Final = 2_000
"""Requests that a stream may send at once before that rate applies."""


class RequestRate:
    """Allows `REQUEST_BURST` requests at once, then `REQUESTS_PER_SECOND`. Time is monotonic seconds."""

    __slots__ = ("_at", "_debt")

    def __init__(self) -> None:
        self._debt = 0.0
        """Requests received, less those that the time since then has paid for."""
        self._at = 0.0

    def delay(self, now: float) -> float:
        """Counts a request and returns how many seconds to wait before reading the next one."""
        self._debt = max(0.0, self._debt - (now - self._at) * REQUESTS_PER_SECOND) + 1
        self._at = now
        return max(0.0, self._debt - REQUEST_BURST) / REQUESTS_PER_SECOND
