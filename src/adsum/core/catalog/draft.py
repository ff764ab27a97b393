"""Drafts: a snapshot with changes on top that are not committed yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from adsum.core.catalog.changes import Change, Fact
from adsum.core.catalog.documents import Documents, Edit
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.errors import CatalogFull
from adsum.core.identity import HostPort
from adsum.core.model import Key, Listing
from adsum.core.sizes import format_size

MAX_CATALOG_BYTES: Final = 2 * 1024 * 1024 * 1024
"""Bytes of memory of all registrations, by default. Past it changes that need more memory are refused, and all others
are accepted."""


class CatalogView(Protocol):
    """The catalog that a request is decided on: a snapshot, or a draft of the next one."""

    @property
    def instance_count(self) -> int: ...

    def find(self, key: Key) -> Listing | None: ...

    def service_count_with(self, service: str) -> int:
        """Returns the number of known services after `service` is added to them."""
        ...

    def listed_count(self, service: str) -> int | None:
        """Returns the number of instances of the service; None if it is not known."""
        ...

    def listings_at(self, host_port: HostPort) -> Sequence[Listing]:
        """Returns the listings of all services at the address and port."""
        ...

    @property
    def documents(self) -> Documents: ...


class _Unchanged:
    """Stands for a listing that the draft did not change."""


_UNCHANGED: Final = _Unchanged()


class Draft:
    """A snapshot with uncommitted changes on top, so that each request of a batch sees those before it."""

    def __init__(self, snapshot: Snapshot, max_catalog_bytes: int = MAX_CATALOG_BYTES) -> None:
        """`max_catalog_bytes`: bound of the memory of all registrations, in bytes."""
        self._snapshot = snapshot
        self._max_catalog_bytes = max_catalog_bytes
        self._changed: dict[Key, Listing | None] = {}
        self._listed: dict[str, int | None] = {}
        """The instance counts of the changed services; None for a forgotten service."""
        self._services = len(snapshot.services)
        self._arrivals: dict[HostPort, dict[Key, None]] = {}
        """The keys of changed listings by address and port."""
        self._edits: list[Edit] = []
        self.instance_count = snapshot.instance_count
        self.size = snapshot.size

    def find(self, key: Key) -> Listing | None:
        found = self._changed.get(key, _UNCHANGED)
        return self._snapshot.find(key) if isinstance(found, _Unchanged) else found

    def service_count_with(self, service: str) -> int:
        return self._services + (self.listed_count(service) is None)

    def listed_count(self, service: str) -> int | None:
        return self._listed[service] if service in self._listed else self._snapshot.listed_count(service)

    def listings_at(self, host_port: HostPort) -> list[Listing]:
        listed, arrived = self._snapshot.address_index.candidates(host_port), self._arrivals.get(host_port, ())
        if not listed and not arrived:
            return []
        found = (self.find(key) for key in dict.fromkeys((*listed, *arrived)))
        return [listing for listing in found if listing is not None and listing.instance.host_port == host_port]

    @property
    def documents(self) -> Documents:
        known = self._snapshot.documents
        return known.with_edits(known.revision, self._edits) if self._edits else known

    def add(self, facts: Sequence[Fact]) -> None:
        """Adds facts. Raises `CatalogFull`, and adds none of them, if the registrations outgrow the bound.

        Facts that need no more memory always fit: removals, new statuses, overrides.
        """
        size = self.size
        for fact in facts:
            if isinstance(fact, Change):
                size += self._growth(fact)
        if size > max(self.size, self._max_catalog_bytes):
            raise CatalogFull(
                f"registrations take {format_size(self.size)} of the {format_size(self._max_catalog_bytes)} of memory "
                f"that they may take, and this one needs {format_size(size - self.size)} more: raise --max-catalog "
                "(the registry applies it on SIGHUP), or register with fewer tags, metadata and checks"
            )
        self.size = size
        for fact in facts:
            if isinstance(fact, Edit):
                self._edits.append(fact)
            else:
                self._add(fact)

    def _add(self, change: Change) -> None:
        key, listing = change.key, change.listing
        service, listed = key.service, self.listed_count(key.service)
        if change.forgets_service:
            self._services -= listed is not None
            self._listed[service] = None
            return
        added = (listing is not None) - (self.find(key) is not None)
        self.instance_count += added
        self._services += listed is None
        self._listed[service] = (listed or 0) + added
        self._changed[key] = listing
        if listing is not None:
            self._arrivals.setdefault(listing.instance.host_port, {})[key] = None

    def _growth(self, change: Change) -> int:
        """Returns the bytes of memory that a change adds."""
        before, after = self.find(change.key), change.listing
        return (after.registration.size if after else 0) - (before.registration.size if before else 0)
