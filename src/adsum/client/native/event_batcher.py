"""From the events of one watch of one service to groups, which end at `synced`."""

from __future__ import annotations

import logging
from typing import Final

from adsum import wire
from adsum.client.errors import Garbled
from adsum.client.native.sse import MAX_EVENT, Event
from adsum.client.sources.source import Group, Position
from adsum.core.errors import Invalid
from adsum.core.model import Endpoint

MAX_GROUP: Final = MAX_EVENT
"""Bytes of the events of one group; a longer one is garbled. The view that there is stays, and the watch is opened
again."""

_log = logging.getLogger(__name__)


class Grouping:
    """Gathers events until a group is complete; half a group is never shown."""

    def __init__(self, service: str, since: Position | None) -> None:
        """`since` is what was asked for: what the first changes join on to."""
        self.service = service
        self.opened: wire.Opened | None = None
        self._since = since.revision if since is not None else 0
        self._size = 0
        """Bytes of the events since the last group was complete."""
        self._begin(whole=False)

    def take(self, event: Event) -> Group | None:
        """The group that `event` completes. Raises `Garbled`; unknown events are for later readers."""
        self._size += len(event.data)
        if self._size > MAX_GROUP:
            raise Garbled(f"{MAX_GROUP} bytes of changes came without the `synced` that ends them")
        try:
            if event.name == "open":
                self._open(wire.decode(event.data, wire.Opened))
            elif event.name == "service":
                self._replace(wire.decode(event.data, wire.ServiceView))
            elif event.name == "change":
                self._amend(wire.decode(event.data, wire.ServiceChange))
            elif event.name == "synced":
                return self._complete(wire.decode(event.data, wire.Synced))
        except Invalid as error:
            raise Garbled(f"the {event.name} event is wrong: {error}") from None
        return None

    def _begin(self, *, whole: bool) -> None:
        self._whole = whole
        self._changed: dict[str, Endpoint] = {}
        self._gone: set[str] = set()

    def _open(self, opened: wire.Opened) -> None:
        self.opened = opened
        self._begin(whole=opened.whole)

    def _replace(self, view: wire.ServiceView) -> None:
        if view.service == self.service:
            self._begin(whole=True)
            self._add(view.instances)

    def _amend(self, change: wire.ServiceChange) -> None:
        if change.service != self.service:
            return
        self._add(change.changed)
        for gone in change.gone:
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

    def _complete(self, synced: wire.Synced) -> Group:
        if self.opened is None:
            raise Garbled("the watch did not begin with an open event")
        group = Group(
            position=Position(self.opened.epoch, synced.revision),
            whole=self._whole,
            changed=self._changed,
            gone=frozenset(self._gone),
            since=self._since,
            age=synced.age,
        )
        self._since = synced.revision
        self._size = 0
        self._begin(whole=False)
        return group
