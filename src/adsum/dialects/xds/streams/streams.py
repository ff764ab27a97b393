"""All streams of this node: who joins and leaves, who is told when, and who is cut off."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Final

from adsum.consumers import Consumer
from adsum.core.errors import Invalid
from adsum.dialects.xds.publisher import Publisher
from adsum.dialects.xds.streams.ack_delay import AckDelay
from adsum.dialects.xds.streams.errors import invalid_argument, resource_exhausted
from adsum.dialects.xds.streams.request import ClientNode
from adsum.dialects.xds.streams.session import StreamSession
from adsum.dialects.xds.streams.stream import AdsStream, JoinedClient
from adsum.dialects.xds.subscribers import GatewaySubscribers
from adsum.dialects.xds.telemetry.client_status import DepartedGateways, KindStatus, RejectionLog, StreamStatus
from adsum.dialects.xds.telemetry.refusals import RefusalLog
from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources.resources import ResourceKind
from adsum.mounts import StreamCall
from adsum.ports import Clock
from adsum.watches import Watch, Watches

MAX_STREAMS: Final = 10_000
"""Streams at a time, fewer where file descriptors are scarce; past it a new one is refused with RESOURCE_EXHAUSTED."""
STALL_TIMEOUT: Final = 30.0
"""Seconds after which a stream is ended whose peer does not read the message that is sent to it."""
MAX_UNSENT_BYTES: Final = 256 * 1024 * 1024
"""Bytes of messages being sent to all peers; past it the streams that have not read for the longest are ended."""
MAX_PUSHES_PER_TURN: Final = 64
"""Streams that get their next response in one turn of the event loop; the others wait for the next turn."""

_log = logging.getLogger("adsum.xds")


class Streams:
    """Implements `stream.Desk`."""

    def __init__(self, publisher: Publisher, watches: Watches, clock: Clock, catch_up: Callable[[], None]) -> None:
        """`catch_up` has the newest snapshot published, should it not be."""
        self.clock = clock
        self._catch_up = catch_up
        self._publisher = publisher
        self._watches = watches
        self._pauses = AckDelay()
        self._all: dict[AdsStream, None] = {}
        self._of: dict[StreamSession, AdsStream] = {}
        self._told: dict[str, list[GatewaySubscribers]] = {}
        """What gateways are told, by node: one whose Envoy is being replaced is there twice."""
        self._waiting: deque[AdsStream] = deque()
        self._turn: asyncio.Handle | None = None
        self.rejections = RejectionLog()
        self.refusals = RefusalLog(clock)
        self._departures = DepartedGateways()
        self._pushes = 0
        self.max_streams = MAX_STREAMS
        """How many streams there may be at a time; past it a new one is refused with RESOURCE_EXHAUSTED."""
        self.shed = 0
        """How many were cut off because they did not read."""

    def __len__(self) -> int:
        return len(self._all)

    @property
    def responses_sent(self) -> int:
        """How many responses were sent."""
        return self._pushes + sum(stream.responses_sent for stream in self._all)

    async def serve(self, call: StreamCall, variant: ModuleType) -> None:
        """Keep the client of this call informed until it ends."""
        if len(self._all) >= self.max_streams:
            refusal = resource_exhausted(f"this node has {self.max_streams} streams, as many as it can hold")
            self.refusals.add("", call.peer, refusal.code, str(refusal))
            call.refuse(refusal.code, str(refusal))
            return
        stream = AdsStream(self, call, variant)
        self._all[stream] = None
        try:
            await stream.run()
        finally:
            del self._all[stream]
            self._pushes += stream.responses_sent
            if stream.client is not None:
                stream.client.watch.is_peer_lost = stream.is_silent(self._watches.consumers.lost_after)
                self._leave(stream.client)
                self._note_departure(stream, stream.client)

    def join(self, stream: AdsStream, node: ClientNode, variant: ModuleType) -> JoinedClient:
        """See `StreamDesk`."""
        shape = _shape(node) if node.is_envoy else None
        watch = self._watches.open(None, consumer=self._consumer(stream, node), is_notified=False)
        publisher = self._publisher
        try:
            audience = publisher.gateway_subscribers(shape) if shape is not None else publisher.grpc_subscribers()
        except BaseException:
            self._watches.remove(watch)
            raise
        self._catch_up()
        session = StreamSession(variant, audience)
        self._of[session] = stream
        if isinstance(audience, GatewaySubscribers):
            self._told.setdefault(node.id, []).append(audience)
            self._departures.discard(node.id)
        return JoinedClient(node, audience, session, watch)

    def _consumer(self, stream: AdsStream, node: ClientNode) -> Consumer | None:
        """Who owes acknowledgements over this stream; None: nobody.

        Several programs may share a node's id (one bootstrap on many hosts; an Envoy and the one that replaces it), so
        that one of them never acknowledges for another: each stream takes the place of one that left from there.
        """
        if node.is_observer:
            return None
        address = stream.call.peer.rpartition(":")[0]
        id = self._watches.consumers.find_departed(node.id, address) or secrets.token_hex(16)
        return Consumer(id, node.id, address)

    def _leave(self, joined: JoinedClient) -> None:
        joined.session.close()
        del self._of[joined.session]
        if isinstance(joined.subscribers, GatewaySubscribers):
            there = self._told[joined.node.id]
            there.remove(joined.subscribers)
            if not there:
                del self._told[joined.node.id]
        self._publisher.leave(joined.subscribers)
        self._watches.remove(joined.watch)

    def _note_departure(self, stream: AdsStream, joined: JoinedClient) -> None:
        if joined.node.is_envoy and joined.node.id not in self._told:
            self._departures.add(_status(stream, joined), self.clock.now())

    def gateway_subscribers(self, node: str) -> GatewaySubscribers | None:
        """What the gateway of that id is told, by the stream that it opened last; None: it has none here."""
        there = self._told.get(node)
        return there[-1] if there else None

    def acknowledge(self, watch: Watch, revision: int, *, immediately: bool) -> None:
        """See `StreamDesk`."""
        if immediately:
            watch.acknowledge(revision)
        else:
            self._pauses.add(watch, revision)

    def record_rejection(self, node: ClientNode, kind: ResourceKind, reason: str) -> None:
        """See `StreamDesk`."""
        self.rejections.add(kind, node.id, reason)

    def record_refusal(self, stream: AdsStream, code: str, reason: str) -> None:
        """See `StreamDesk`."""
        self.refusals.add(stream.node, stream.call.peer, code, reason)

    def push(self, sessions: Iterable[StreamSession]) -> None:
        """Tell these what is new: some at once, of many the rest after others had their turn."""
        self._waiting.extend(self._of[session] for session in sessions if session in self._of)
        if self._turn is None:
            self._tell_some()

    def push_all(self) -> None:
        """Tell everybody."""
        self.push(list(self._of))

    def begin_epoch(self) -> None:
        """Another epoch begins; before anybody is told what is in it.

        Acknowledgements that wait are of the epoch before, and say nothing any more.
        """
        self._pauses.clear()
        for session in self._of:
            session.begin_epoch()

    def acknowledge_current(self) -> None:
        """A publication is out: who has nothing to be told of it has applied it already."""
        for stream in self._of.values():
            stream.acknowledge_if_current()

    def sweep(self) -> None:
        """Cut off those that don't read, and let go on who has waited for long enough."""
        now = self.clock.now()
        writing = [(each.writing_since, each) for each in self._all if each.writing_since is not None]
        writing.sort(key=lambda pair: pair[0])
        unsent = sum(each.unsent for _, each in writing)
        for since, stream in writing:
            if now - since < STALL_TIMEOUT and unsent <= MAX_UNSENT_BYTES:
                break
            unsent -= stream.unsent
            self.shed += 1
            self.record_refusal(stream, "UNAVAILABLE", "it does not read what is sent to it")
            stream.call.cut("what was said was not read")
        self.push([session for session in self._of if session.has_deferred])

    def close(self) -> None:
        """End all streams; idempotent."""
        for stream in self._all:
            stream.call.cut("the registry is stopping")
        self._pauses.close()
        self._waiting.clear()
        if self._turn is not None:
            self._turn.cancel()

    def count_by_program(self) -> Counter[str]:
        """How many streams there are of Envoys and of gRPC clients."""
        known = (stream.client.node for stream in self._of.values() if stream.client is not None)
        return Counter("envoy" if node.is_envoy else "grpc" for node in known)

    def statuses(self) -> list[StreamStatus]:
        """What is known of every client that said who it is, by node."""
        known = [_status(stream, stream.client) for stream in self._of.values() if stream.client is not None]
        return sorted(known, key=lambda each: (each.node, each.since))

    def departed_gateways(self) -> list[tuple[float, StreamStatus]]:
        """For how many seconds each gateway has had no stream here any more, and how it stood; the latest first."""
        return self._departures.recent(self.clock.now())

    def _tell_some(self) -> None:
        self._turn = None
        for _ in range(min(MAX_PUSHES_PER_TURN, len(self._waiting))):
            stream = self._waiting.popleft()
            try:
                stream.flush()
            except Exception:
                _log.exception("a stream of %s failed", stream.call.peer)
                stream.call.cut("the registry failed at this")
        if self._waiting:
            self._turn = asyncio.get_running_loop().call_soon(self._tell_some)


def _shape(node: ClientNode) -> GatewayProfile:
    try:
        return GatewayProfile.from_metadata(node.metadata)
    except Invalid as error:
        raise invalid_argument(f"the node's metadata says nothing that a gateway of ours would say: {error}") from None


def _status(stream: AdsStream, joined: JoinedClient) -> StreamStatus:
    session = joined.session
    kinds = {
        kind: KindStatus(each.sent, each.acked, session.rejection(kind)) for kind, each in session.subscriptions.items()
    }
    program = f"{joined.node.agent} {joined.node.version}".strip()
    return StreamStatus(
        joined.node.id, program, stream.call.peer, stream.connected_at, joined.watch.acknowledged, kinds
    )
