"""The catalog: all batches applied in order, published as immutable snapshots.

A new snapshot costs what changed: it shares the services that a batch does not touch with the snapshot before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from types import MappingProxyType
from typing import Final

from adsum.core.catalog.address_index import EMPTY_ADDRESS_INDEX, AddressIndex
from adsum.core.catalog.changes import MAX_REMOVAL_REVISIONS, Batch, Change, FullState
from adsum.core.catalog.documents import NO_DOCUMENTS, Documents
from adsum.core.catalog.segmented_mapping import freeze_mapping, mutable_copy
from adsum.core.catalog.service_snapshot import ServiceSnapshot
from adsum.core.identity import HostPort
from adsum.core.model import Key, Listing

MAX_RECENT_CHANGES_BYTES: Final = 256 * 1024 * 1024
"""Bytes of the recent changes of all services. Past it the services that changed longest ago drop theirs, and a watcher
that resumes there receives the whole service."""
MAX_EMPTY_SERVICES: Final = MAX_REMOVAL_REVISIONS
"""Services without an instance that stay known. Past it the one emptied longest ago is forgotten."""
MAX_FORGOTTEN_SERVICES: Final = 1_024
"""Forgotten services that a snapshot remembers. A reader that is further behind has to compare all services."""

_NO_LISTINGS: Final[Mapping[str, Listing]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ForgottenServices:
    """The services that were forgotten last, each with the revision that forgot it, the latest last."""

    compact_revision: int = 0
    """`services` holds every service that was forgotten after this revision."""
    services: tuple[tuple[int, str], ...] = ()

    def names_since(self, revision: int) -> set[str] | None:
        """Returns the services forgotten after `revision`; None if that is no longer remembered."""
        if revision < self.compact_revision:
            return None
        return {name for _, name in takewhile(lambda entry: entry[0] > revision, reversed(self.services))}

    def with_services(self, revision: int, names: Iterable[str]) -> ForgottenServices:
        """Returns these services and those that were forgotten at `revision`."""
        services = (*self.services, *((revision, name) for name in names))
        cut = max(0, len(services) - MAX_FORGOTTEN_SERVICES)
        return ForgottenServices(services[cut - 1][0] if cut else self.compact_revision, services[cut:])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The catalog at one revision of one epoch; it never changes."""

    epoch: str
    revision: int
    services: Mapping[str, ServiceSnapshot]
    """The known services in the order of their last changes."""
    instance_count: int
    """The number of listed instances."""
    default_revision: int
    """The revision of a service that is not known here: it has not changed since."""
    documents: Documents = NO_DOCUMENTS
    """The documents that operators declared."""
    address_index: AddressIndex = EMPTY_ADDRESS_INDEX
    """The instances by address and port."""
    size: int = 0
    """Bytes of memory of all registrations, estimated."""
    recent_changes_size: int = 0
    """Bytes of memory of the recent changes of all services, estimated."""
    forgotten_services: ForgottenServices = ForgottenServices()

    def changed_since(self, revision: int) -> Iterator[ServiceSnapshot]:
        """Yields the known services that changed after `revision`, the latest change first.

        Costs what changed: `services` is in the order of the last changes. Forgotten services are left out.
        """
        for service in reversed(self.services.values()):  # type: ignore[call-overload]  # The values of a dict.
            if service.revision <= revision:
                return
            yield service

    def names_changed_since(self, epoch: str, revision: int) -> set[str] | None:
        """Returns the names of the services that changed, appeared or were forgotten after `revision` of `epoch`.

        Returns None if that is unknown: the epoch is another one, the revision is later than this snapshot's, or more
        services were forgotten since than are remembered. Costs what changed.
        """
        names = self.forgotten_services.names_since(revision)
        if names is None or epoch != self.epoch or self.revision < revision:
            return None
        return names.union(service.name for service in self.changed_since(revision))

    def service(self, name: str) -> ServiceSnapshot:
        """Returns the service. A service that is not known is empty, not an error: it may be registered later."""
        known = self.services.get(name)
        if known is not None:
            return known
        return ServiceSnapshot(name, self.default_revision, _NO_LISTINGS, compact_revision=self.default_revision)

    def service_count_with(self, service: str) -> int:
        """Returns the number of known services after `service` is added to them."""
        return len(self.services) + (service not in self.services)

    def listed_count(self, service: str) -> int | None:
        """Returns the number of instances of the service; None if it is not known."""
        known = self.services.get(service)
        return len(known.listings) if known is not None else None

    def find(self, key: Key) -> Listing | None:
        service = self.services.get(key.service)
        return service.listings.get(key.id) if service is not None else None

    def listings_at(self, host_port: HostPort) -> list[Listing]:
        """Returns the listings of all services at the address and port."""
        found = map(self.find, self.address_index.candidates(host_port))
        return [listing for listing in found if listing is not None and listing.instance.host_port == host_port]

    def apply(self, batch: Batch) -> Snapshot:
        """Returns the snapshot after `batch`. A batch at or before this revision changes nothing."""
        if batch.revision <= self.revision:
            return self
        changes_by_service: dict[str, list[Change]] = {}
        forgetting = set[str]()
        for change in batch.changes:
            name, id = change.key
            known = changes_by_service.get(name)
            if known is None:
                changes_by_service[name] = [change]
            else:
                known.append(change)
            if not id:
                forgetting.add(name)
        services, count, default_revision = mutable_copy(self.services), self.instance_count, self.default_revision
        size, recent_size = self.size, self.recent_changes_size
        gone: list[ServiceSnapshot] = []
        for name, changes in changes_by_service.items():
            before, after = services.get(name), None
            if name in forgetting:
                after = self._after(name, batch.revision, changes, gone)
            else:
                after = (before or self.service(name)).with_changes(batch.revision, changes)
            if after is before:
                continue
            # Remove and insert: `services` is in the order of the last changes.
            services.pop(name, None)
            for service, sign in ((after, 1), (before, -1)):
                if service is not None:
                    count += sign * len(service.listings)
                    size += sign * service.size
                    recent_size += sign * service.recent_changes_size
            if after is not None:
                services[name] = after
        if len(services) > MAX_EMPTY_SERVICES and any(
            name in services and not services[name].listings for name in changes_by_service
        ):
            emptied = _forget_empty(services)
            recent_size -= sum(service.recent_changes_size for service in emptied)
            gone += emptied
        if recent_size > MAX_RECENT_CHANGES_BYTES:
            recent_size = _drop_recent_changes(services, recent_size)
        # A forgotten service stays at its last revision or a later one, so that no view of it goes backwards.
        default_revision = max((default_revision, *(service.revision for service in gone)))
        forgotten = (
            self.forgotten_services.with_services(batch.revision, (service.name for service in gone))
            if gone
            else self.forgotten_services
        )
        documents = self.documents.with_edits(batch.revision, batch.edits) if batch.edits else self.documents
        address_index = self.address_index.with_moves(self._moves(batch.changes))
        return Snapshot(
            epoch=self.epoch,
            revision=batch.revision,
            services=MappingProxyType(services),
            instance_count=count,
            default_revision=default_revision,
            documents=documents,
            address_index=address_index,
            size=size,
            recent_changes_size=recent_size,
            forgotten_services=forgotten,
        )

    def _after(
        self, name: str, revision: int, changes: Sequence[Change], gone: list[ServiceSnapshot]
    ) -> ServiceSnapshot | None:
        """Returns the service after these changes of one batch, some of which forget it; None if the last one does.

        Adds every service that they forget to `gone`.
        """
        service, unknown = self.services.get(name), self.service(name)
        for forgets, group in groupby(changes, key=lambda change: change.forgets_service):
            if not forgets:
                service = (service or unknown).with_changes(revision, group)
            elif service is not None and not service.listings:
                gone.append(service)
                # A watcher that saw the forgotten service receives the whole of its successor.
                service, unknown = None, ServiceSnapshot(name, revision, _NO_LISTINGS, compact_revision=revision)
        return service

    def _moves(self, changes: Iterable[Change]) -> Iterator[tuple[Key, HostPort | None, HostPort | None]]:
        """Yields the address and port before and after of every instance that came, moved or left."""
        places: dict[Key, HostPort | None] = {}
        for change in changes:
            key, after = change.key, change.listing
            if key not in places:
                before = self.find(key)
                if before is not None and after is not None and before.instance == after.instance:
                    continue
                places[key] = before.instance.host_port if before is not None else None
            now = after.instance.host_port if after is not None else None
            yield key, places[key], now
            places[key] = now


def _forget_empty(services: dict[str, ServiceSnapshot]) -> list[ServiceSnapshot]:
    """Forgets the services emptied longest ago beyond `MAX_EMPTY_SERVICES`, and returns them."""
    empty = [name for name, service in services.items() if not service.listings]
    return [services.pop(name) for name in empty[: max(0, len(empty) - MAX_EMPTY_SERVICES)]]


def changed_services(before: Snapshot, after: Snapshot) -> set[str]:
    """Returns the services that changed, came or went from one snapshot to the other."""
    names = after.names_changed_since(before.epoch, before.revision)
    if names is None:
        every = before.services.keys() | after.services.keys()
        return {name for name in every if before.services.get(name) is not after.services.get(name)}
    return names


def _drop_recent_changes(services: dict[str, ServiceSnapshot], size: int) -> int:
    """Drops the recent changes of the services that changed longest ago. Returns the bytes that are left.

    It drops an eighth more than needed, so that the next batch does not drop again.
    """
    for name, service in services.items():
        if size <= MAX_RECENT_CHANGES_BYTES * 7 // 8:
            break
        if service.recent_changes:
            size -= service.recent_changes_size
            services[name] = service.without_recent_changes()
    return size


EMPTY_SNAPSHOT: Final = Snapshot("", 0, MappingProxyType({}), 0, 0)
"""The catalog before anything was loaded."""


def load_snapshot(state: FullState) -> Snapshot:
    """Returns the snapshot of everything that a store knows.

    It remembers no recent changes, so watchers that resume receive whole services.
    """
    listings: dict[str, dict[str, Listing]] = {name: {} for name in state.removal_revisions}
    revisions = dict(state.removal_revisions)
    count = 0
    for revision, listing in state.listings:
        name, id = listing.key
        listings.setdefault(name, {})[id] = listing
        revisions[name] = max(revisions.get(name, 0), revision)
        count += 1
    services = {
        name: ServiceSnapshot(
            name,
            state.revision,
            freeze_mapping(listings[name]),
            compact_revision=state.revision,
            size=sum(listing.registration.size for listing in listings[name].values()),
        )
        for name in sorted(listings, key=revisions.__getitem__)
    }
    _forget_empty(services)
    documents = Documents.create(state.revision, (document for _, document in state.documents))
    moves = (
        (listing.key, None, listing.instance.host_port) for by_id in listings.values() for listing in by_id.values()
    )
    address_index = EMPTY_ADDRESS_INDEX.with_moves(moves)
    size = sum(service.size for service in services.values())
    return Snapshot(
        epoch=state.epoch,
        revision=state.revision,
        services=MappingProxyType(services),
        instance_count=count,
        default_revision=state.revision,
        documents=documents,
        address_index=address_index,
        size=size,
        forgotten_services=ForgottenServices(state.revision),
    )
