"""Which services etcd remembers because instances left them, and which of those it may forget."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import Final

from adsum.core.catalog.changes import MAX_REMOVAL_REVISIONS

MAX_FORGOTTEN_PER_BATCH: Final = 4
"""How many are forgotten with one batch: etcd takes so many operations beside those of the batch itself."""


class DepartedServices:
    """Follows what is remembered without reading it; the one left longest ago comes first."""

    def __init__(self) -> None:
        self._services: dict[str, None] = {}

    def load(self, left: Mapping[str, int]) -> None:
        """All that etcd remembers, each with the revision of the latest departure."""
        self._services = dict.fromkeys(sorted(left, key=left.__getitem__))

    def add(self, services: Iterable[str]) -> None:
        """Instances left them just now."""
        for service in services:
            self._services.pop(service, None)
            self._services[service] = None

    def excess(self, kept: Collection[str]) -> list[str]:
        """What to forget with the next batch: never what that batch itself remembers."""
        most = min(MAX_FORGOTTEN_PER_BATCH, max(0, len(self._services) - MAX_REMOVAL_REVISIONS))
        return [service for service in islice(self._services, most) if service not in kept]

    def remove(self, services: Iterable[str]) -> None:
        """It is done."""
        for service in services:
            self._services.pop(service, None)
