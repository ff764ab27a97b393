"""How long to wait before trying again, always by chance, so that many who failed together don't come back together.

Delays are seconds; the caller waits and owns the random generator.
"""

from __future__ import annotations

from random import Random
from typing import Final

MAX_GROWTH: Final = 3.0
"""A delay is at most this many times the one before it."""
JITTER: Final = 0.1
"""By which share a regular delay varies to either side."""
RENEWALS_PER_TTL: Final = 3
"""How many renewals fit into one ttl: two may be lost before a lease lapses."""


class Backoff:
    """Growing delays with decorrelated jitter.

    Each is drawn between `first` and three times the one before, at most `most`. The algorithm is "Decorrelated
    Jitter" of Marc Brooker's "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
    """

    __slots__ = ("_last", "initial", "maximum")

    def __init__(self, initial: float, maximum: float) -> None:
        if not 0 < initial <= maximum:
            raise ValueError(f"delays must grow from above 0: first {initial:g}, most {maximum:g}")
        self.initial = initial
        self.maximum = maximum
        self._last = initial

    def next(self, rng: Random) -> float:
        """The next delay: from `first` to `most` seconds."""
        self._last = min(self.maximum, rng.uniform(self.initial, self._last * MAX_GROWTH))
        return self._last

    def reset(self) -> None:
        """It worked: the next delay is a short one again."""
        self._last = self.initial


def jittered(delay: float, rng: Random, share: float = JITTER) -> float:
    """`delay` give or take `share` of it, for what is done regularly by many."""
    return delay * rng.uniform(1 - share, 1 + share)


def renewal_delay(ttl: float, rng: Random) -> float:
    """How long after a renewal the next one is due: a third of the ttl, give or take a tenth."""
    return jittered(ttl / RENEWALS_PER_TTL, rng)
