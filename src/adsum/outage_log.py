"""The log of an outage: one line when it begins, and one when it is over."""

from __future__ import annotations

import logging


class OutageLog:
    """Logs the first of several failures in a row, and the first success after them.

    `failure` and `recovery` are the format strings of the two lines. By default they are an error and a warning, so
    that a log of warnings contains both.
    """

    def __init__(
        self,
        logger: logging.Logger,
        failure: str,
        recovery: str,
        *,
        failure_level: int = logging.ERROR,
        recovery_level: int = logging.WARNING,
    ) -> None:
        self._logger = logger
        self._failure = failure
        self._recovery = recovery
        self._failure_level = failure_level
        self._recovery_level = recovery_level
        self.is_failing = False

    def failed(self, *args: object) -> None:
        """Records a failure. Logs it with `args` if it is the first one."""
        if not self.is_failing:
            self._logger.log(self._failure_level, self._failure, *args)
        self.is_failing = True

    def recovered(self, *args: object) -> None:
        """Records a success. Logs it with `args` if there was a failure before."""
        if self.is_failing:
            self._logger.log(self._recovery_level, self._recovery, *args)
        self.is_failing = False
