"""From the events of one watch of one service to groups, which end at `synced`."""

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
"""Bytes of the events of one group; a longer one is garbled. The view that there is stays, and the watch is opened
again."""

_log = logging.getLogger(__name__)


class EventBatcher:
    """Gathers events until a group is complete; half a group is never shown."""

    def __init__(self, service: str, since: ViewPosition | None) -> None:
        """`since` is what was asked for: what the first changes join on to."""
        self.service = service
        self.opened: wire.WatchOpened | None = None
        self._since = since.revision if since is not None else 0
        self._size = 0
        """Bytes of the events since the last group was complete."""
        self._begin(whole=False)

    def add(self, event: SseEvent) -> ServiceUpdate | None:
        """The group that `event` completes. Raises `ProtocolViolation`; unknown events are for later readers."""
        self._size += len(event.data)
        if self._size > MAX_UPDATE_BYTES:
            raise ProtocolViolation(f"{MAX_UPDATE_BYTES} bytes of changes came without the `synced` that ends them")
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
            raise ProtocolViolation(f"the {event.name} event is wrong: {error}") from None
        return None

    def _begin(self, *, whole: bool) -> None:
        self._whole = whole
        self._changed: dict[str, Endpoint] = {}
        self._gone: set[str] = set()

    def _open(self, opened: wire.WatchOpened) -> None:
        self.opened = opened
        self._begin(whole=opened.full)

    def _replace(self, view: wire.ServiceView) -> None:
        if view.service == self.service:
            self._begin(whole=True)
            self._add(view.instances)

    def _amend(self, change: wire.ServiceChange) -> None:
        if change.service != self.service:
            return
        self._add(change.changed)
        for gone in change.removed:
            self._changed.pop(gone.id, None)
            self._gone.add(gone.id)

    def _add(self, views: list[wire.InstanceView]) -> None:
        for view in views:
            try:
                self._changed[view.id] = view.to_endpoint(self.service)
            except Invalid as error:
                # One instance that we can't understand must not hide the others.
                _log.warning("the registry lists an instance of %s that is none: %s", self.service, error)
            self._gone.discard(view.id)

    def _complete(self, synced: wire.WatchSynced) -> ServiceUpdate:
        if self.opened is None:
            raise ProtocolViolation("the watch did not begin with an open event")
        group = ServiceUpdate(
            position=ViewPosition(self.opened.epoch, synced.revision),
            full=self._whole,
            changed=self._changed,
            removed=frozenset(self._gone),
            since=self._since,
            age=synced.age,
        )
        self._since = synced.revision
        self._size = 0
        self._begin(whole=False)
        return group
