"""The catalog: the fold of all batches, published as immutable snapshots.

A snapshot costs what changed: services that a batch does not touch are shared with the snapshot before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby, takewhile
from types import MappingProxyType
from typing import Final, TypeVar

from adsum.core.catalog.address_index import EMPTY_ADDRESS_INDEX, AddressIndex
from adsum.core.catalog.changes import MAX_REMOVAL_REVISIONS, Batch, Change, FullState
from adsum.core.catalog.documents import NO_DOCUMENTS, Documents
from adsum.core.identity import HostPort, Place
from adsum.core.memory_sizes import text_size
from adsum.core.model import Key, Listing
from adsum.core.provenance import Provenance

MAX_RECENT_CHANGES: Final = 256
"""How many of its latest changes a service remembers, for watchers that resume; older ones are shown the whole."""
MAX_RECENT_CHANGES_BYTES: Final = 256 * 1024 * 1024
"""Bytes that the remembered changes of all services take; past it those of the services that changed longest ago are
forgotten, and whoever resumes there is shown the whole."""
RECENT_CHANGE_BYTES: Final = 400
"""Bytes of a remembered change without its reason."""
MAX_EMPTY_SERVICES: Final = MAX_REMOVAL_REVISIONS
"""How many services without an instance stay known; past it the one emptied longest ago is forgotten."""

MAX_FORGOTTEN_SERVICES: Final = 1_024
"""How many of the services forgotten last a snapshot names; whoever saw an earlier one has to compare all services."""

_NO_LISTINGS: Final[Mapping[str, Listing]] = MappingProxyType({})


V = TypeVar("V")


def _copied(view: Mapping[str, V]) -> dict[str, V]:
    """A dictionary of the same, to be changed. A proxy's own copy costs a twentieth of reading it item by item."""
    return view.copy() if isinstance(view, MappingProxyType) else dict(view)


@dataclass(frozen=True, slots=True)
class RecentChange:
    """A change at its revision: of which instance, why, and whether it is listed since. What as is not remembered."""

    revision: int
    id: str
    provenance: Provenance
    listed: bool

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, about."""
        return RECENT_CHANGE_BYTES + text_size(self.provenance.reason)


@dataclass(frozen=True, slots=True)
class ServiceDiff:
    """What turns a service as it was at revision `since` into what it is at `revision`.

    Every listing that changed, as it is now, and the last change of every instance that is gone.
    """

    service: str
    since: int
    revision: int
    changed: tuple[Listing, ...]
    removed: tuple[Change, ...]

    def apply(self, listings: Mapping[str, Listing]) -> dict[str, Listing]:
        """The listings by id after this diff. Instances that were never there may be gone: that is harmless."""
        after = _copied(listings)
        for listing in self.changed:
            after[listing.instance.id] = listing
        for change in self.removed:
            after.pop(change.key.id, None)
        return after


@dataclass(frozen=True, slots=True)
class ServiceSnapshot:
    """One service at the revision of its last change. A service whose last instance left stays known, empty."""

    name: str
    revision: int
    listings: Mapping[str, Listing]
    recent_changes: tuple[RecentChange, ...] = ()
    compact_revision: int = 0
    """The trail is complete for what came after this revision."""
    size: int = 0
    """Bytes of memory that its registrations take, about."""
    recent_changes_size: int = 0
    """Bytes of memory that its trail takes, about."""

    def diff_since(self, revision: int) -> ServiceDiff | None:
        """What changed after `revision` (nothing, if it is not before ours); None if that is not remembered."""
        if revision < self.compact_revision:
            return None
        last: dict[str, Provenance] = {}
        for step in reversed(self.recent_changes):
            if step.revision <= revision:
                break
            last.setdefault(step.id, step.provenance)
        changed = tuple(self.listings[id] for id in reversed(last) if id in self.listings)
        gone = (id for id in reversed(last) if id not in self.listings)
        left = tuple(Change(Key(self.name, id), None, last[id]) for id in gone)
        return ServiceDiff(self.name, revision, max(revision, self.revision), changed, left)

    def with_changes(self, revision: int, changes: Iterable[Change]) -> ServiceSnapshot:
        """The service after `changes`, committed under `revision`."""
        listings, steps = _copied(self.listings), list(self.recent_changes)
        size, trail_size = self.size, self.recent_changes_size
        for change in changes:
            before = listings.pop(change.key.id, None) if change.listing is None else listings.get(change.key.id)
            size -= before.registration.size if before is not None else 0
            if change.listing is not None:
                listings[change.key.id] = change.listing
                size += change.listing.registration.size
            steps.append(RecentChange(revision, change.key.id, change.provenance, change.listing is not None))
            trail_size += steps[-1].size
        horizon = self.compact_revision
        if len(steps) > MAX_RECENT_CHANGES:
            first = len(steps) - MAX_RECENT_CHANGES
            horizon = steps[first - 1].revision
            while first < len(steps) and steps[first].revision == horizon:
                first += 1  # A revision is remembered whole or not at all.
            trail_size -= sum(step.size for step in steps[:first])
            steps = steps[first:]
        return ServiceSnapshot(self.name, revision, MappingProxyType(listings), tuple(steps), horizon, size, trail_size)

    def without_recent_changes(self) -> ServiceSnapshot:
        """The same service, of whose changes nothing is remembered."""
        return replace(self, recent_changes=(), compact_revision=self.revision, recent_changes_size=0)


@dataclass(frozen=True, slots=True)
class ForgottenServices:
    """The services that were forgotten last, each with the revision at which it was, the latest last."""

    compact_revision: int = 0
    """It is complete for what came after this revision."""
    services: tuple[tuple[int, str], ...] = ()

    def names_since(self, revision: int) -> set[str] | None:
        """The services forgotten after `revision`; None if that is not remembered."""
        if revision < self.compact_revision:
            return None
        return {name for _, name in takewhile(lambda each: each[0] > revision, reversed(self.services))}

    def with_services(self, revision: int, names: Iterable[str]) -> ForgottenServices:
        """With those that were forgotten at `revision`."""
        services = (*self.services, *((revision, name) for name in names))
        cut = max(0, len(services) - MAX_FORGOTTEN_SERVICES)
        return ForgottenServices(services[cut - 1][0] if cut else self.compact_revision, services[cut:])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The catalog at one revision of one epoch; it never changes."""

    epoch: str
    revision: int
    services: Mapping[str, ServiceSnapshot]
    instance_count: int
    """How many instances are listed."""
    default_revision: int
    """The revision that a service unknown here is at: it has not changed since."""
    documents: Documents = NO_DOCUMENTS
    """What was declared beside the services."""
    address_index: AddressIndex = EMPTY_ADDRESS_INDEX
    """Which instances are listed at which socket."""
    size: int = 0
    """Bytes of memory that all registrations take, about."""
    recent_changes_size: int = 0
    """Bytes of memory that the trails of all services take, about."""
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
        """The service as it stands; one never heard of is empty, not an error: it may come."""
        known = self.services.get(name)
        return (
            known
            if known is not None
            else ServiceSnapshot(name, self.default_revision, _NO_LISTINGS, compact_revision=self.default_revision)
        )

    def service_count_with(self, service: str) -> int:
        """How many services are known once this is one of them."""
        return len(self.services) + (service not in self.services)

    def listed_count(self, service: str) -> int | None:
        """How many instances the service lists; None: it is not known."""
        known = self.services.get(service)
        return len(known.listings) if known is not None else None

    def find(self, key: Key) -> Listing | None:
        service = self.services.get(key.service)
        return service.listings.get(key.id) if service is not None else None

    def listings_at(self, host_port: HostPort) -> list[Listing]:
        """Whatever is listed at the socket, of any service."""
        return [listing for key in self.address_index.keys_at(host_port) if (listing := self.find(key)) is not None]

    def apply(self, batch: Batch) -> Snapshot:
        """The snapshot after `batch`. One at or before this revision changes nothing."""
        if batch.revision <= self.revision:
            return self
        touched: dict[str, list[Change]] = {}
        for change in batch.changes:
            touched.setdefault(change.key.service, []).append(change)
        services, count, floor = _copied(self.services), self.instance_count, self.default_revision
        size, trail_size = self.size, self.recent_changes_size
        gone: list[ServiceSnapshot] = []
        for name, changes in touched.items():
            before, after = services.get(name), self._followed(name, batch.revision, changes, gone)
            if after is before:
                continue
            # Taken out and put back: the order of `services` is that of the last change.
            services.pop(name, None)
            for service, sign in ((after, 1), (before, -1)):
                if service is not None:
                    count += sign * len(service.listings)
                    size += sign * service.size
                    trail_size += sign * service.recent_changes_size
            if after is not None:
                services[name] = after
        if len(services) > MAX_EMPTY_SERVICES and any(
            name in services and not services[name].listings for name in touched
        ):
            emptied = _forget_empty(services)
            trail_size -= sum(each.recent_changes_size for each in emptied)
            gone += emptied
        if trail_size > MAX_RECENT_CHANGES_BYTES:
            trail_size = _shorten_trails(services, trail_size)
        # A forgotten service stays at its last revision or a later one: nobody's view of it goes backwards.
        floor = max((floor, *(each.revision for each in gone)))
        forgotten = (
            self.forgotten_services.with_services(batch.revision, (each.name for each in gone))
            if gone
            else self.forgotten_services
        )
        documents = self.documents.with_edits(batch.revision, batch.edits) if batch.edits else self.documents
        occupancy = self.address_index.with_moves(self._moves(batch.changes))
        return Snapshot(
            *(self.epoch, batch.revision, MappingProxyType(services), count, floor, documents, occupancy),
            *(size, trail_size, forgotten),
        )

    def _followed(
        self, name: str, revision: int, changes: Iterable[Change], gone: list[ServiceSnapshot]
    ) -> ServiceSnapshot | None:
        """The service after those changes of one batch; None: it was forgotten. As it was then, it is put in `gone`."""
        service, unknown = self.services.get(name), self.service(name)
        for forgets, some in groupby(changes, key=lambda each: each.forgets_service):
            if not forgets:
                service = (service or unknown).with_changes(revision, some)
            elif service is not None and not service.listings:
                gone.append(service)
                # Whoever saw what is forgotten is shown the whole of what comes after it.
                service, unknown = None, ServiceSnapshot(name, revision, _NO_LISTINGS, compact_revision=revision)
        return service

    def _moves(self, changes: Iterable[Change]) -> Iterator[tuple[Key, Place | None, Place | None]]:
        """From where to where each instance went that changed its place, came or left."""
        places: dict[Key, Place | None] = {}
        for change in changes:
            key, after = change.key, change.listing
            if key not in places:
                before = self.find(key)
                if before is not None and after is not None and before.instance == after.instance:
                    continue
                places[key] = before.instance.place if before is not None else None
            now = after.instance.place if after is not None else None
            yield key, places[key], now
            places[key] = now


def _forget_empty(services: dict[str, ServiceSnapshot]) -> list[ServiceSnapshot]:
    """Forget the services emptied longest ago beyond `MAX_EMPTY_SERVICES`; those are returned."""
    empty = [name for name, service in services.items() if not service.listings]
    return [services.pop(name) for name in empty[: max(0, len(empty) - MAX_EMPTY_SERVICES)]]


def changed_services(before: Snapshot, after: Snapshot) -> set[str]:
    """The services that changed, came or went."""
    names = after.names_changed_since(before.epoch, before.revision)
    if names is None:
        every = before.services.keys() | after.services.keys()
        return {name for name in every if before.services.get(name) is not after.services.get(name)}
    return names


def _shorten_trails(services: dict[str, ServiceSnapshot], size: int) -> int:
    """Forget the trails of the services that changed longest ago, an eighth more than needed; what is left in bytes."""
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
    """The snapshot of everything that a store knows. What came before it is not remembered: watchers see the whole."""
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
            *(name, state.revision, MappingProxyType(listings[name])),
            compact_revision=state.revision,
            size=sum(each.registration.size for each in listings[name].values()),
        )
        for name in sorted(listings, key=revisions.__getitem__)
    }
    _forget_empty(services)
    documents = Documents.create(state.revision, (each for _, each in state.documents))
    arrivals = ((listing.key, None, listing.instance.place) for each in listings.values() for listing in each.values())
    occupancy = EMPTY_ADDRESS_INDEX.with_moves(arrivals)
    size = sum(service.size for service in services.values())
    return Snapshot(
        *(state.epoch, state.revision, MappingProxyType(services), count, state.revision, documents, occupancy),
        *(size, 0, ForgottenServices(state.revision)),
    )
