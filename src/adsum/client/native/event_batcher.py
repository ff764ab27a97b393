"""Gathers the events of one watch of a service into updates; each update ends with a `synced` event."""

from __future__ import annotations

import logging
from typing import Final

from adsum import wire
from adsum.client.errors import ProtocolViolation
from adsum.client.native.sse import MAX_EVENT_BYTES, SseEvent
from adsum.client.sources.source import ServiceUpdate, ViewPosition
from adsum.core.errors import Invalid
from adsum.core.model import Endpoint

MAX_UPDATE_BYTES: Final = MAX_EVENT_BYTES
"""Bytes of the events of one update. More is a protocol violation: the view stays, and the watch is opened again."""

_log = logging.getLogger(__name__)


class EventBatcher:
    """Gathers events until an update is complete. An incomplete update is never shown."""

    def __init__(self, service: str, since: ViewPosition | None) -> None:
        """`since` is the position that the watch resumes from; the first changes follow it."""
        self.service = service
        self.opened: wire.WatchOpened | None = None
        self._since = since.revision if since is not None else 0
        self._size = 0
        """Bytes of the events since the last update was complete."""
        self._begin(full=False)

    def add(self, event: SseEvent) -> ServiceUpdate | None:
        """Adds an event. Returns the update that it completes, else None. Unknown events are ignored.

        Raises `ProtocolViolation`.
        """
        self._size += len(event.data)
        if self._size > MAX_UPDATE_BYTES:
            raise ProtocolViolation(f"more than {MAX_UPDATE_BYTES} bytes of changes came without a `synced` event")
        try:
            if event.name == "open":
                self._open(wire.decode(event.data, wire.WatchOpened))
            elif event.name == "service":
                self._replace(wire.decode(event.data, wire.ServiceView))
            elif event.name == "change":
                self._amend(wire.decode(event.data, wire.ServiceChange))
            elif event.name == "synced":
                return self._complete(wire.decode(event.data, wire.WatchSynced))
        except Invalid as error:
            raise ProtocolViolation(f"the `{event.name}` event can't be decoded: {error}") from None
        return None

    def _begin(self, *, full: bool) -> None:
        self._full = full
        self._changed: dict[str, Endpoint] = {}
        self._removed: set[str] = set()

    def _open(self, opened: wire.WatchOpened) -> None:
        self.opened = opened
        self._begin(full=opened.full)

    def _replace(self, view: wire.ServiceView) -> None:
        if view.service == self.service:
            self._begin(full=True)
            self._add(view.instances)

    def _amend(self, change: wire.ServiceChange) -> None:
        if change.service != self.service:
            return
        self._add(change.changed)
        for removed in change.removed:
            self._changed.pop(removed.id, None)
            self._removed.add(removed.id)

    def _add(self, views: list[wire.InstanceView]) -> None:
        for view in views:
            try:
                self._changed[view.id] = view.to_endpoint(self.service)
            except Invalid as error:
                # One invalid instance must not hide the others.
                _log.warning("the registry lists an invalid instance of %s, which is ignored: %s", self.service, error)
            self._removed.discard(view.id)

    def _complete(self, synced: wire.WatchSynced) -> ServiceUpdate:
        if self.opened is None:
            raise ProtocolViolation("the watch did not begin with an `open` event")
        update = ServiceUpdate(
            position=ViewPosition(self.opened.epoch, synced.revision),
            full=self._full,
            changed=self._changed,
            removed=frozenset(self._removed),
            since=self._since,
            age=synced.age,
        )
        self._since = synced.revision
        self._size = 0
        self._begin(full=False)
        return update
