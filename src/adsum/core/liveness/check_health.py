"""The hysteresis of a check: how many outcomes in a row change its status.

The counting is that of load balancers (`rise` and `fall` of HAProxy), with two differences. A starting check takes its
first pass or warning at once. Passing and warning are both usable, so a check changes between them at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from adsum.core.model import Check, Result, Status


class StreakThreshold(Enum):
    """The number of outcomes in a row, all usable or all failures, that changes the status."""

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
"""The status and the result of a probe → the next status, once the streak is long enough, and that length."""


class CheckHealth:
    """The status of one check, as its outcomes change it.

    It starts with `status`: starting, or the status of the check in the catalog. Raises `ValueError` for draining and
    maintenance, which are declared and never the status of a check.
    """

    __slots__ = ("_check", "_failing", "_streak", "status")

    def __init__(self, check: Check, status: Status = Status.STARTING) -> None:
        if (status, PASS) not in MOVES:
            raise ValueError(f"{status} is no status of a check")
        self.status = status
        self._check = check
        self._failing = False
        self._streak = 0

    def observe(self, result: Result) -> Status:
        """Counts one outcome and returns the new status.

        Passes and warnings count towards the same streak; the last of them determines the status.
        """
        failing = result is FAIL
        self._streak = self._streak + 1 if failing == self._failing else 1
        self._failing = failing
        status, threshold = MOVES[self.status, result]
        if self._streak >= self._streak_length(threshold):
            self.status = status
        return self.status

    def _streak_length(self, threshold: StreakThreshold) -> int:
        if threshold is StreakThreshold.ONE:
            return 1
        return self._check.rise if threshold is StreakThreshold.RISE else self._check.fall
