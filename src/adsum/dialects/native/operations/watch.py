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
from adsum.dialects.native.asgi import NO_STORE, Receive, Reply, Scope, Send
from adsum.dialects.native.events.heartbeat import Pulse
from adsum.dialects.native.events.watch_events import Events, Services, event, resumable, synced, touched
from adsum.dialects.native.problems import STOPPING, Malformed, NotReady, UnknownWatch
from adsum.dialects.native.requests.api_request import Asked
from adsum.dialects.native.requests.disconnect_watch import Departure
from adsum.ports import END_IF_SILENT, MORE_AT_ONCE, EndIfSilent, MoreAtOnce
from adsum.registry import Registry
from adsum.watches import Watch

RETRY: Final = 2.0
"""Seconds, give or take half, after which a client that lost its watch is asked to come back."""
MAX_WRITE: Final = 64 * 1024
"""Bytes of one write; what is longer is said in several, each when the reader has taken most of those before."""
CATCH_UP: Final = 3.0
"""Seconds that a node has to hear of what the caller saw at another one; then the caller is sent on."""
MAX_SERVICES: Final = 512
"""How many services one watch names; one that wants more watches all."""

_log = logging.getLogger("adsum.native")

_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    NO_STORE,
    (b"x-accel-buffering", b"no"),
)
_START: Final = {"type": "http.response.start", "status": 200, "headers": _HEADERS}
_END: Final = {"type": "http.response.body", "body": b": the registry is stopping\n\n"}


class Position(NamedTuple):
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
        self.pulse = Pulse[Stream](registry.heartbeat, rng, self._beat)

    async def watch(self, asked: Asked) -> Stream:
        """A stream to be spoken at once. Raises `Invalid`, `Malformed`, `NotReady` and `Overloaded`."""
        if self.ended:
            raise NotReady(STOPPING)
        names = asked.query.get("service")
        if names is not None and len(names) > MAX_SERVICES:
            raise Invalid("service", f"must be at most {MAX_SERVICES}; leave it out to watch all")
        position = _resumed_from(asked)
        await self._catch_up(position)
        if position is not None and position.epoch != self._registry.snapshot.epoch:
            self._registry.watches.consumers.restarted()
        services = frozenset(names) if names is not None else None
        watch = self._registry.watches.open(services, consumer=_consumer(asked))
        return Stream(self, watch, position)

    async def _catch_up(self, position: Position | None) -> None:
        """Who comes from a node that knew more must not be shown less. Raises `NotReady`.

        A revision that we have not heard of although we know the newest is none; there, too, the whole is shown.
        """
        registry = self._registry
        ahead = position is not None and position.epoch == registry.snapshot.epoch
        if position is None or not ahead or position.revision <= registry.snapshot.revision or not registry.age():
            return
        if not await registry.reached(position.revision, CATCH_UP) and registry.age() > CATCH_UP:
            raise NotReady(f"this node has not heard of revision {position.revision} yet")

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

    async def goodbye(self, asked: Asked) -> Reply:
        """A consumer ends: nobody waits for it any more."""
        names = asked.query.get("service")
        services = frozenset(names) if names is not None else None
        self._registry.watches.consumers.say_goodbye(asked.path["consumer"], services)
        return Reply(204, headers=(NO_STORE,))

    def introduce(self, watch: Watch) -> str:
        """The token under which its consumer speaks of it."""
        token = secrets.token_hex(8)
        if watch.duties:
            self._cooperating[token] = watch
        return token

    def dismiss(self, token: str) -> None:
        self._cooperating.pop(token, None)

    def opening(self, services: Services, since: Position | None, token: str) -> tuple[Position, bytes, bytes]:
        """The first group of a watch, or of a new history: where it leads to, `open`, and the rest."""
        snapshot, age = self._registry.snapshot, self._age()
        if since is not None and since.epoch == snapshot.epoch and resumable(snapshot, services, since.revision):
            whole = False
            group = self._events.since(snapshot, services, since.revision, age) or synced(snapshot, age)
        else:
            whole = True
            group = self._events.whole(snapshot, services, age)
        opened = wire.Opened(snapshot.epoch, snapshot.revision, whole, token, age, self._registry.heartbeat)
        return Position(snapshot.epoch, snapshot.revision), event("open", wire.encode(opened)), group

    def following(self, services: Services, shown: Position, token: str) -> tuple[Position, bytes, bytes]:
        """The group that follows what was shown, as `opening` says it; empty if nothing changed."""
        snapshot = self._registry.snapshot
        if snapshot.epoch != shown.epoch or (services is None and shown.revision < snapshot.floor):
            return self.opening(services, None, token)
        group = self._events.since(snapshot, services, shown.revision, self._age())
        return Position(snapshot.epoch, snapshot.revision), b"", group

    def heartbeat(self) -> bytes:
        """All is as it was shown."""
        return synced(self._registry.snapshot, self._age())

    def _beat(self, streams: Collection[Stream]) -> None:
        """Have these streams say that all is as it was shown: those that can at once, in the same bytes."""
        if streams and not self.ended:
            snapshot, heartbeat = self._registry.snapshot, self.heartbeat()
            shown = Position(snapshot.epoch, snapshot.revision)
            for stream in streams:
                try:
                    stream.beat(snapshot, shown, heartbeat)
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
        return self._registry.watches.ended

    def retry(self) -> bytes:
        """How long a client shall wait before it comes back, each another while."""
        return b"retry: %d\n\n" % (jittered(RETRY, self._rng, share=0.5) * 1000)


class Stream:
    """One watch's answer."""

    __slots__ = ("_more", "_shown", "_since", "_token", "_watch", "_watching", "status")

    def __init__(self, watching: Watching, watch: Watch, since: Position | None) -> None:
        self._watching = watching
        self._watch = watch
        self._since = since
        self._token = watching.introduce(watch)
        self.status = 200

    async def speak(self, scope: Scope, receive: Receive, send: Send, /) -> None:
        """Until the caller hangs up or the registry stops."""
        watching, watch = self._watching, self._watch
        state = scope.get("state", {})
        end_if_silent: EndIfSilent = state.get(END_IF_SILENT, _never_says)
        was_silent = end_if_silent(watching.lost_after)
        try:
            with watch, Departure(receive, watch.interrupt) as peer, watching.pulse.beats(self):
                try:
                    await send(_START)
                    await self._open(send)
                    self._show_at_once_by(state.get(MORE_AT_ONCE))
                    while not peer.gone:
                        changed = await watch.changed()
                        if watching.ended:
                            await send(_END)
                            return
                        await self._follow(send, changed)
                finally:
                    watch.silent = was_silent()
        finally:
            watch.show = None
            watching.dismiss(self._token)

    # What was said is let go of when these return: a quiet watch holds no bytes.

    async def _open(self, send: Send) -> None:
        self._shown, opened, group = self._watching.opening(self._watch.services, self._since, self._token)
        await _say(send, self._watching.retry() + opened)
        await _say(send, group)

    async def _follow(self, send: Send, changed: bool) -> None:
        self._shown, opened, group = self._watching.following(self._watch.services, self._shown, self._token)
        if opened:
            await _say(send, opened)
        if group or not changed:
            await _say(send, group or self._watching.heartbeat())

    def _show_at_once_by(self, more: MoreAtOnce | None) -> None:
        """Have changes written as soon as they are there, while the caller takes them: waking a task costs as much."""
        if more is not None:
            self._more = more
            self._watch.show = self._show

    def _show(self) -> bool:
        if self._watching.ended:
            return False
        shown, opened, group = self._watching.following(self._watch.services, self._shown, self._token)
        if opened or len(group) > MAX_WRITE or (group and not self._more(group)):
            return False
        self._shown = shown
        return True

    def beat(self, snapshot: Snapshot, shown: Position, heartbeat: bytes) -> None:
        """Say `heartbeat` if all is as it was shown, at once, while the caller takes it."""
        if (self._shown == shown or self._is_current(snapshot)) and self._watch.may_show() and self._more(heartbeat):
            self._shown = shown
        else:
            self._watch.interrupt()

    def _is_current(self, snapshot: Snapshot) -> bool:
        """Whether nothing that it is about has changed since it was shown something."""
        shown = self._shown
        return shown.epoch == snapshot.epoch and not any(touched(snapshot, self._watch.services, shown.revision))


async def _say(send: Send, text: bytes) -> None:
    """In one write, or in several if it is long: a slow reader holds up no more than one of them."""
    for start in range(0, len(text), MAX_WRITE):
        part = text if len(text) <= MAX_WRITE else text[start : start + MAX_WRITE]
        await send({"type": "http.response.body", "body": part, "more_body": True})


def _resumed_from(asked: Asked) -> Position | None:
    last = asked.header(b"last-event-id")
    if last:
        return Position.parse("Last-Event-ID", last)
    since = asked.query.get("since")
    return Position.parse("since", since) if since is not None else None


def _consumer(asked: Asked) -> Consumer | None:
    """Who promises to acknowledge; without an id of its own, the connection is a consumer of its own."""
    if not asked.query.get("acks", False):
        return None
    id = asked.query.get("consumer") or secrets.token_hex(16)
    return Consumer(id, asked.query.get("name", ""), asked.peer, prompt=True)


def _never_says(_: float) -> Callable[[], bool]:
    """The `EndIfSilent` of a server that has none."""
    return lambda: False
