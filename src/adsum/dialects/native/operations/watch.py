"""Watches, and the acknowledgements and good-byes of cooperating consumers."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection
from dataclasses import replace
from random import Random
from typing import Final

from adsum import wire
from adsum.consumers import Consumer
from adsum.core.access.actions import Action
from adsum.core.access.principal import Principal
from adsum.core.errors import Invalid
from adsum.dialects.native.asgi import NO_STORE, ApiReply
from adsum.dialects.native.events.event_groups import EventGroups, WatchPosition
from adsum.dialects.native.events.heartbeat import HeartbeatTimer
from adsum.dialects.native.events.watch_events import WatchedServices, WatchEvents, share_services
from adsum.dialects.native.events.watch_stream import WatchStream
from adsum.dialects.native.problems import STOPPING, NotReady, UnknownWatch
from adsum.dialects.native.requests.api_request import ApiRequest
from adsum.dialects.native.requests.rights_watch import RightsWatch
from adsum.registry import Registry

CATCH_UP_TIMEOUT: Final = 3.0
"""Seconds in which a node must reach the revision that a client has from another node. After it the client is refused,
and tries another node."""

NO_SUCH_WATCH: Final = (
    "no watch of this caller has this token at this node: it has ended, or another node serves it; open a watch here, "
    "or send the request to the node of the watch"
)

_log = logging.getLogger("adsum.native")


class WatchOperations:
    """The operations about watches and consumers."""

    def __init__(self, registry: Registry, events: WatchEvents, rng: Random) -> None:
        self._registry = registry
        self._groups = EventGroups(registry, events, rng)
        self._streams: dict[str, WatchStream] = {}
        """The open watches, by token."""
        self._heartbeats = HeartbeatTimer[WatchStream](registry.heartbeat, rng, self._send_heartbeats)

    async def watch(self, request: ApiRequest) -> WatchStream:
        """Opens a watch. Returns its stream, which must be sent.

        Raises `Invalid`, `MalformedRequest`, `NotReady` and `Overloaded`.
        """
        if self._groups.is_stopping:
            raise NotReady(STOPPING)
        names = request.query.get("service")
        if names is not None and len(names) > wire.MAX_SERVICES_PER_WATCH:
            raise Invalid(
                "service", f"may be given at most {wire.MAX_SERVICES_PER_WATCH} times; leave it out to watch all"
            )
        since = _resume_position(request)
        await self._catch_up(since)
        if since is not None and since.epoch != self._registry.snapshot.epoch:
            self._registry.watches.consumers.note_restart()
        services = share_services(frozenset(names)) if names is not None else None
        consumer = _consumer(request)
        watch = self._registry.watches.open(services, consumer=consumer)
        token = secrets.token_hex(8)
        visible = request.principal.scopes.visible
        watched: WatchedServices = visible if services is None and not visible.is_all else services
        rights = RightsWatch(request.access, request.principal, watch.interrupt)
        stream = WatchStream(
            self._groups, self._heartbeats, watch, watched, rights, since, token, consumer, self._remove
        )
        self._streams[token] = stream
        return stream

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
        self.record_acknowledgement(
            request.path["watch"], await request.body(wire.AcknowledgementBody), request.principal
        )
        return ApiReply(204, headers=(NO_STORE,))

    def record_acknowledgement(self, token: str, body: wire.AcknowledgementBody, principal: Principal) -> None:
        """Records that the consumer of a watch routes by a revision. Raises `UnknownWatch` and `Invalid`."""
        stream = self._find(token, principal)
        if stream is None or stream.consumer is None:
            raise UnknownWatch("no cooperating watch has this token, or the watch has ended")
        if body.revision > self._registry.snapshot.revision:
            raise Invalid("revision", "must be a revision that the watch has sent")
        stream.watch.acknowledge(body.revision, body.services)

    async def update_watch(self, request: ApiRequest) -> ApiReply:
        """Lets services join and leave a watch. Their events follow over its stream, whatever the response.

        Raises `Invalid`, `UnknownWatch`, `NotReady`, `Overloaded`, and what the gate raises for the services that join.
        """
        body = await request.body(wire.WatchServicesBody)
        joining = {joined.service: _join_position(number, joined) for number, joined in enumerate(body.join)}
        if len(joining) < len(body.join):
            raise Invalid("join", "must name each service only once")
        request.require(Action.WATCH, joining)
        positions = [position for position in joining.values() if position is not None]
        for position in sorted(positions, key=lambda position: position.revision, reverse=True):
            await self._catch_up(position)  # It waits for the latest one at most.
        stream = self._find(request.path["watch"], request.principal)
        if stream is None:
            raise UnknownWatch(NO_SUCH_WATCH)
        watch = stream.watch
        if watch.services is None:
            raise Invalid("join", "a watch of all services has no service that could join or leave")
        # Who reads the stream is who opened it.
        request.access.require(stream.principal, Action.WATCH, joining)
        if len(watch.services.difference(body.leave).union(joining)) > wire.MAX_SERVICES_PER_WATCH:
            raise Invalid("join", f"a watch has at most {wire.MAX_SERVICES_PER_WATCH} services; open another watch")
        consumers = {
            joined.service: _joined_consumer(number, joined, stream) for number, joined in enumerate(body.join)
        }
        watch.update(consumers, body.leave)
        if any(position.epoch != self._registry.snapshot.epoch for position in positions):
            self._registry.watches.consumers.note_restart()
        stream.update(joining, body.leave)
        return ApiReply(204, headers=(NO_STORE,))

    def _find(self, token: str, principal: Principal) -> WatchStream | None:
        """Returns the watch with this token, if the principal has opened it."""
        stream = self._streams.get(token)
        return stream if stream is not None and stream.principal.name == principal.name else None

    async def say_goodbye(self, request: ApiRequest) -> ApiReply:
        names = request.query.get("service")
        services = frozenset(names) if names is not None else None
        self._registry.watches.consumers.say_goodbye(request.path["consumer"], services)
        return ApiReply(204, headers=(NO_STORE,))

    def _remove(self, token: str) -> None:
        self._streams.pop(token, None)

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


def _join_position(number: int, joined: wire.JoiningService) -> WatchPosition | None:
    return WatchPosition.parse(f"join[{number}].since", joined.since) if joined.since is not None else None


def _joined_consumer(number: int, joined: wire.JoiningService, stream: WatchStream) -> Consumer | None:
    """Returns the consumer of a service that joins, None if the watch has none."""
    of_watch = stream.consumer
    if joined.consumer is None:
        return of_watch
    if of_watch is None:
        raise Invalid(f"join[{number}].consumer", "must not be given, since the watch was opened without acks=true")
    return replace(of_watch, id=joined.consumer)


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
