"""All xDS streams of this node: clients that join and leave, the turns of responses, and streams that are ended."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterable
from functools import partial
from types import ModuleType
from typing import Final

from adsum.consumers import Consumer
from adsum.core.access.principal import Principal
from adsum.core.addresses import split_host_port
from adsum.core.errors import AdsumError, Invalid
from adsum.dialects.xds.publisher import Publisher
from adsum.dialects.xds.streams.ack_delay import AckDelay
from adsum.dialects.xds.streams.errors import grpc_status, invalid_argument, resource_exhausted
from adsum.dialects.xds.streams.request import ClientNode, ReceivedRequest
from adsum.dialects.xds.streams.session import StreamSession
from adsum.dialects.xds.streams.stream import AdsStream, JoinedClient
from adsum.dialects.xds.subscribers import GatewaySubscribers, Subscriber
from adsum.dialects.xds.telemetry.client_status import DepartedGateways, KindStatus, RejectionLog, StreamStatus
from adsum.dialects.xds.telemetry.refusals import RefusalLog
from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources.resources import ResourceKind
from adsum.mounts import StreamCall
from adsum.ports import Clock
from adsum.watches import Watches

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
    """Serves the discovery streams of all clients."""

    def __init__(self, publisher: Publisher, watches: Watches, clock: Clock, catch_up: Callable[[], None]) -> None:
        """`catch_up` publishes the newest snapshot, unless it is published already."""
        self._clock = clock
        self._catch_up = catch_up
        self._publisher = publisher
        self._watches = watches
        self._ack_delay = AckDelay()
        self._streams: dict[AdsStream, None] = {}
        self._by_session: dict[Subscriber, AdsStream] = {}
        self._gateways: dict[str, list[tuple[str, GatewaySubscribers]]] = {}
        """The caller's name and the subscribers' group of each gateway's streams, by node id.

        A gateway has two streams while its Envoy is being replaced."""
        self._waiting: deque[AdsStream] = deque()
        self._turn: asyncio.Handle | None = None
        self.rejections = RejectionLog()
        self.refusals = RefusalLog(clock)
        self._departed = DepartedGateways()
        self._responses_of_ended_streams = 0
        self.max_streams = MAX_STREAMS
        """Streams at a time; past it a new one is refused with RESOURCE_EXHAUSTED."""
        self.shed = 0
        """The number of streams that were ended because their peers did not read."""

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def responses_sent(self) -> int:
        """The number of responses sent on all streams since the node started."""
        return self._responses_of_ended_streams + sum(stream.responses_sent for stream in self._streams)

    async def serve(self, call: StreamCall, principal: Principal, variant: ModuleType) -> None:
        """Serves one client until its call ends. `variant` is the module `delta` or `sotw`.

        The client gets what the principal may read.
        """
        if len(self._streams) >= self.max_streams:
            error = resource_exhausted(f"this node has {self.max_streams} streams, its maximum")
            self.refusals.add("", call.peer, error.code, str(error))
            call.refuse(error.code, str(error))
            return
        stream = AdsStream(call, principal, variant, self._clock, self._ack_delay)
        self._streams[stream] = None
        try:
            await stream.run(partial(self._receive, stream))
        except AdsumError as refusal:
            self._record_refusal(stream, grpc_status(refusal), str(refusal))
            call.refuse(grpc_status(refusal), str(refusal))
        finally:
            del self._streams[stream]
            self._responses_of_ended_streams += stream.responses_sent
            if stream.client is not None:
                stream.client.watch.is_peer_lost = stream.is_silent(self._watches.consumers.lost_after)
                self._leave(stream, stream.client)
                self._record_departure(stream, stream.client)

    def _receive(self, stream: AdsStream, received: ReceivedRequest) -> None:
        """Processes a request. Raises `StreamRefused` and `Overloaded`."""
        if stream.client is None:
            node = received.node()
            if node is None:
                raise invalid_argument("the first request must have a node")
            stream.node = node.id
            stream.client = self._join(stream, node)
        request = received.body
        if request is None:
            return  # The kind is unknown here; the client goes on without resources of it.
        rejection = stream.client.session.receive(request)
        if rejection:
            self.rejections.add(request.kind, stream.node, rejection)
        if request.kind is ResourceKind.ASSIGNMENT and request.nonce:
            stream.record_assignment_ack()
        stream.flush()

    def _join(self, stream: AdsStream, node: ClientNode) -> JoinedClient:
        """Makes a session for a client. Raises `StreamRefused` and `Overloaded`."""
        profile = _profile(node) if node.is_envoy else None
        visible = stream.principal.scopes.visible
        watch = self._watches.open(None, consumer=self._consumer(stream, node), is_notified=False)
        publisher = self._publisher
        try:
            subscribers = (
                publisher.grpc_subscribers(visible)
                if profile is None
                else publisher.gateway_subscribers(profile, visible)
            )
        except BaseException:
            self._watches.remove(watch)
            raise
        self._catch_up()
        session = StreamSession(stream.variant, subscribers)
        self._by_session[session] = stream
        if isinstance(subscribers, GatewaySubscribers):
            self._gateways.setdefault(node.id, []).append((stream.principal.name, subscribers))
            self._departed.discard(node.id)
        return JoinedClient(node, subscribers, session, watch)

    def _consumer(self, stream: AdsStream, node: ClientNode) -> Consumer | None:
        """Returns the consumer that acknowledges over this stream; None for an observer.

        Several programs may share a node id (one bootstrap on many hosts; an Envoy and the one that replaces it).
        Therefore each stream is a consumer of its own, or takes the place of one that left from the same IP address.
        """
        if node.is_observer:
            return None
        address, _ = split_host_port(stream.call.peer)
        principal = stream.principal
        departed = self._watches.consumers.find_departed(node.id, address, principal.owner)
        id = departed or secrets.token_hex(16)
        return Consumer(id, node.id, address, visible=principal.scopes.visible, principal=principal.owner)

    def _leave(self, stream: AdsStream, client: JoinedClient) -> None:
        client.session.close()
        del self._by_session[client.session]
        subscribers = client.subscribers
        if isinstance(subscribers, GatewaySubscribers):
            groups = self._gateways[client.node.id]
            groups.remove((stream.principal.name, subscribers))
            if not groups:
                del self._gateways[client.node.id]
        self._publisher.leave(subscribers)
        self._watches.remove(client.watch)

    def _record_departure(self, stream: AdsStream, client: JoinedClient) -> None:
        if client.node.is_envoy and client.node.id not in self._gateways:
            self._departed.add(_status(stream, client), self._clock.now())

    def _record_refusal(self, stream: AdsStream, code: str, reason: str) -> None:
        self.refusals.add(stream.node, stream.call.peer, code, reason)

    def gateway_subscribers(self, node: str, caller: str) -> GatewaySubscribers | None:
        """Returns the subscribers' group of the gateway's latest stream; None if this caller has no such stream here.

        `caller` is the name of the principal, so that no other caller reports for the gateway.
        """
        groups = [group for name, group in self._gateways.get(node, ()) if name == caller]
        return groups[-1] if groups else None

    def push(self, sessions: Iterable[Subscriber]) -> None:
        """Sends these sessions their next responses: `MAX_PUSHES_PER_TURN` now, others in later turns of the loop."""
        self._waiting.extend(self._by_session[session] for session in sessions if session in self._by_session)
        if self._turn is None:
            self._push_some()

    def push_all(self) -> None:
        """Sends all sessions their next responses."""
        self.push(list(self._by_session))

    def begin_epoch(self) -> None:
        """Prepares all sessions for another epoch, before its resources are pushed.

        Delayed acknowledgements are of the epoch before, and are dropped.
        """
        self._ack_delay.clear()
        for stream in self._by_session.values():
            if stream.client is not None:
                stream.client.session.begin_epoch()

    def acknowledge_current(self) -> None:
        """Acknowledges a publication for the clients that need no response for it."""
        for stream in self._by_session.values():
            stream.acknowledge_if_current()

    def sweep(self) -> None:
        """Ends the streams whose peers do not read, and pushes to the sessions whose deferred responses may be due."""
        now = self._clock.now()
        writing = [(stream.writing_since, stream) for stream in self._streams if stream.writing_since is not None]
        writing.sort(key=lambda pair: pair[0])
        unsent = sum(stream.unsent for _, stream in writing)
        for since, stream in writing:
            if now - since < STALL_TIMEOUT and unsent <= MAX_UNSENT_BYTES:
                break
            unsent -= stream.unsent
            self.shed += 1
            self._record_refusal(stream, "UNAVAILABLE", "the client does not read responses")
            stream.call.cut("responses were not read")
        clients = [stream.client for stream in self._by_session.values() if stream.client is not None]
        self.push([client.session for client in clients if client.session.has_deferred])

    def close(self) -> None:
        """Ends all streams; idempotent."""
        for stream in self._streams:
            stream.call.cut("the registry is stopping")
        self._ack_delay.close()
        self._waiting.clear()
        if self._turn is not None:
            self._turn.cancel()

    def count_by_program(self) -> Counter[str]:
        """Returns the numbers of streams of Envoys ("envoy") and of gRPC clients ("grpc")."""
        nodes = (stream.client.node for stream in self._by_session.values() if stream.client is not None)
        return Counter("envoy" if node.is_envoy else "grpc" for node in nodes)

    def statuses(self) -> list[StreamStatus]:
        """Returns the status of every client that has sent its node, ordered by node id and by time of connection."""
        statuses = [_status(stream, stream.client) for stream in self._by_session.values() if stream.client is not None]
        return sorted(statuses, key=lambda status: (status.node, status.since))

    def departed_gateways(self) -> list[tuple[float, StreamStatus]]:
        """Returns the gateways without a stream: seconds since the last one ended, and its status; latest first."""
        return self._departed.recent(self._clock.now())

    def _push_some(self) -> None:
        self._turn = None
        for _ in range(min(MAX_PUSHES_PER_TURN, len(self._waiting))):
            stream = self._waiting.popleft()
            try:
                stream.flush()
            except Exception:
                _log.exception("a stream of %s failed", stream.call.peer)
                stream.call.cut("internal error of the registry")
        if self._waiting:
            self._turn = asyncio.get_running_loop().call_soon(self._push_some)


def _profile(node: ClientNode) -> GatewayProfile:
    try:
        return GatewayProfile.from_metadata(node.metadata)
    except Invalid as error:
        raise invalid_argument(f"the node's metadata is not that of an Adsum gateway: {error}") from None


def _status(stream: AdsStream, client: JoinedClient) -> StreamStatus:
    session = client.session
    kinds = {
        kind: KindStatus(subscription.sent, subscription.acked, session.rejection(kind))
        for kind, subscription in session.subscriptions.items()
    }
    program = f"{client.node.agent} {client.node.version}".strip()
    watch = client.watch
    return StreamStatus(client.node.id, program, stream.call.peer, stream.connected_at, watch.acknowledged, kinds)
