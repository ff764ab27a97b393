"""How many instances stand how, kept up with the catalog: looking again costs what changed, not what there is."""

from __future__ import annotations

from collections import Counter

from adsum.core.catalog.snapshots import ServiceSnapshot, Snapshot
from adsum.core.model import Status

StatusCounts = Counter[Status]


class StatusCounter:
    """Counts snapshot after snapshot of one catalog."""

    def __init__(self) -> None:
        self._seen = ("", 0)
        """The epoch and revision that were counted last."""
        self._of: dict[str, StatusCounts] = {}
        self._all = StatusCounts()

    def count(self, snapshot: Snapshot) -> dict[str, int]:
        """How many of the snapshot's instances stand how; a status in which none is, is left out."""
        (epoch, revision), self._seen = self._seen, (snapshot.epoch, snapshot.revision)
        forgotten = snapshot.forgotten_services.names_since(revision)
        if forgotten is None or snapshot.epoch != epoch or snapshot.revision < revision:
            self._of, self._all, revision, forgotten = {}, StatusCounts(), 0, set()
        for name in forgotten:  # They may have emptied unseen.
            self._count(snapshot.service(name))
        # The order of services is that of their last change.
        for service in reversed(snapshot.services.values()):  # type: ignore[call-overload]  # a dict's: reversible
            if service.revision <= revision:
                break
            self._count(service)
        return {status.value: count for status, count in self._all.items() if count}

    def _count(self, service: ServiceSnapshot) -> None:
        before = self._of.pop(service.name, None)
        if before is None and not service.listings:
            return
        after = StatusCounts(listing.status for listing in service.listings.values())
        if before is not None:
            self._all.subtract(before)
        self._all.update(after)
        if after:
            self._of[service.name] = after
