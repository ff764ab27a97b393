"""The part of the catalog that a set of names includes, kept from snapshot to snapshot at the cost of what changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from adsum.core.access.scopes import NamePatterns
from adsum.core.catalog.documents import NO_DOCUMENTS
from adsum.core.catalog.segmented_mapping import mutable_copy
from adsum.core.catalog.service_snapshot import ServiceSnapshot
from adsum.core.catalog.snapshots import ForgottenServices, Snapshot

_NO_SERVICES: Final[Mapping[str, ServiceSnapshot]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class VisibleSnapshot:
    """A snapshot, and the part of it that consists of the visible services.

    The part is a snapshot in which no other service is known. It remembers no recent changes, so that it keeps none
    alive that the source has dropped. It has no documents, since the core does not know which services they name.
    """

    visible: NamePatterns
    source: Snapshot
    part: Snapshot

    def advance(self, source: Snapshot) -> VisibleSnapshot:
        """Returns the visible part of another snapshot.

        Costs what changed since this one, if the other snapshot remembers that. The services are the same mapping if no
        visible service changed.
        """
        before, part = self.source, self.part
        names = source.names_changed_since(before.epoch, before.revision)
        if names is None:
            return _filtered(self.visible, source, part.services)
        changed = [service for service in source.changed_since(before.revision) if self.visible.includes(service.name)]
        gone = [name for name in names if name in part.services and name not in source.services]
        services, count, size = part.services, part.instance_count, part.size
        if changed or gone:
            after = mutable_copy(services)
            for name in (*gone, *(service.name for service in changed)):
                old = after.pop(name, None)
                if old is not None:
                    count, size = count - len(old.listings), size - old.size
            for service in reversed(changed):  # `services` is in the order of the last changes.
                after[service.name] = service.without_recent_changes()
                count, size = count + len(service.listings), size + service.size
            services = MappingProxyType(after)
        forgotten = part.forgotten_services
        if source.forgotten_services is not before.forgotten_services:
            forgotten = _visible_forgotten(self.visible, source)
        return VisibleSnapshot(self.visible, source, _part(source, services, count, size, forgotten))


def visible_snapshot(source: Snapshot, visible: NamePatterns) -> VisibleSnapshot:
    """Returns the visible part of a snapshot, computed from all its services."""
    return _filtered(visible, source, _NO_SERVICES)


def _filtered(visible: NamePatterns, source: Snapshot, known: Mapping[str, ServiceSnapshot]) -> VisibleSnapshot:
    """Returns the visible part, computed from all services. Those that are `known` unchanged stay the same objects."""
    services: dict[str, ServiceSnapshot] = {}
    count = size = 0
    for name, service in source.services.items():
        if visible.includes(name):
            old = known.get(name)
            is_same = old is not None and old.revision == service.revision and old.listings is service.listings
            services[name] = old if old is not None and is_same else service.without_recent_changes()
            count, size = count + len(service.listings), size + service.size
    forgotten = _visible_forgotten(visible, source)
    return VisibleSnapshot(visible, source, _part(source, MappingProxyType(services), count, size, forgotten))


def _visible_forgotten(visible: NamePatterns, source: Snapshot) -> ForgottenServices:
    forgotten = source.forgotten_services
    return replace(forgotten, services=tuple(entry for entry in forgotten.services if visible.includes(entry[1])))


def _part(
    source: Snapshot, services: Mapping[str, ServiceSnapshot], count: int, size: int, forgotten: ForgottenServices
) -> Snapshot:
    # The index of addresses may be the whole one: `listings_at` finds only listings of known services.
    return Snapshot(
        epoch=source.epoch,
        revision=source.revision,
        services=services,
        instance_count=count,
        default_revision=source.default_revision,
        documents=NO_DOCUMENTS,
        address_index=source.address_index,
        size=size,
        forgotten_services=forgotten,
    )
