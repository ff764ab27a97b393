"""Hysteresis: how many outcomes in a row turn a check's status.

The counting is the one that load balancers share (`rise` and `fall` of HAProxy), with two differences: a starting
instance is believed at its first word, and passing and warning are both usable, so they change places at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from adsum.core.model import Check, Result, Status


class StreakThreshold(Enum):
    """How many outcomes in a row, on the same side of usable, it takes to move."""

    ONE = "one"
    RISE = "rise"
    FALL = "fall"


STARTING, PASSING, WARNING, CRITICAL = Status.STARTING, Status.PASSING, Status.WARNING, Status.CRITICAL
PASS, WARN, FAIL = Result.PASS, Result.WARN, Result.FAIL

MOVES: Final[Mapping[tuple[Status, Result], tuple[Status, StreakThreshold]]] = MappingProxyType(
    {
        (STARTING, PASS): (PASSING, StreakThreshold.ONE),
        (STARTING, WARN): (WARNING, StreakThreshold.ONE),
        (STARTING, FAIL): (CRITICAL, StreakThreshold.FALL),
        (PASSING, PASS): (PASSING, StreakThreshold.ONE),
        (PASSING, WARN): (WARNING, StreakThreshold.ONE),
        (PASSING, FAIL): (CRITICAL, StreakThreshold.FALL),
        (WARNING, PASS): (PASSING, StreakThreshold.ONE),
        (WARNING, WARN): (WARNING, StreakThreshold.ONE),
        (WARNING, FAIL): (CRITICAL, StreakThreshold.FALL),
        (CRITICAL, PASS): (PASSING, StreakThreshold.RISE),
        (CRITICAL, WARN): (WARNING, StreakThreshold.RISE),
        (CRITICAL, FAIL): (CRITICAL, StreakThreshold.ONE),
    }
)
"""Where a check stands and what was found → where it stands once the streak is long enough. Till then it stays."""


class CheckHealth:
    """How one check stands: the status that its outcomes have earned so far.

    `status` is where to begin: starting, or what the catalog says of the check. Draining and maintenance are declared,
    never earned; a check doesn't stand so.
    """

    __slots__ = ("_check", "_failing", "_streak", "status")

    def __init__(self, check: Check, status: Status = Status.STARTING) -> None:
        if (status, PASS) not in MOVES:
            raise ValueError(f"no check stands as {status}")
        self.status = status
        self._check = check
        self._failing = False
        self._streak = 0

    def observe(self, result: Result) -> Status:
        """Count one more outcome; the status from now on.

        A pass and a warning are on the same side: they go on each other's streak, and the last one names the status.
        """
        failing = result is FAIL
        self._streak = self._streak + 1 if failing == self._failing else 1
        self._failing = failing
        status, needs = MOVES[self.status, result]
        if self._streak >= self._long_enough(needs):
            self.status = status
        return self.status

    def _long_enough(self, needs: StreakThreshold) -> int:
        if needs is StreakThreshold.ONE:
            return 1
        return self._check.rise if needs is StreakThreshold.RISE else self._check.fall
