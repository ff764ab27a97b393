"""Watches, and the acknowledgements and good-byes of cooperating consumers."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection
from random import Random
from typing import Final

from adsum import wire
from adsum.consumers import Consumer
from adsum.core.errors import Invalid
from adsum.dialects.native.asgi import NO_STORE, ApiReply
from adsum.dialects.native.events.event_groups import EventGroups, WatchPosition
from adsum.dialects.native.events.heartbeat import HeartbeatTimer
from adsum.dialects.native.events.watch_events import WatchedServices, WatchEvents
from adsum.dialects.native.events.watch_stream import WatchStream
from adsum.dialects.native.problems import STOPPING, NotReady, UnknownWatch
from adsum.dialects.native.requests.api_request import ApiRequest
from adsum.dialects.native.requests.rights_watch import RightsWatch
from adsum.registry import Registry
from adsum.watches import Watch

CATCH_UP_TIMEOUT: Final = 3.0
"""Seconds in which a node must reach the revision that a client has from another node. After it the client is refused,
and tries another node."""
MAX_SERVICES_PER_WATCH: Final = 512
"""Services that one watch names. A client that needs more watches all services."""

_log = logging.getLogger("adsum.native")


class WatchOperations:
    """The operations about watches and consumers."""

    def __init__(self, registry: Registry, events: WatchEvents, rng: Random) -> None:
        self._registry = registry
        self._groups = EventGroups(registry, events, rng)
        self._cooperating: dict[str, tuple[Watch, str]] = {}
        """The watches of cooperating consumers, each with the name of the principal that opened it, by token."""
        self._heartbeats = HeartbeatTimer[WatchStream](registry.heartbeat, rng, self._send_heartbeats)

    async def watch(self, request: ApiRequest) -> WatchStream:
        """Opens a watch. Returns its stream, which must be sent.

        Raises `Invalid`, `MalformedRequest`, `NotReady` and `Overloaded`.
        """
        if self._groups.is_stopping:
            raise NotReady(STOPPING)
        names = request.query.get("service")
        if names is not None and len(names) > MAX_SERVICES_PER_WATCH:
            raise Invalid("service", f"may be given at most {MAX_SERVICES_PER_WATCH} times; leave it out to watch all")
        since = _resume_position(request)
        await self._catch_up(since)
        if since is not None and since.epoch != self._registry.snapshot.epoch:
            self._registry.watches.consumers.note_restart()
        services = frozenset(names) if names is not None else None
        watch = self._registry.watches.open(services, consumer=_consumer(request))
        token = secrets.token_hex(8)
        if watch.ack_records:
            self._cooperating[token] = watch, request.principal.name
        visible = request.principal.scopes.visible
        watched: WatchedServices = visible if services is None and not visible.is_all else services
        rights = RightsWatch(request.access, request.principal, watch.interrupt)
        return WatchStream(self._groups, self._heartbeats, watch, watched, rights, since, token, self._remove)

    async def _catch_up(self, since: WatchPosition | None) -> None:
        """Waits until this node has the revision that the client has from another node. Raises `NotReady`.

        A revision past the newest one of the registry does not exist. The stream then begins with the full state.
        """
        registry = self._registry
        has_epoch = since is not None and since.epoch == registry.snapshot.epoch
        if since is None or not has_epoch or since.revision <= registry.snapshot.revision or not registry.age():
            return
        has_caught_up = await registry.wait_for_revision(since.revision, CATCH_UP_TIMEOUT)
        if not has_caught_up and registry.age() > CATCH_UP_TIMEOUT:
            raise NotReady(f"this node has not received revision {since.revision} yet")

    async def acknowledge(self, request: ApiRequest) -> ApiReply:
        body = await request.body(wire.AcknowledgementBody)
        watch, opener = self._cooperating.get(request.path["watch"], (None, ""))
        if watch is None or opener != request.principal.name:
            raise UnknownWatch("no cooperating watch has this token, or the watch has ended")
        if body.revision > self._registry.snapshot.revision:
            raise Invalid("revision", "must be a revision that the watch has sent")
        watch.acknowledge(body.revision)
        return ApiReply(204, headers=(NO_STORE,))

    async def say_goodbye(self, request: ApiRequest) -> ApiReply:
        names = request.query.get("service")
        services = frozenset(names) if names is not None else None
        self._registry.watches.consumers.say_goodbye(request.path["consumer"], services)
        return ApiReply(204, headers=(NO_STORE,))

    def _remove(self, token: str) -> None:
        self._cooperating.pop(token, None)

    def _send_heartbeats(self, streams: Collection[WatchStream]) -> None:
        """Sends a heartbeat over each stream. Streams that can write at once share its bytes."""
        if streams and not self._groups.is_stopping:
            snapshot, heartbeat = self._registry.snapshot, self._groups.heartbeat()
            position = WatchPosition(snapshot.epoch, snapshot.revision)
            for stream in streams:
                try:
                    stream.send_heartbeat(snapshot, position, heartbeat)
                except Exception:
                    _log.exception("a heartbeat could not be sent over a watch")


def _resume_position(request: ApiRequest) -> WatchPosition | None:
    last_event_id = request.header(b"last-event-id")
    if last_event_id:
        return WatchPosition.parse("Last-Event-ID", last_event_id)
    since = request.query.get("since")
    return WatchPosition.parse("since", since) if since is not None else None


def _consumer(request: ApiRequest) -> Consumer | None:
    """Returns the cooperating consumer of a watch, None if it has none.

    A connection without the id of a consumer counts as a consumer of its own.
    """
    if not request.query.get("acks", False):
        return None
    id = request.query.get("consumer") or secrets.token_hex(16)
    visible = request.principal.scopes.visible
    return Consumer(
        id,
        request.query.get("name", ""),
        request.peer,
        acks_immediately=True,
        visible=visible,
        principal=request.principal.owner,
    )
