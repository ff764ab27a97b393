"""The number of instances in each status. A new count costs what changed since the last one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from adsum.core.catalog.service_snapshot import ServiceSnapshot
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.model import Status

StatusCounts = Counter[Status]


class StatusCounter:
    """Counts the instances of successive snapshots of one catalog by status."""

    def __init__(self) -> None:
        self._counted = ("", 0)
        """The epoch and revision of the last count."""
        self._by_service: dict[str, StatusCounts] = {}
        self._total = StatusCounts()

    def count(self, snapshot: Snapshot) -> dict[str, int]:
        """Returns how many instances have each status that occurs, in the order of `Status`."""
        (epoch, revision), self._counted = self._counted, (snapshot.epoch, snapshot.revision)
        names: Iterable[str] | None = snapshot.names_changed_since(epoch, revision)
        if names is None:
            self._by_service, self._total, names = {}, StatusCounts(), snapshot.services
        for name in names:
            self._count(snapshot.service(name))
        return {status.value: self._total[status] for status in Status if self._total[status]}

    def _count(self, service: ServiceSnapshot) -> None:
        before = self._by_service.pop(service.name, None)
        if before is None and not service.listings:
            return
        after = StatusCounts(listing.status for listing in service.listings.values())
        if before is not None:
            self._total.subtract(before)
        self._total.update(after)
        if after:
            self._by_service[service.name] = after
