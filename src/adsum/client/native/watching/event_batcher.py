"""Gathers the events of a watch into updates of its services; each group of updates ends with a `synced` event."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from adsum import wire
from adsum.client.errors import ProtocolViolation
from adsum.client.native.sse import MAX_EVENT_BYTES, SseEvent
from adsum.client.sources.source import ServiceUpdate, ViewPosition
from adsum.core.errors import Invalid
from adsum.core.model import Endpoint

MAX_UPDATE_BYTES: Final = MAX_EVENT_BYTES
"""Bytes of the events of one service in one group, and of all events that concern no service of the watch. More is a
protocol violation: the views stay, and the watch is opened again."""

_log = logging.getLogger("adsum.client.native.watching")


class EventBatcher:
    """Gathers events until the updates are complete. An incomplete update is never shown."""

    def __init__(self, services: Iterable[str], since: ViewPosition | None) -> None:
        """`services` are those that the watch is opened with, and `since` the position that it resumes from."""
        self.opened: wire.WatchOpened | None = None
        self._batches = {service: _ServiceBatch(service, since, is_joining=False) for service in services}
        self._other_bytes = 0
        """Bytes of events about no service of the watch, since the last `synced` event."""

    def join(self, service: str, since: ViewPosition | None) -> None:
        """Gathers the events of a service from its `joined` event on. `since`: the position that it resumes from."""
        self._batches[service] = _ServiceBatch(service, since, is_joining=True)

    def leave(self, service: str) -> None:
        """Ignores the events of a service from now on."""
        self._batches.pop(service, None)

    def add(self, event: SseEvent) -> list[tuple[str, ServiceUpdate]]:
        """Adds an event. Returns the updates that it completes, each with its service. Unknown events are ignored.

        Services whose `joined` event has not come are left out. Raises `ProtocolViolation`.
        """
        try:
            if event.name == "change":
                self._amend(wire.decode(event.data, wire.ServiceChange), len(event.data))
            elif event.name == "synced":
                return self._complete(wire.decode(event.data, wire.WatchSynced))
            elif event.name == "service":
                self._replace(wire.decode(event.data, wire.ServiceView), len(event.data))
            elif event.name == "joined":
                self._joined(wire.decode(event.data, wire.ServiceJoined))
            elif event.name == "open":
                self._open(wire.decode(event.data, wire.WatchOpened))
            else:
                self._count_other(len(event.data))
        except Invalid as error:
            raise ProtocolViolation(f"the `{event.name}` event can't be decoded: {error}") from None
        return []

    def _open(self, opened: wire.WatchOpened) -> None:
        self.opened = opened
        for batch in self._batches.values():
            batch.begin(full=opened.full)

    def _joined(self, joined: wire.ServiceJoined) -> None:
        batch = self._batches.get(joined.service)
        # The event may answer an earlier request, which named another position.
        if batch is not None and (joined.full or joined.since == batch.since):
            batch.is_joining = False
            batch.begin(full=joined.full)

    def _replace(self, view: wire.ServiceView, size: int) -> None:
        batch = self._find(view.service, size)
        if batch is not None:
            batch.begin(full=True, size=batch.size)
            batch.add(view.instances)

    def _amend(self, change: wire.ServiceChange, size: int) -> None:
        batch = self._find(change.service, size)
        if batch is not None:
            batch.add(change.changed)
            batch.remove(removed.id for removed in change.removed)

    def _find(self, service: str, size: int) -> _ServiceBatch | None:
        """Returns the batch of a service of which an event has come, None if there is none that takes it."""
        batch = self._batches.get(service)
        if batch is None or batch.is_joining:
            self._count_other(size)
            return None
        batch.size += size
        if batch.size > MAX_UPDATE_BYTES:
            raise ProtocolViolation(_too_long())
        return batch

    def _count_other(self, size: int) -> None:
        self._other_bytes += size
        if self._other_bytes > MAX_UPDATE_BYTES:
            raise ProtocolViolation(_too_long())

    def _complete(self, synced: wire.WatchSynced) -> list[tuple[str, ServiceUpdate]]:
        if self.opened is None:
            raise ProtocolViolation("the watch did not begin with an `open` event")
        self._other_bytes = 0
        position = ViewPosition(self.opened.epoch, synced.revision)
        return [
            (service, batch.complete(position, synced.age))
            for service, batch in self._batches.items()
            if not batch.is_joining
        ]


class _ServiceBatch:
    """The events of one service since the last `synced` event."""

    __slots__ = ("changed", "full", "is_joining", "removed", "service", "since", "size")

    def __init__(self, service: str, since: ViewPosition | None, *, is_joining: bool) -> None:
        self.service = service
        self.since = since.revision if since is not None else 0
        self.is_joining = is_joining
        """True until the `joined` event of the service comes."""
        self.begin(full=False)

    def begin(self, *, full: bool, size: int = 0) -> None:
        self.full = full
        self.size = size
        """Bytes of the events."""
        self.changed: dict[str, Endpoint] = {}
        self.removed: set[str] = set()

    def add(self, views: Iterable[wire.InstanceView]) -> None:
        for view in views:
            try:
                self.changed[view.id] = view.to_endpoint(self.service)
            except Invalid as error:
                # One invalid instance must not hide the others.
                _log.warning("the registry lists an invalid instance of %s, which is ignored: %s", self.service, error)
            self.removed.discard(view.id)

    def remove(self, ids: Iterable[str]) -> None:
        for id in ids:
            self.changed.pop(id, None)
            self.removed.add(id)

    def complete(self, position: ViewPosition, age: float) -> ServiceUpdate:
        update = ServiceUpdate(
            position=position,
            full=self.full,
            changed=self.changed,
            removed=frozenset(self.removed),
            since=self.since,
            age=age,
        )
        self.since = position.revision
        self.begin(full=False)
        return update


def _too_long() -> str:
    return f"more than {MAX_UPDATE_BYTES} bytes of changes came without a `synced` event"
