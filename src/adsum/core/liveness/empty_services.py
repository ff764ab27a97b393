"""Services without instances, and when each has been empty for long enough to be forgotten. Pure."""

from __future__ import annotations

from itertools import islice, takewhile
from typing import Final

DEFAULT_FORGET_AFTER: Final = 86_400.0
"""Seconds without instances after which a service is forgotten, by default."""
MAX_DUE_SERVICES: Final = 1_000
"""Services that are due at one time; the rest is due at the next call."""


class EmptyServices:
    """The empty services, each with the instant at which it was first seen empty."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        """The services, in the order of these instants: `now` never decreases from call to call."""

    def __len__(self) -> int:
        return len(self._since)

    def update(self, service: str, listed: int | None, now: float) -> None:
        """Records that the service has `listed` instances. None: it is not known, or not kept by this node."""
        if listed == 0:
            self._since.setdefault(service, now)
        else:
            self._since.pop(service, None)

    def due(self, now: float, length: float) -> list[str]:
        """Returns at most `MAX_DUE_SERVICES` services that have been empty for `length` seconds, the longest first."""
        due = takewhile(lambda entry: now - entry[1] >= length, self._since.items())
        return [service for service, _ in islice(due, MAX_DUE_SERVICES)]

    def restart(self, service: str, now: float) -> None:
        """Starts the time of an empty service again, because something references it."""
        if self._since.pop(service, None) is not None:
            self._since[service] = now
