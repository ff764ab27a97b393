"""The services that etcd remembers because instances were removed from them, and the choice of those to forget."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import Final

from adsum.core.catalog.changes import MAX_REMOVAL_REVISIONS

MAX_FORGOTTEN_PER_BATCH: Final = 4
"""Services that are forgotten with one batch. A transaction has room for as many operations beside the batch."""


class DepartedServices:
    """Follows the remembered services without reading their keys. The service with the oldest removal comes first."""

    def __init__(self) -> None:
        self._services: dict[str, None] = {}

    def load(self, removal_revisions: Mapping[str, int]) -> None:
        """Sets all services that etcd remembers, given the revision of each one's latest removal."""
        self._services = dict.fromkeys(sorted(removal_revisions, key=removal_revisions.__getitem__))

    def add(self, services: Iterable[str]) -> None:
        """Adds services that instances were just removed from."""
        for service in services:
            self._services.pop(service, None)
            self._services[service] = None

    def excess(self, kept: Collection[str]) -> list[str]:
        """Returns the services to forget with the next batch, without `kept`, the services that the batch writes."""
        count = min(MAX_FORGOTTEN_PER_BATCH, max(0, len(self._services) - MAX_REMOVAL_REVISIONS))
        return [service for service in islice(self._services, count) if service not in kept]

    def remove(self, services: Iterable[str]) -> None:
        """Removes services that etcd has forgotten."""
        for service in services:
            self._services.pop(service, None)
