"""What requests are decided on: a snapshot, and the changes on top of it that are not committed yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from adsum.core import sizes
from adsum.core.catalog.changes import Change, Fact
from adsum.core.catalog.documents import Documents, Edit
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.errors import CatalogFull
from adsum.core.identity import HostPort
from adsum.core.model import Key, Listing

MAX_CATALOG_BYTES: Final = 2 * 1024 * 1024 * 1024
"""Bytes of memory that all registrations may take unless the operator says otherwise; past it what would make them
larger is refused, and all else goes on."""


class CatalogView(Protocol):
    """What is decided on: a snapshot, or a draft of the next one."""

    @property
    def instance_count(self) -> int: ...

    def find(self, key: Key) -> Listing | None: ...

    def service_count_with(self, service: str) -> int:
        """How many services are known once this is one of them."""
        ...

    def listed_count(self, service: str) -> int | None:
        """How many instances the service lists; None: it is not known."""
        ...

    def listings_at(self, host_port: HostPort) -> Sequence[Listing]:
        """Whatever is listed at the socket, of any service."""
        ...

    @property
    def documents(self) -> Documents: ...


class Draft:
    """A snapshot with changes on top that are not committed yet, so that requests of one batch see each other."""

    def __init__(self, snapshot: Snapshot, max_catalog_bytes: int = MAX_CATALOG_BYTES) -> None:
        """`max_catalog_bytes`: bytes of memory that all registrations may take."""
        self._snapshot = snapshot
        self._max_size = max_catalog_bytes
        self._ahead: dict[Key, Listing | None] = {}
        self._listed: dict[str, int | None] = {}
        """How many instances each service lists that changed (None: it was forgotten)."""
        self._services = len(snapshot.services)
        self._ahead_at: dict[HostPort, dict[Key, None]] = {}
        """Who came to each socket by changes that are not committed yet."""
        self._edits: list[Edit] = []
        self.instance_count = snapshot.instance_count
        self.size = snapshot.size

    def find(self, key: Key) -> Listing | None:
        return self._ahead[key] if key in self._ahead else self._snapshot.find(key)

    def service_count_with(self, service: str) -> int:
        return self._services + (self.listed_count(service) is None)

    def listed_count(self, service: str) -> int | None:
        return self._listed[service] if service in self._listed else self._snapshot.listed_count(service)

    def listings_at(self, host_port: HostPort) -> list[Listing]:
        keys = dict.fromkeys((*self._snapshot.address_index.keys_at(host_port), *self._ahead_at.get(host_port, ())))
        found = (self.find(key) for key in keys)
        return [listing for listing in found if listing is not None and listing.instance.place.host_port == host_port]

    @property
    def documents(self) -> Documents:
        known = self._snapshot.documents
        return known.with_edits(known.revision, self._edits) if self._edits else known

    def add(self, facts: Sequence[Fact]) -> None:
        """Put them on top. Raises `CatalogFull`, and adds none of them, if registrations grow beyond the bound.

        What makes nothing larger always fits: removals, new statuses, overrides.
        """
        grown = self.size + sum(self._growth(fact) for fact in facts if isinstance(fact, Change))
        if grown > max(self.size, self._max_size):
            raise CatalogFull(
                f"registrations take {sizes.format_size(self.size)} of the {sizes.format_size(self._max_size)} of memory that "
                f"they may take, and this one needs {sizes.format_size(grown - self.size)} more: raise --max-catalog "
                "(the registry takes it over on SIGHUP), or register with fewer tags, metadata and checks"
            )
        self.size = grown
        for fact in facts:
            if isinstance(fact, Edit):
                self._edits.append(fact)
            else:
                self._add(fact)

    def _add(self, change: Change) -> None:
        service = change.key.service
        listed = self.listed_count(service)
        if change.forgets_service:
            self._services -= listed is not None
            self._listed[service] = None
            return
        more = (change.listing is not None) - (self.find(change.key) is not None)
        self.instance_count += more
        self._services += listed is None
        self._listed[service] = (listed or 0) + more
        self._ahead[change.key] = change.listing
        if change.listing is not None:
            self._ahead_at.setdefault(change.listing.instance.place.host_port, {})[change.key] = None

    def _growth(self, change: Change) -> int:
        """By how many bytes a change makes the catalog larger."""
        before, after = self.find(change.key), change.listing
        return (after.registration.size if after else 0) - (before.registration.size if before else 0)
