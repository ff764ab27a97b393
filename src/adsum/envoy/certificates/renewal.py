"""Detects new certificates in the operator's files."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from adsum.envoy.plan import GatewayPlan
from adsum.envoy.preflight import CannotServe

CERTIFICATE_POLL_INTERVAL: Final = 2.0
"""Seconds between two polls of the files, with a jitter of 10 %. A content that is found twice in a row counts as
complete."""

T = TypeVar("T")

_log = logging.getLogger("adsum.envoy")


class FileRenewal(Generic[T]):
    """Polls the files of one certificate of a plan, however they are replaced. `content` is the latest valid one."""

    def __init__(
        self,
        noun: str,
        content: T,
        read: Callable[[GatewayPlan], T],
        validate: Callable[[T, GatewayPlan, Path], None],
    ) -> None:
        """`noun` is for the log. `read` and `validate` raise `CannotServe`."""
        self.noun = noun
        self.content = content
        self._read = read
        self._validate = validate
        self._last_read: T | str = content
        self._last_checked: T | str = content

    def poll(self, plan: GatewayPlan, folder: Path) -> bool:
        """Returns whether there is a new valid content. A problem with it is logged once. Blocks on the disk."""
        found, problem = self._find(plan)
        unchanged, self._last_read = found == self._last_read, found
        if not unchanged or found == self._last_checked:
            return False
        self._last_checked = found
        try:
            if problem is not None or isinstance(found, str):
                raise problem or CannotServe(str(found))
            self._validate(found, plan, folder)
        except CannotServe as error:
            _log.error("%s is not renewed, the current one stays in use: %s", self.noun, error)
            return False
        previous, self.content = self.content, found
        return found != previous

    def _find(self, plan: GatewayPlan) -> tuple[T | str, CannotServe | None]:
        """Returns the content of the files, or the problem with them as a text."""
        try:
            return self._read(plan), None
        except CannotServe as error:
            return str(error), error
