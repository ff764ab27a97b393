"""The groups of events that a watch sends: the first group, and the groups that follow."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Final, NamedTuple

from adsum import wire
from adsum.core.backoff import jittered
from adsum.core.catalog.snapshots import Snapshot
from adsum.dialects.native.events.watch_events import (
    WatchedServices,
    WatchEvents,
    can_resume,
    can_resume_some,
    encode_event,
    joined_event,
    synced_event,
)
from adsum.dialects.native.problems import MalformedRequest
from adsum.registry import Registry

RETRY_SECONDS: Final = 2.0
"""Seconds after which a client that lost its watch reconnects. The value that is sent differs by up to half."""


class WatchPosition(NamedTuple):
    """The revision, in one epoch, up to which a watch has sent every change."""

    epoch: str
    revision: int

    @staticmethod
    def parse(field: str, text: str) -> WatchPosition:
        """Returns the position in EPOCH:REVISION. Raises `MalformedRequest`."""
        epoch, _, revision = text.rpartition(":")
        if not epoch or not revision.isascii() or not revision.isdigit() or len(revision) > 19:
            raise MalformedRequest(field, "must be EPOCH:REVISION, the id of a synced event")
        return WatchPosition(epoch, int(revision))


NO_POSITION: Final = WatchPosition("", 0)
"""The position of a watch that has sent nothing."""


class _LatestGroup(NamedTuple):
    """The group that was made last, and what it was made from. Thousands of watches get it one after the other."""

    services: WatchedServices
    position: WatchPosition
    age: float
    next_position: WatchPosition
    group: bytes


class EventGroups:
    """Makes the groups of watches from the current snapshot of the registry."""

    def __init__(self, registry: Registry, events: WatchEvents, rng: Random) -> None:
        self._registry = registry
        self._events = events
        self._rng = rng
        self._latest = _LatestGroup(None, NO_POSITION, 0.0, NO_POSITION, b"")

    def first_group(
        self, services: WatchedServices, since: WatchPosition | None, token: str
    ) -> tuple[WatchPosition, bytes, bytes]:
        """Returns the first group of a watch or of a new epoch: the position after it, the `open` event, the rest.

        The group has the full state, unless the watch can resume at `since`. If some of its named services can, the
        others come in full after their changes.
        """
        snapshot, age = self._registry.snapshot, self._age()
        if since is not None and since.epoch == snapshot.epoch and can_resume_some(snapshot, services, since.revision):
            is_full = False
            group = self._events.changes_since(snapshot, services, since.revision, age) or synced_event(snapshot, age)
        else:
            is_full = True
            group = self._events.full_state(snapshot, services, age)
        opened = wire.WatchOpened(
            snapshot.epoch,
            snapshot.revision,
            is_full,
            token,
            age,
            self._registry.heartbeat,
            joins=isinstance(services, frozenset),
        )
        return WatchPosition(snapshot.epoch, snapshot.revision), encode_event("open", wire.encode(opened)), group

    def next_group(
        self, services: WatchedServices, position: WatchPosition, token: str
    ) -> tuple[WatchPosition, bytes, bytes]:
        """Returns the group that follows a position, as `first_group` does. The group is empty if nothing changed."""
        snapshot, age, latest = self._registry.snapshot, self._age(), self._latest
        if (
            latest.services is services
            and latest.position == position
            and latest.age == age
            and latest.next_position == (snapshot.epoch, snapshot.revision)
        ):
            return latest.next_position, b"", latest.group
        if snapshot.epoch != position.epoch or (
            not isinstance(services, frozenset) and position.revision < snapshot.default_revision
        ):
            return self.first_group(services, None, token)
        group = self._events.changes_since(snapshot, services, position.revision, age)
        next_position = WatchPosition(snapshot.epoch, snapshot.revision)
        self._latest = _LatestGroup(services, position, age, next_position, group)
        return next_position, b"", group

    def joined_group(
        self,
        services: frozenset[str],
        position: WatchPosition,
        token: str,
        joining: Mapping[str, WatchPosition | None],
    ) -> tuple[WatchPosition, bytes, bytes]:
        """Returns the group that follows a position, as `next_group` does, and in which other services join.

        Each is sent from the position that the client has, or in full. In a new epoch all services are sent in full.
        """
        snapshot, age = self._registry.snapshot, self._age()
        if snapshot.epoch != position.epoch:
            position, opened, group = self.first_group(services.union(joining), None, token)
            return position, opened + b"".join(joined_event(name, None) for name in sorted(joining)), group
        since = {name: _resume_revision(snapshot, name, wanted) for name, wanted in joining.items()}
        group = self._events.joined_group(snapshot, services, position.revision, since, age)
        return WatchPosition(snapshot.epoch, snapshot.revision), b"", group

    def heartbeat(self) -> bytes:
        """Returns the `synced` event that a quiet watch sends."""
        return synced_event(self._registry.snapshot, self._age())

    def retry_field(self) -> bytes:
        """Returns the `retry` field: the time until the client reconnects, random so that clients come one by one."""
        return b"retry: %d\n\n" % (jittered(RETRY_SECONDS, self._rng, share=0.5) * 1000)

    @property
    def lost_after(self) -> float:
        """Seconds of silence after which a consumer is lost."""
        return self._registry.watches.consumers.lost_after

    @property
    def is_stopping(self) -> bool:
        """Returns whether the registry stops, so that every watch ends."""
        return self._registry.watches.is_ended

    def _age(self) -> float:
        """Returns the age of the state in seconds, rounded to a tenth: watches with the same age share their bytes."""
        return round(self._registry.age(), 1)


def _resume_revision(snapshot: Snapshot, service: str, position: WatchPosition | None) -> int | None:
    """Returns the revision from which a service can be resumed at the position; None: it must be sent in full."""
    if position is None or position.epoch != snapshot.epoch:
        return None
    return position.revision if can_resume(snapshot, frozenset((service,)), position.revision) else None
