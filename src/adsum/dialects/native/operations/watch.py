"""The watch: one endless answer of Server-Sent Events.

open, service…, synced     the full state (`whole`), or
open, change…, synced      what changed since the position that the caller resumes from; then, for ever,
change…, synced            whenever something changed, in one write
synced                     when nothing did for a while
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Collection
from random import Random
from typing import Final, NamedTuple

from adsum import wire
from adsum.consumers import Consumer
from adsum.core.backoff import jittered
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.errors import Invalid
from adsum.dialects.native.asgi import NO_STORE, ApiReply, Receive, Scope, Send
from adsum.dialects.native.events.heartbeat import HeartbeatTimer
from adsum.dialects.native.events.watch_events import (
    WatchedServices,
    WatchEvents,
    can_resume,
    changed_services,
    encode_event,
    synced_event,
)
from adsum.dialects.native.problems import STOPPING, MalformedRequest, NotReady, UnknownWatch
from adsum.dialects.native.requests.api_request import ApiRequest
from adsum.dialects.native.requests.disconnect_watch import DisconnectWatch
from adsum.ports import ABORT_IF_SILENT, SEND_CHUNK, AbortIfSilent, SendChunk
from adsum.registry import Registry
from adsum.watches import Watch

RETRY_SECONDS: Final = 2.0
"""Seconds, give or take half, after which a client that lost its watch is asked to come back."""
MAX_WRITE_BYTES: Final = 64 * 1024
"""Bytes of one write; what is longer is said in several, each when the reader has taken most of those before."""
CATCH_UP_TIMEOUT: Final = 3.0
"""Seconds that a node has to hear of what the caller saw at another one; then the caller is sent on."""
MAX_WATCHED_SERVICES: Final = 512
"""How many services one watch names; one that wants more watches all."""

_log = logging.getLogger("adsum.native")

_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    NO_STORE,
    (b"x-accel-buffering", b"no"),
)
_START: Final = {"type": "http.response.start", "status": 200, "headers": _HEADERS}
_END: Final = {"type": "http.response.body", "body": b": the registry is stopping\n\n"}


class WatchPosition(NamedTuple):
    """How far a watch has been shown an epoch."""

    epoch: str
    revision: int

    @staticmethod
    def parse(field: str, text: str) -> WatchPosition:
        """From EPOCH:REVISION. Raises `MalformedRequest`."""
        epoch, _, revision = text.rpartition(":")
        if not epoch or not revision.isascii() or not revision.isdigit() or len(revision) > 19:
            raise MalformedRequest(field, "must be EPOCH:REVISION, as the id of a synced event says it")
        return WatchPosition(epoch, int(revision))


class WatchOperations:
    """The operations of watches."""

    def __init__(self, registry: Registry, events: WatchEvents, rng: Random) -> None:
        self._registry = registry
        self._events = events
        self._rng = rng
        self._cooperating: dict[str, Watch] = {}
        self.heartbeats = HeartbeatTimer[WatchStream](registry.heartbeat, rng, self._beat)

    async def watch(self, asked: ApiRequest) -> WatchStream:
        """A stream to be spoken at once. Raises `Invalid`, `MalformedRequest`, `NotReady` and `Overloaded`."""
        if self.ended:
            raise NotReady(STOPPING)
        names = asked.query.get("service")
        if names is not None and len(names) > MAX_WATCHED_SERVICES:
            raise Invalid("service", f"must be at most {MAX_WATCHED_SERVICES}; leave it out to watch all")
        position = _resumed_from(asked)
        await self._catch_up(position)
        if position is not None and position.epoch != self._registry.snapshot.epoch:
            self._registry.watches.consumers.note_restart()
        services = frozenset(names) if names is not None else None
        watch = self._registry.watches.open(services, consumer=_consumer(asked))
        return WatchStream(self, watch, position)

    async def _catch_up(self, position: WatchPosition | None) -> None:
        """Who comes from a node that knew more must not be shown less. Raises `NotReady`.

        A revision that we have not heard of although we know the newest is none; there, too, the whole is shown.
        """
        registry = self._registry
        ahead = position is not None and position.epoch == registry.snapshot.epoch
        if position is None or not ahead or position.revision <= registry.snapshot.revision or not registry.age():
            return
        if (
            not await registry.wait_for_revision(position.revision, CATCH_UP_TIMEOUT)
            and registry.age() > CATCH_UP_TIMEOUT
        ):
            raise NotReady(f"this node has not heard of revision {position.revision} yet")

    async def acknowledge(self, asked: ApiRequest) -> ApiReply:
        """A cooperating consumer says what it routes by."""
        body = await asked.body(wire.AcknowledgementBody)
        watch = self._cooperating.get(asked.path["watch"])
        if watch is None:
            raise UnknownWatch("no cooperating watch has this token, or it has ended")
        if body.revision > self._registry.snapshot.revision:
            raise Invalid("revision", "must be one that was shown")
        watch.acknowledge(body.revision)
        return ApiReply(204, headers=(NO_STORE,))

    async def say_goodbye(self, asked: ApiRequest) -> ApiReply:
        """A consumer ends: nobody waits for it any more."""
        names = asked.query.get("service")
        services = frozenset(names) if names is not None else None
        self._registry.watches.consumers.say_goodbye(asked.path["consumer"], services)
        return ApiReply(204, headers=(NO_STORE,))

    def add_stream(self, watch: Watch) -> str:
        """The token under which its consumer speaks of it."""
        token = secrets.token_hex(8)
        if watch.ack_records:
            self._cooperating[token] = watch
        return token

    def remove_stream(self, token: str) -> None:
        self._cooperating.pop(token, None)

    def opening_group(
        self, services: WatchedServices, since: WatchPosition | None, token: str
    ) -> tuple[WatchPosition, bytes, bytes]:
        """The first group of a watch, or of a new history: where it leads to, `open`, and the rest."""
        snapshot, age = self._registry.snapshot, self._age()
        if since is not None and since.epoch == snapshot.epoch and can_resume(snapshot, services, since.revision):
            whole = False
            group = self._events.changes_since(snapshot, services, since.revision, age) or synced_event(snapshot, age)
        else:
            whole = True
            group = self._events.full_state(snapshot, services, age)
        opened = wire.WatchOpened(snapshot.epoch, snapshot.revision, whole, token, age, self._registry.heartbeat)
        return WatchPosition(snapshot.epoch, snapshot.revision), encode_event("open", wire.encode(opened)), group

    def next_group(
        self, services: WatchedServices, shown: WatchPosition, token: str
    ) -> tuple[WatchPosition, bytes, bytes]:
        """The group that follows what was shown, as `opening_group` says it; empty if nothing changed."""
        snapshot = self._registry.snapshot
        if snapshot.epoch != shown.epoch or (services is None and shown.revision < snapshot.default_revision):
            return self.opening_group(services, None, token)
        group = self._events.changes_since(snapshot, services, shown.revision, self._age())
        return WatchPosition(snapshot.epoch, snapshot.revision), b"", group

    def heartbeat(self) -> bytes:
        """All is as it was shown."""
        return synced_event(self._registry.snapshot, self._age())

    def _beat(self, streams: Collection[WatchStream]) -> None:
        """Have these streams say that all is as it was shown: those that can at once, in the same bytes."""
        if streams and not self.ended:
            snapshot, heartbeat = self._registry.snapshot, self.heartbeat()
            shown = WatchPosition(snapshot.epoch, snapshot.revision)
            for stream in streams:
                try:
                    stream.send_heartbeat(snapshot, shown, heartbeat)
                except Exception:
                    _log.exception("a watch could not be sent its heartbeat")

    def _age(self) -> float:
        """To the tenth of a second, so that those who are shown the same share it."""
        return round(self._registry.age(), 1)

    @property
    def lost_after(self) -> float:
        """Seconds without a word after which a consumer is lost."""
        return self._registry.watches.consumers.lost_after

    @property
    def ended(self) -> bool:
        return self._registry.watches.is_ended

    def retry_field(self) -> bytes:
        """How long a client shall wait before it comes back, each another while."""
        return b"retry: %d\n\n" % (jittered(RETRY_SECONDS, self._rng, share=0.5) * 1000)


class WatchStream:
    """One watch's answer."""

    __slots__ = ("_more", "_shown", "_since", "_token", "_watch", "_watching", "status")

    def __init__(self, watching: WatchOperations, watch: Watch, since: WatchPosition | None) -> None:
        self._watching = watching
        self._watch = watch
        self._since = since
        self._token = watching.add_stream(watch)
        self.status = 200

    async def respond(self, scope: Scope, receive: Receive, send: Send, /) -> None:
        """Until the caller hangs up or the registry stops."""
        watching, watch = self._watching, self._watch
        state = scope.get("state", {})
        end_if_silent: AbortIfSilent = state.get(ABORT_IF_SILENT, _never_says)
        was_silent = end_if_silent(watching.lost_after)
        try:
            with watch, DisconnectWatch(receive, watch.interrupt) as peer, watching.heartbeats.scheduled(self):
                try:
                    await send(_START)
                    await self._open(send)
                    self._show_at_once_by(state.get(SEND_CHUNK))
                    while not peer.disconnected:
                        changed = await watch.changed()
                        if watching.ended:
                            await send(_END)
                            return
                        await self._follow(send, changed)
                finally:
                    watch.is_peer_lost = was_silent()
        finally:
            watch.push = None
            watching.remove_stream(self._token)

    # What was said is let go of when these return: a quiet watch holds no bytes.

    async def _open(self, send: Send) -> None:
        self._shown, opened, group = self._watching.opening_group(self._watch.services, self._since, self._token)
        await _say(send, self._watching.retry_field() + opened)
        await _say(send, group)

    async def _follow(self, send: Send, changed: bool) -> None:
        self._shown, opened, group = self._watching.next_group(self._watch.services, self._shown, self._token)
        if opened:
            await _say(send, opened)
        if group or not changed:
            await _say(send, group or self._watching.heartbeat())

    def _show_at_once_by(self, more: SendChunk | None) -> None:
        """Have changes written as soon as they are there, while the caller takes them: waking a task costs as much."""
        if more is not None:
            self._more = more
            self._watch.push = self._show

    def _show(self) -> bool:
        if self._watching.ended:
            return False
        shown, opened, group = self._watching.next_group(self._watch.services, self._shown, self._token)
        if opened or len(group) > MAX_WRITE_BYTES or (group and not self._more(group)):
            return False
        self._shown = shown
        return True

    def send_heartbeat(self, snapshot: Snapshot, shown: WatchPosition, heartbeat: bytes) -> None:
        """Say `heartbeat` if all is as it was shown, at once, while the caller takes it."""
        if (self._shown == shown or self._is_current(snapshot)) and self._watch.can_push() and self._more(heartbeat):
            self._shown = shown
        else:
            self._watch.interrupt()

    def _is_current(self, snapshot: Snapshot) -> bool:
        """Whether nothing that it is about has changed since it was shown something."""
        shown = self._shown
        return shown.epoch == snapshot.epoch and not any(
            changed_services(snapshot, self._watch.services, shown.revision)
        )


async def _say(send: Send, text: bytes) -> None:
    """In one write, or in several if it is long: a slow reader holds up no more than one of them."""
    for start in range(0, len(text), MAX_WRITE_BYTES):
        part = text if len(text) <= MAX_WRITE_BYTES else text[start : start + MAX_WRITE_BYTES]
        await send({"type": "http.response.body", "body": part, "more_body": True})


def _resumed_from(asked: ApiRequest) -> WatchPosition | None:
    last = asked.header(b"last-event-id")
    if last:
        return WatchPosition.parse("Last-Event-ID", last)
    since = asked.query.get("since")
    return WatchPosition.parse("since", since) if since is not None else None


def _consumer(asked: ApiRequest) -> Consumer | None:
    """Who promises to acknowledge; without an id of its own, the connection is a consumer of its own."""
    if not asked.query.get("acks", False):
        return None
    id = asked.query.get("consumer") or secrets.token_hex(16)
    return Consumer(id, asked.query.get("name", ""), asked.peer, acks_immediately=True)


def _never_says(_: float) -> Callable[[], bool]:
    """The `AbortIfSilent` of a server that has none."""
    return lambda: False
