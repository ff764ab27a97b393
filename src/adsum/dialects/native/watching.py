"""The watch: one endless answer of Server-Sent Events.

open, service…, synced     the full state (`whole`), or
open, change…, synced      what changed since the position that the caller resumes from; then, for ever,
change…, synced            whenever something changed, in one write
synced                     when nothing did for a while
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from random import Random
from typing import Final

from adsum import wire
from adsum.core.backoff import jittered
from adsum.core.errors import Invalid
from adsum.dialects.native.asgi import NO_STORE, Receive, Reply, Send
from adsum.dialects.native.asked import Asked
from adsum.dialects.native.departure import Departure
from adsum.dialects.native.events import Events, Services, event, resumable, touched
from adsum.dialects.native.problems import Malformed, UnknownWatch
from adsum.registry import Registry
from adsum.watches import Watch

HEARTBEAT: Final = 15.0
"""Seconds of quiet, give or take a tenth, after which a watch is told that it is still up to date."""
RETRY: Final = 2.0
"""Seconds, give or take half, after which a client that lost its watch is asked to come back."""
MAX_SERVICES: Final = 512
"""How many services one watch names; one that wants more watches all."""

_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    NO_STORE,
    (b"x-accel-buffering", b"no"),
)
_START: Final = {"type": "http.response.start", "status": 200, "headers": _HEADERS}
_END: Final = {"type": "http.response.body", "body": b": the registry is stopping\n\n"}


@dataclass(frozen=True, slots=True)
class Position:
    """How far a watch has been shown an epoch."""

    epoch: str
    revision: int

    @staticmethod
    def parse(field: str, text: str) -> Position:
        """From EPOCH:REVISION. Raises `Malformed`."""
        epoch, _, revision = text.rpartition(":")
        if not epoch or not revision.isascii() or not revision.isdigit() or len(revision) > 19:
            raise Malformed(field, "must be EPOCH:REVISION, as the id of a synced event says it")
        return Position(epoch, int(revision))


class Watching:
    """The operations of watches."""

    def __init__(self, registry: Registry, events: Events, rng: Random) -> None:
        self._registry = registry
        self._events = events
        self._rng = rng
        self._cooperating: dict[str, Watch] = {}

    async def watch(self, asked: Asked) -> Stream:
        """A stream to be spoken at once. Raises `Invalid`, `Malformed` and `Overloaded`."""
        names = asked.query.get("service")
        if names is not None and len(names) > MAX_SERVICES:
            raise Invalid("service", f"must be at most {MAX_SERVICES}; leave it out to watch all")
        position = _resumed_from(asked)
        services = frozenset(names) if names is not None else None
        watch = self._registry.watches.open(services, cooperates=asked.query.get("acks", False))
        return Stream(self, watch, position)

    async def applied(self, asked: Asked) -> Reply:
        """A cooperating consumer says what it routes by."""
        body = await asked.body(wire.AppliedBody)
        watch = self._cooperating.get(asked.path["watch"])
        if watch is None:
            raise UnknownWatch("no cooperating watch has this token, or it has ended")
        if body.revision > self._registry.snapshot.revision:
            raise Invalid("revision", "must be one that was shown")
        watch.acknowledge(body.revision)
        return Reply(204, headers=(NO_STORE,))

    def introduce(self, watch: Watch) -> str:
        """The token under which its consumer speaks of it."""
        token = secrets.token_hex(8)
        if watch.cooperates:
            self._cooperating[token] = watch
        return token

    def dismiss(self, token: str) -> None:
        self._cooperating.pop(token, None)

    def opening(self, services: Services, since: Position | None, token: str) -> tuple[Position, list[bytes]]:
        """The first group of a watch, or of a new epoch, and the position that it leads to."""
        snapshot, age = self._registry.snapshot, self._registry.age()
        resumes = since is not None and since.epoch == snapshot.epoch and resumable(snapshot, services, since.revision)
        opened = wire.Opened(snapshot.epoch, snapshot.revision, not resumes, token, age)
        group = (
            self._events.since(snapshot, services, since.revision, age)
            if resumes and since is not None
            else self._events.whole(snapshot, services, age)
        )
        return Position(snapshot.epoch, snapshot.revision), [event("open", wire.encode(opened)), group]

    def following(self, services: Services, shown: Position, token: str) -> tuple[Position, list[bytes]]:
        """The group that follows what was shown."""
        snapshot = self._registry.snapshot
        if snapshot.epoch != shown.epoch or not resumable(snapshot, services, shown.revision):
            return self.opening(services, None, token)
        group = self._events.since(snapshot, services, shown.revision, self._registry.age())
        return Position(snapshot.epoch, snapshot.revision), [group]

    def quiet(self, services: Services, shown: Position) -> bool:
        """Whether nothing happened to the services since."""
        snapshot = self._registry.snapshot
        return snapshot.epoch == shown.epoch and next(touched(snapshot, services, shown.revision), None) is None

    @property
    def ended(self) -> bool:
        return self._registry.watches.ended

    def heartbeat(self) -> float:
        """Seconds until the next one."""
        return jittered(HEARTBEAT, self._rng)

    def retry(self) -> bytes:
        """How long a client shall wait before it comes back, each another while."""
        return b"retry: %d\n\n" % (jittered(RETRY, self._rng, share=0.5) * 1000)


class Stream:
    """One watch's answer."""

    __slots__ = ("_since", "_watch", "_watching", "status")

    def __init__(self, watching: Watching, watch: Watch, since: Position | None) -> None:
        self._watching = watching
        self._watch = watch
        self._since = since
        self.status = 200

    async def speak(self, receive: Receive, send: Send, /) -> None:
        """Until the caller hangs up or the registry stops."""
        watching, watch = self._watching, self._watch
        token = watching.introduce(watch)
        try:
            with watch, Departure(receive, watch.interrupt) as peer:
                await send(_START)
                shown, group = watching.opening(watch.services, self._since, token)
                await send(_part(watching.retry(), *group))
                while not peer.gone:
                    changed = await watch.changed(watching.heartbeat())
                    if watching.ended:
                        await send(_END)
                        return
                    if not peer.gone and not (changed and watching.quiet(watch.services, shown)):
                        shown, group = watching.following(watch.services, shown, token)
                        await send(_part(*group))
        finally:
            watching.dismiss(token)


def _part(*pieces: bytes) -> dict[str, object]:
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return {"type": "http.response.body", "body": body, "more_body": True}


def _resumed_from(asked: Asked) -> Position | None:
    last = asked.header(b"last-event-id")
    if last:
        return Position.parse("Last-Event-ID", last)
    since = asked.query.get("since")
    return Position.parse("since", since) if since is not None else None
