"""A token bucket: a rate limit that allows a burst."""

from __future__ import annotations

from math import inf


class TokenBucket:
    """Allows `burst` events at once, then `rate` events per second. Time is monotonic seconds."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        """The bucket starts full."""
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Counts one event if it is allowed now. Returns whether it is; an event that is not allowed costs nothing."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def delay(self, now: float, max_delay: float = inf) -> float:
        """Counts one event. Returns the seconds to wait before it, or before the next one if it has already happened.

        Events counted without waiting add up: the delay of the next one is longer, up to `max_delay`.
        """
        tokens = min(self._burst, self._tokens + (now - self._at) * self._rate) - 1.0
        self._tokens = max(tokens, -max_delay * self._rate)
        self._at = now
        return max(0.0, -self._tokens / self._rate)
