"""All streams of this node: who joins and leaves, who is told when, and who is cut off."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterable
from types import ModuleType

from adsum.consumers import Consumer
from adsum.core.errors import Invalid
from adsum.dialects.xds.bounds import AT_ONCE, MAX_STREAMS, MAX_UNSENT, STALL
from adsum.dialects.xds.publisher import Publisher
from adsum.dialects.xds.streams.ack_delay import Pauses
from adsum.dialects.xds.streams.request import Node
from adsum.dialects.xds.streams.session import Session
from adsum.dialects.xds.streams.stream import Call, Joined, Stream
from adsum.dialects.xds.subscribers import Gateways
from adsum.dialects.xds.telemetry.client_status import Departures, KindStatus, Rejections, StreamStatus
from adsum.dialects.xds.telemetry.refusals import Refusals, exhausted, malformed
from adsum.gateway.profile import Shape
from adsum.gateway.resources.resources import Kind
from adsum.ports import Clock
from adsum.watches import Watch, Watches

_log = logging.getLogger("adsum.xds")


class Streams:
    """Implements `stream.Desk`."""

    def __init__(self, publisher: Publisher, watches: Watches, clock: Clock, catch_up: Callable[[], None]) -> None:
        """`catch_up` has the newest snapshot published, should it not be."""
        self.clock = clock
        self._catch_up = catch_up
        self._publisher = publisher
        self._watches = watches
        self._pauses = Pauses()
        self._all: dict[Stream, None] = {}
        self._of: dict[Session, Stream] = {}
        self._told: dict[str, list[Gateways]] = {}
        """What gateways are told, by node: one whose Envoy is being replaced is there twice."""
        self._waiting: deque[Stream] = deque()
        self._turn: asyncio.Handle | None = None
        self.rejections = Rejections()
        self.refusals = Refusals(clock)
        self._departures = Departures()
        self._pushes = 0
        self.most = MAX_STREAMS
        """How many streams there may be at a time; past it a new one is refused with RESOURCE_EXHAUSTED."""
        self.shed = 0
        """How many were cut off because they did not read."""

    def __len__(self) -> int:
        return len(self._all)

    @property
    def pushes(self) -> int:
        """How many responses were sent."""
        return self._pushes + sum(stream.pushes for stream in self._all)

    async def speak(self, call: Call, variant: ModuleType) -> None:
        """Keep the client of this call informed until it ends."""
        if len(self._all) >= self.most:
            refusal = exhausted(f"this node has {self.most} streams, as many as it can hold")
            self.refusals.add("", call.peer, refusal.code, str(refusal))
            call.refuse(refusal.code, str(refusal))
            return
        stream = Stream(self, call, variant)
        self._all[stream] = None
        try:
            await stream.run()
        finally:
            del self._all[stream]
            self._pushes += stream.pushes
            if stream.joined is not None:
                stream.joined.watch.silent = stream.is_silent(self._watches.consumers.lost_after)
                self._leave(stream.joined)
                self._note_departure(stream, stream.joined)

    def join(self, stream: Stream, node: Node, variant: ModuleType) -> Joined:
        """See `Desk`."""
        shape = _shape(node) if node.is_envoy else None
        watch = self._watches.open(None, consumer=self._consumer(stream, node), told=False)
        publisher = self._publisher
        try:
            audience = publisher.gateways(shape) if shape is not None else publisher.grpc_clients()
        except BaseException:
            self._watches.leave(watch)
            raise
        self._catch_up()
        session = Session(variant, audience)
        self._of[session] = stream
        if isinstance(audience, Gateways):
            self._told.setdefault(node.id, []).append(audience)
            self._departures.discard(node.id)
        return Joined(node, audience, session, watch)

    def _consumer(self, stream: Stream, node: Node) -> Consumer | None:
        """Who owes acknowledgements over this stream; None: nobody.

        Several programs may share a node's id (one bootstrap on many hosts; an Envoy and the one that replaces it), so
        that one of them never acknowledges for another: each stream takes the place of one that left from there.
        """
        if node.is_onlooker:
            return None
        address = stream.call.peer.rpartition(":")[0]
        id = self._watches.consumers.returning(node.id, address) or secrets.token_hex(16)
        return Consumer(id, node.id, address)

    def _leave(self, joined: Joined) -> None:
        joined.session.leave()
        del self._of[joined.session]
        if isinstance(joined.audience, Gateways):
            there = self._told[joined.node.id]
            there.remove(joined.audience)
            if not there:
                del self._told[joined.node.id]
        self._publisher.leave(joined.audience)
        self._watches.leave(joined.watch)

    def _note_departure(self, stream: Stream, joined: Joined) -> None:
        if joined.node.is_envoy and joined.node.id not in self._told:
            self._departures.add(_status(stream, joined), self.clock.now())

    def told(self, node: str) -> Gateways | None:
        """What the gateway of that id is told, by the stream that it opened last; None: it has none here."""
        there = self._told.get(node)
        return there[-1] if there else None

    def applied(self, watch: Watch, revision: int, *, at_once: bool) -> None:
        """See `Desk`."""
        if at_once:
            watch.acknowledge(revision)
        else:
            self._pauses.add(watch, revision)

    def rejected(self, node: Node, kind: Kind, words: str) -> None:
        """See `Desk`."""
        self.rejections.add(kind, node.id, words)

    def refused(self, stream: Stream, code: str, reason: str) -> None:
        """See `Desk`."""
        self.refusals.add(stream.node, stream.call.peer, code, reason)

    def tell(self, sessions: Iterable[Session]) -> None:
        """Tell these what is new: some at once, of many the rest after others had their turn."""
        self._waiting.extend(self._of[session] for session in sessions if session in self._of)
        if self._turn is None:
            self._tell_some()

    def tell_all(self) -> None:
        """Tell everybody."""
        self.tell(list(self._of))

    def recall(self) -> None:
        """Another epoch begins; before anybody is told what is in it.

        Acknowledgements that wait are of the epoch before, and say nothing any more.
        """
        self._pauses.clear()
        for session in self._of:
            session.recall()

    def settle(self) -> None:
        """A publication is out: who has nothing to be told of it has applied it already."""
        for stream in self._of.values():
            stream.settle()

    def look(self) -> None:
        """Cut off those that don't read, and let go on who has waited for long enough."""
        now = self.clock.now()
        writing = [(each.writing_since, each) for each in self._all if each.writing_since is not None]
        writing.sort(key=lambda pair: pair[0])
        unsent = sum(each.unsent for _, each in writing)
        for since, stream in writing:
            if now - since < STALL and unsent <= MAX_UNSENT:
                break
            unsent -= stream.unsent
            self.shed += 1
            self.refused(stream, "UNAVAILABLE", "it does not read what is sent to it")
            stream.call.cut("what was said was not read")
        self.tell([session for session in self._of if session.held])

    def close(self) -> None:
        """End all streams; idempotent."""
        for stream in self._all:
            stream.call.cut("the registry is stopping")
        self._pauses.close()
        self._waiting.clear()
        if self._turn is not None:
            self._turn.cancel()

    def programs(self) -> Counter[str]:
        """How many streams there are of Envoys and of gRPC clients."""
        known = (stream.joined.node for stream in self._of.values() if stream.joined is not None)
        return Counter("envoy" if node.is_envoy else "grpc" for node in known)

    def statuses(self) -> list[StreamStatus]:
        """What is known of every client that said who it is, by node."""
        known = [_status(stream, stream.joined) for stream in self._of.values() if stream.joined is not None]
        return sorted(known, key=lambda each: (each.node, each.since))

    def departed(self) -> list[tuple[float, StreamStatus]]:
        """For how many seconds each gateway has had no stream here any more, and how it stood; the latest first."""
        return self._departures.recent(self.clock.now())

    def _tell_some(self) -> None:
        self._turn = None
        for _ in range(min(AT_ONCE, len(self._waiting))):
            stream = self._waiting.popleft()
            try:
                stream.flush()
            except Exception:
                _log.exception("a stream of %s failed", stream.call.peer)
                stream.call.cut("the registry failed at this")
        if self._waiting:
            self._turn = asyncio.get_running_loop().call_soon(self._tell_some)


def _shape(node: Node) -> Shape:
    try:
        return Shape.of(node.metadata)
    except Invalid as error:
        raise malformed(f"the node's metadata says nothing that a gateway of ours would say: {error}") from None


def _status(stream: Stream, joined: Joined) -> StreamStatus:
    session = joined.session
    kinds = {
        kind: KindStatus(each.sent, each.acked, session.rejection(kind)) for kind, each in session.subscriptions.items()
    }
    program = f"{joined.node.agent} {joined.node.version}".strip()
    return StreamStatus(joined.node.id, program, stream.call.peer, stream.since, joined.watch.applied, kinds)
