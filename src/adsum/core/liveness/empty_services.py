"""Services without an instance, and when they have been empty for so long that they are forgotten. Pure."""

from __future__ import annotations

from itertools import islice, takewhile
from typing import Final

DEFAULT_FORGET_AFTER: Final = 86_400.0
"""Seconds without an instance after which a service is forgotten, unless set."""
MAX_DUE_SERVICES: Final = 1_000
"""How many services are due at once; the rest is due at the next look."""


class EmptyServices:
    """The services that are empty, each since when it is known to be. Whoever is told later counts later."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        """In the order of these times, for every look is later than the one before."""

    def __len__(self) -> int:
        return len(self._since)

    def update(self, service: str, listed: int | None, now: float) -> None:
        """The service lists so many instances now; None: it is not known, or not ours."""
        if listed == 0:
            self._since.setdefault(service, now)
        else:
            self._since.pop(service, None)

    def due(self, now: float, length: float) -> list[str]:
        """Services that have been empty for `length` seconds, the longest ones first, at most `MAX_DUE_SERVICES`."""
        due = takewhile(lambda each: now - each[1] >= length, self._since.items())
        return [service for service, _ in islice(due, MAX_DUE_SERVICES)]

    def restart(self, service: str, now: float) -> None:
        """Somebody names the service: its time begins anew."""
        if self._since.pop(service, None) is not None:
            self._since[service] = now
