"""What watches are shown, as Server-Sent Events: encoded once and shared by everybody who is shown the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from adsum import wire
from adsum.core.catalog.snapshots import ServiceSnapshot, Snapshot
from adsum.dialects.native.pages.byte_cache import Shelf
from adsum.dialects.native.pages.pages import Pages

MAX_SHARED: Final = 64 * 1024 * 1024
"""How many bytes of encoded events are kept; past it those asked for longest ago are encoded again."""

Services = frozenset[str] | None
"""What a watch is about; None: everything."""


def event(kind: str, body: bytes, id: str = "") -> bytes:
    """One event. JSON holds no line breaks, so it is one line."""
    mark = f"id: {id}\n" if id else ""
    return b"event: %b\n%bdata: %b\n\n" % (kind.encode(), mark.encode(), body)


def resumable(snapshot: Snapshot, services: Services, since: int) -> bool:
    """Whether what changed after `since`, a revision of this epoch, is remembered."""
    if since > snapshot.revision:
        return False
    if services is None:
        return since >= snapshot.floor
    return all(snapshot.service(name).horizon <= since for name in services)


class Events:
    """The groups of events that turn what a watch has shown into what is so now."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._changes = Shelf(MAX_SHARED)
        self._groups = Shelf(MAX_SHARED)

    def whole(self, snapshot: Snapshot, services: Services, age: float) -> bytes:
        """The full state, and `synced`."""
        key = (snapshot.epoch, snapshot.revision, services, None, age)
        return self._groups.get(key, lambda: b"".join(self._whole(snapshot, services)) + synced(snapshot, age))

    def since(self, snapshot: Snapshot, services: Services, since: int, age: float) -> bytes:
        """What changed after `since`, and `synced`; nothing at all if nothing did."""
        key = (snapshot.epoch, snapshot.revision, services, since, age)
        return self._groups.get(key, lambda: self._group(snapshot, services, since, age))

    def _group(self, snapshot: Snapshot, services: Services, since: int, age: float) -> bytes:
        changes = b"".join(self._since(snapshot, services, since))
        return changes and changes + synced(snapshot, age)

    def _whole(self, snapshot: Snapshot, services: Services) -> Iterator[bytes]:
        for service in _all(snapshot) if services is None else _named(snapshot, services):
            yield event("service", self._pages.body(snapshot, service))

    def _since(self, snapshot: Snapshot, services: Services, since: int) -> Iterator[bytes]:
        for service in touched(snapshot, services, since):
            base = _before(service, since)
            key = (snapshot.epoch, service.name, base, service.revision)
            yield self._changes.get(key, lambda: self._change(snapshot, service, base))  # noqa: B023  # made at once

    def _change(self, snapshot: Snapshot, service: ServiceSnapshot, since: int) -> bytes:
        diff = service.since(since)
        if diff is None:
            return event("service", self._pages.body(snapshot, service))
        return event("change", wire.encode(wire.ServiceChange.of(diff)))


def touched(snapshot: Snapshot, services: Services, since: int) -> Iterator[ServiceSnapshot]:
    """The services asked for that changed after `since`."""
    if services is not None:
        yield from (service for service in _named(snapshot, services) if service.revision > since)
        return
    for service in reversed(snapshot.services.values()):  # type: ignore[call-overload]  # a dict's, and so reversible
        if service.revision <= since:
            break  # The catalog keeps them in the order of their last change.
        yield service


def synced(snapshot: Snapshot, age: float) -> bytes:
    """The end of a group, from which a watch may resume."""
    body = wire.encode(wire.Synced(snapshot.revision, age))
    return event("synced", body, id=f"{snapshot.epoch}:{snapshot.revision}")


def _before(service: ServiceSnapshot, since: int) -> int:
    """The service's own revision as it stood at `since`: the same for all who have seen the same."""
    if since < service.horizon:
        return since
    earlier = (step.revision for step in reversed(service.trail) if step.revision <= since)
    return next(earlier, service.horizon)


def _all(snapshot: Snapshot) -> Iterable[ServiceSnapshot]:
    return snapshot.services.values()


def _named(snapshot: Snapshot, services: frozenset[str]) -> Iterable[ServiceSnapshot]:
    return (snapshot.service(name) for name in sorted(services))
