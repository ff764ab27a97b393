"""The Server-Sent Events of watches. Each is encoded once, and shared by all watches that send it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final

from adsum import wire
from adsum.core.access.scopes import NamePatterns
from adsum.core.catalog.service_snapshot import ServiceSnapshot
from adsum.core.catalog.snapshots import Snapshot
from adsum.dialects.native.asgi import PiecedBody
from adsum.dialects.native.pages.byte_cache import ByteCache
from adsum.dialects.native.pages.pages import Pages

MAX_EVENT_CACHE_BYTES: Final = 64 * 1024 * 1024
"""Bytes of encoded events that are kept. Past it the events that were used longest ago are dropped."""

WatchedServices = frozenset[str] | NamePatterns | None
"""The services of a watch: named ones, all that its caller may see (a set of patterns), or all (None)."""


MAX_SHARED_SETS: Final = 256
"""Sets of services that are shared by the watches of the same services. Further watches have sets of their own."""


@lru_cache(MAX_SHARED_SETS)
def share_services(services: frozenset[str]) -> frozenset[str]:
    """Returns the set, the same object for equal sets. All processes of a program watch the same services."""
    return services


def encode_event(kind: str, body: bytes | PiecedBody, id: str = "") -> bytes:
    """Returns one event. `body` is JSON, which has no line breaks, so that one data line holds it."""
    id_line = f"id: {id}\n" if id else ""
    return b"event: %b\n%bdata: %b\n\n" % (kind.encode(), id_line.encode(), bytes(body))


def can_resume(snapshot: Snapshot, services: WatchedServices, since: int) -> bool:
    """Returns whether the snapshot remembers all changes of the services after `since`, a revision of its epoch."""
    if since > snapshot.revision:
        return False
    if not isinstance(services, frozenset):
        return since >= snapshot.default_revision
    return all(snapshot.service(name).compact_revision <= since for name in services)


def can_resume_some(snapshot: Snapshot, services: WatchedServices, since: int) -> bool:
    """Returns whether a watch can resume at `since`: then the group of changes holds services in full that can't.

    That is so for named services if one of them can.
    """
    if isinstance(services, frozenset) and len(services) > 1:
        return any(can_resume(snapshot, frozenset((name,)), since) for name in services)
    return can_resume(snapshot, services, since)


class WatchEvents:
    """Encodes groups of events. A group brings a client from a revision to that of the snapshot."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._changes = ByteCache(MAX_EVENT_CACHE_BYTES)
        self._groups = ByteCache(MAX_EVENT_CACHE_BYTES)

    def full_state(self, snapshot: Snapshot, services: WatchedServices, age: float) -> bytes:
        """Returns the full state of the services, and `synced`."""
        key = (snapshot.epoch, snapshot.revision, services, None, age)
        return self._groups.get(key, lambda: b"".join(self._full(snapshot, services)) + synced_event(snapshot, age))

    def changes_since(self, snapshot: Snapshot, services: WatchedServices, since: int, age: float) -> bytes:
        """Returns the changes after `since`, and `synced`; nothing if nothing changed."""
        key = (snapshot.epoch, snapshot.revision, services, since, age)
        return self._groups.get(key, lambda: self._group(snapshot, services, since, age))

    def joined_group(
        self,
        snapshot: Snapshot,
        services: frozenset[str],
        since: int,
        joining: Mapping[str, int | None],
        age: float,
    ) -> bytes:
        """Returns the changes of `services` after `since`, the services that join, and `synced`.

        `joining`: the revision up to which the client has each service, None if it needs the full state.
        """
        parts = list(self._since(snapshot, services, since))
        for name in sorted(joining):
            parts.append(joined_event(name, joining[name]))
            parts += self._joined(snapshot, frozenset((name,)), joining[name])
        parts.append(synced_event(snapshot, age))
        return b"".join(parts)

    def _joined(self, snapshot: Snapshot, service: frozenset[str], since: int | None) -> Iterator[bytes]:
        return self._full(snapshot, service) if since is None else self._since(snapshot, service, since)

    def _group(self, snapshot: Snapshot, services: WatchedServices, since: int, age: float) -> bytes:
        changes = b"".join(self._since(snapshot, services, since))
        return changes and changes + synced_event(snapshot, age)

    def _full(self, snapshot: Snapshot, services: WatchedServices) -> Iterator[bytes]:
        for service in _watched(snapshot, services):
            yield encode_event("service", self._pages.body(snapshot, service))

    def _since(self, snapshot: Snapshot, services: WatchedServices, since: int) -> Iterator[bytes]:
        for service in changed_services(snapshot, services, since):
            base = _last_change_until(service, since)
            key = (snapshot.epoch, service.name, base, service.revision)
            yield self._changes.get(key, lambda: self._change(snapshot, service, base))  # noqa: B023  # called at once

    def _change(self, snapshot: Snapshot, service: ServiceSnapshot, since: int) -> bytes:
        diff = service.diff_since(since)
        if diff is None:
            return encode_event("service", self._pages.body(snapshot, service))
        return encode_event("change", wire.encode(wire.ServiceChange.from_diff(diff)))


def changed_services(snapshot: Snapshot, services: WatchedServices, since: int) -> Iterator[ServiceSnapshot]:
    """Yields the watched services that changed after `since`."""
    if services is None:
        yield from snapshot.changed_since(since)
    elif isinstance(services, NamePatterns):
        yield from (service for service in snapshot.changed_since(since) if services.includes(service.name))
    else:
        yield from (service for service in _named(snapshot, services) if service.revision > since)


def joined_event(service: str, since: int | None) -> bytes:
    """Returns the event that begins the state of a service that joins; `since`: see `joined_group`."""
    return encode_event("joined", wire.encode(wire.ServiceJoined(service, since is None, since or 0)))


def synced_event(snapshot: Snapshot, age: float) -> bytes:
    """Returns the event that ends a group. A watch can resume from its id."""
    body = wire.encode(wire.WatchSynced(snapshot.revision, age))
    return encode_event("synced", body, id=f"{snapshot.epoch}:{snapshot.revision}")


def _last_change_until(service: ServiceSnapshot, since: int) -> int:
    """Returns the revision of the last change up to `since`, so that watches with the same state share events."""
    if since < service.compact_revision:
        return since
    revisions = (change.revision for change in reversed(service.recent_changes) if change.revision <= since)
    return next(revisions, service.compact_revision)


def _watched(snapshot: Snapshot, services: WatchedServices) -> Iterable[ServiceSnapshot]:
    if services is None:
        return snapshot.services.values()
    if isinstance(services, NamePatterns):
        return (service for service in snapshot.services.values() if services.includes(service.name))
    return _named(snapshot, services)


def _named(snapshot: Snapshot, services: frozenset[str]) -> Iterable[ServiceSnapshot]:
    return (snapshot.service(name) for name in sorted(services))
