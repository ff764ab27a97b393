"""Randomized delays before retries, so that clients that failed together don't retry together.

Delays are seconds. The caller waits and owns the random generator.
"""

from __future__ import annotations

from random import Random
from typing import Final

MAX_GROWTH: Final = 3.0
"""A delay is at most this many times the one before it."""
JITTER: Final = 0.1
"""The share by which a regular delay varies, up and down."""
RENEWALS_PER_TTL: Final = 3
"""Renewals in one ttl: two of them may be lost before a lease lapses."""


class Backoff:
    """Growing delays with decorrelated jitter.

    Each delay is random between `initial` and three times the delay before, and at most `maximum`. The algorithm is
    "Decorrelated Jitter" of Marc Brooker's "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
    """

    __slots__ = ("_last", "initial", "maximum")

    def __init__(self, initial: float, maximum: float) -> None:
        if not 0 < initial <= maximum:
            raise ValueError(f"delays must be above 0 and grow: initial {initial:g}, maximum {maximum:g}")
        self.initial = initial
        self.maximum = maximum
        self._last = initial

    def next(self, rng: Random) -> float:
        """Returns the next delay, from `initial` to `maximum` seconds."""
        self._last = min(self.maximum, rng.uniform(self.initial, self._last * MAX_GROWTH))
        return self._last

    def reset(self) -> None:
        """Starts again with short delays, after a success."""
        self._last = self.initial


def jittered(delay: float, rng: Random, share: float = JITTER) -> float:
    """Returns `delay` plus or minus up to `share` of it, so that regular work of many clients spreads out."""
    return delay * rng.uniform(1 - share, 1 + share)


def renewal_delay(ttl: float, rng: Random) -> float:
    """Returns the seconds between two renewals of a lease: a third of the ttl, plus or minus a tenth."""
    return jittered(ttl / RENEWALS_PER_TTL, rng)
