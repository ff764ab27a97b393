"""One stream on the wire: a session, who is at its other end, and how far its messages have got."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

from adsum.core.errors import AdsumError
from adsum.dialects.xds.streams import delta
from adsum.dialects.xds.streams.ack_delay import ACK_DELAY
from adsum.dialects.xds.streams.errors import grpc_status, invalid_argument
from adsum.dialects.xds.streams.request import ClientNode, ReceivedRequest, parse_delta, parse_sotw
from adsum.dialects.xds.streams.request_rate import RequestRate
from adsum.dialects.xds.streams.session import StreamSession
from adsum.dialects.xds.subscribers import GatewaySubscribers, GrpcSubscribers
from adsum.gateway.resources.resources import ResourceKind
from adsum.mounts import StreamCall
from adsum.ports import Clock
from adsum.watches import Watch

Audience = GatewaySubscribers | GrpcSubscribers

_log = logging.getLogger("adsum.xds")


@dataclass(frozen=True, slots=True, eq=False)
class JoinedClient:
    """A place for a client that said who it is."""

    node: ClientNode
    subscribers: Audience
    session: StreamSession
    watch: Watch


class StreamDesk(Protocol):
    """Where streams belong."""

    @property
    def clock(self) -> Clock: ...

    def join(self, stream: AdsStream, node: ClientNode, variant: ModuleType) -> JoinedClient:
        """Take a client in. Raises `Refused` and `Overloaded`."""
        ...

    def acknowledge(self, watch: Watch, revision: int, *, immediately: bool) -> None:
        """The client has acknowledged all that there was to say to it up to that revision."""
        ...

    def record_rejection(self, node: ClientNode, kind: ResourceKind, reason: str) -> None:
        """The client rejects the last response of that kind."""
        ...

    def record_refusal(self, stream: AdsStream, code: str, reason: str) -> None:
        """The stream is about to be ended with that status."""
        ...


class AdsStream:
    """Reads and writes one call until it ends."""

    def __init__(self, desk: StreamDesk, call: StreamCall, variant: ModuleType) -> None:
        self.call = call
        self.connected_at = desk.clock.wall()
        self.writing_since: float | None = None
        """Since when the peer has not taken the message that is being written."""
        self.unsent = 0
        """Bytes of that message."""
        self.responses_sent = 0
        self.node = ""
        """The id that the client gave; "" until it did."""
        self.client: JoinedClient | None = None
        """Who it is, once it has said so."""
        self._desk = desk
        self._variant = variant
        self._parse: Callable[[bytes], ReceivedRequest] = parse_delta if variant is delta else parse_sotw
        self._acked_at = 0.0
        self._unanswered_since: float | None = None
        """When the first message was sent after which the client has said nothing; None: it has answered."""
        self._outgoing: asyncio.Future[bytes] | None = None

    async def run(self) -> None:
        """Until the peer ends the call, or is turned away."""
        writing = asyncio.create_task(self._write(), name="adsum-xds-write")
        try:
            await self._read()
        except AdsumError as refusal:
            self._desk.record_refusal(self, grpc_status(refusal), str(refusal))
            self.call.refuse(grpc_status(refusal), str(refusal))
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _read(self) -> None:
        pace, clock = RequestRate(), self._desk.clock
        while (request := await self.call.read()) is not None:
            self._hear(request)
            pause = pace.delay(clock.now())
            if pause:
                await clock.sleep(pause)

    def is_silent(self, seconds: float) -> bool:
        """Whether the client has owed a word for so long, although it takes what is sent.

        We end the stream of one that takes nothing ourselves, and it goes on with what it knows.
        """
        since = self._unanswered_since if self.writing_since is None else None
        return since is not None and self._desk.clock.now() - since >= seconds

    def flush(self) -> None:
        """Say what there is to say, unless a message is still being written; what is said next is decided then."""
        if self.client is None or self._outgoing is None or self._outgoing.done():
            return
        message = self.client.session.next_response(self._desk.clock.now())
        if message is None:
            self.acknowledge_if_current()
        else:
            self._outgoing.set_result(message)

    def acknowledge_if_current(self) -> None:
        """Tell up to where the client has acknowledged everything, if it has."""
        joined = self.client
        if joined is None:
            return
        watch, revision = joined.watch, joined.subscribers.revision
        if revision > watch.acknowledged and joined.session.is_current:
            at_once = self._desk.clock.now() - self._acked_at >= ACK_DELAY
            self._desk.acknowledge(watch, revision, immediately=at_once)

    def _hear(self, request: bytes) -> None:
        heard = self._parse(request)
        self._unanswered_since = None
        asked = heard.body
        if self.client is None:
            node = heard.node()
            if node is None:
                raise invalid_argument("the first request must say which node asks")
            self.node = node.id
            self.client = self._desk.join(self, node, self._variant)
        if asked is None:
            return  # Nobody here knows that kind; the client goes on without.
        rejection = self.client.session.receive(asked)
        if rejection:
            self._desk.record_rejection(self.client.node, asked.kind, rejection)
        if asked.kind is ResourceKind.ASSIGNMENT and asked.nonce:
            self._acked_at = self._desk.clock.now()
        self.flush()

    async def _write(self) -> None:
        try:
            while True:
                await self._write_next()
        except ConnectionError:
            pass  # The reader is told, too.
        except Exception:
            _log.exception("a stream of %s failed", self.call.peer)
            self.call.cut("the registry failed at this")

    async def _write_next(self) -> None:
        clock = self._desk.clock
        self._outgoing = asyncio.get_running_loop().create_future()
        self.flush()
        message: bytes | None = await self._outgoing
        while message is not None and self.client is not None:
            self.writing_since, self.unsent = clock.now(), len(message)
            if self._unanswered_since is None:
                self._unanswered_since = self.writing_since
            await self.call.write(message)
            self.writing_since, self.unsent = None, 0
            self.responses_sent += 1
            message = self.client.session.next_response(clock.now())
