"""A retry budget: retries are limited to a share of the calls, so that they can't multiply the load of an outage.

After finagle's `RetryBudget` and tower's `TpsBudget`: the first try of every call makes a deposit, every retry makes a
withdrawal, and both are forgotten after the window. A minimum per second lets clients with few calls retry at all.
"""

from __future__ import annotations

from typing import Final

from adsum.core.errors import Invalid

RETRY_RATIO: Final = 0.2
"""Retries allowed per first try."""
MIN_RETRIES_PER_SECOND: Final = 10.0
"""Retries per second that are always allowed."""
BUDGET_WINDOW: Final = 10.0
"""Seconds after which a deposit or withdrawal is forgotten."""
WINDOW_SLOTS: Final = 10
"""The number of slots of the window; a slot is forgotten as a whole."""


class RetryBudget:
    """Counts calls and retries, and decides whether another retry is allowed. Not thread-safe."""

    def __init__(
        self, ratio: float = RETRY_RATIO, floor: float = MIN_RETRIES_PER_SECOND, window: float = BUDGET_WINDOW
    ) -> None:
        """`floor`: retries per second that are always allowed; `window`: seconds. Raises `Invalid`."""
        if not 0.0 <= ratio <= 1_000.0:
            raise Invalid("ratio", "must be 0 to 1000 retries per call")
        if not 0.0 <= floor <= 1e6:
            raise Invalid("floor", "must be 0 to 1,000,000 retries per second")
        if not 1.0 <= window <= 3_600.0:
            raise Invalid("window", "must be 1 to 3600 seconds")
        self._gain = 1.0 if ratio else 0.0
        self._price = 1.0 / ratio if ratio else 1.0
        self._reserve = floor * window * self._price
        self._length = window / WINDOW_SLOTS
        self._slots = [0.0] * WINDOW_SLOTS
        self._newest = 0

    def deposit(self, now: float) -> None:
        """Records the first try of a call."""
        self._slots[self._slot(now)] += self._gain

    def withdraw(self, now: float) -> bool:
        """Returns whether a retry is allowed, and records it if so."""
        slot = self._slot(now)
        if self._balance() < self._price:
            return False
        self._slots[slot] -= self._price
        return True

    def left(self, now: float) -> int:
        """Returns the number of retries that would be allowed now."""
        self._slot(now)
        return max(0, int(self._balance() / self._price))

    def _balance(self) -> float:
        return self._reserve + sum(self._slots)

    def _slot(self, now: float) -> int:
        """Returns the index of the slot for `now`. Slots that have left the window are emptied."""
        newest = int(now // self._length)
        for passed in range(min(WINDOW_SLOTS, newest - self._newest)):
            self._slots[(newest - passed) % WINDOW_SLOTS] = 0.0
        self._newest = max(self._newest, newest)
        return self._newest % WINDOW_SLOTS
