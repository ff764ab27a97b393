"""One stream of a client: its call, its session, and the state of reading and writing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from adsum.core.access.principal import Principal
from adsum.dialects.xds.streams import delta
from adsum.dialects.xds.streams.ack_delay import ACK_DELAY, AckDelay
from adsum.dialects.xds.streams.request import ClientNode, ReceivedRequest, parse_delta, parse_sotw
from adsum.dialects.xds.streams.request_rate import RequestRate
from adsum.dialects.xds.streams.session import StreamSession
from adsum.dialects.xds.subscribers import Subscribers
from adsum.mounts import StreamCall
from adsum.ports import Clock
from adsum.watches import Watch

_log = logging.getLogger("adsum.xds")


@dataclass(frozen=True, slots=True, eq=False)
class JoinedClient:
    """A client that has sent its node: its subscribers' group, its session, and its watch for acknowledgements."""

    node: ClientNode
    subscribers: Subscribers
    session: StreamSession
    watch: Watch


class AdsStream:
    """Reads and writes one call until it ends."""

    def __init__(
        self, call: StreamCall, principal: Principal, variant: ModuleType, clock: Clock, ack_delay: AckDelay
    ) -> None:
        """`principal` is the caller. `variant` is the module `delta` or `sotw`."""
        self.call = call
        self.principal = principal
        self.variant = variant
        self._parse: Callable[[bytes], ReceivedRequest] = parse_delta if variant is delta else parse_sotw
        self.connected_at = clock.wall()
        self.writing_since: float | None = None
        """The time at which the current write began; None while nothing is being written."""
        self.unsent = 0
        """Bytes of the message that is being written."""
        self.responses_sent = 0
        self.node = ""
        """The id that the client sent; "" until it did."""
        self.client: JoinedClient | None = None
        """The client; None until it has sent its node."""
        self._clock = clock
        self._ack_delay = ack_delay
        self._acked_at = 0.0
        self._unanswered_since: float | None = None
        """The time of the first response that the client has not answered; None if it has answered all."""
        self._outgoing: asyncio.Future[bytes] | None = None

    async def run(self, receive: Callable[[ReceivedRequest], None]) -> None:
        """Calls `receive` for each request until the peer ends the call.

        Raises what `receive` raises, and `StreamRefused` for a request that can't be parsed.
        """
        writing = asyncio.create_task(self._write(), name="adsum-xds-write")
        rate = RequestRate()
        try:
            while (request := await self.call.read()) is not None:
                received = self._parse(request)
                self._unanswered_since = None
                receive(received)
                delay = rate.delay(self._clock.now())
                if delay:
                    await self._clock.sleep(delay)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    def is_silent(self, seconds: float) -> bool:
        """Returns whether the client reads responses, but has not answered any for this long.

        A client that does not read is not silent: its stream is ended by this node, and it goes on with what it has.
        """
        since = self._unanswered_since if self.writing_since is None else None
        return since is not None and self._clock.now() - since >= seconds

    def record_assignment_ack(self) -> None:
        """Records that the client has just answered a response with assignments."""
        self._acked_at = self._clock.now()

    def flush(self) -> None:
        """Sends the next response, if there is one and no write is in progress; a write is followed by the next one."""
        if self.client is None or self._outgoing is None or self._outgoing.done():
            return
        message = self.client.session.next_response(self._clock.now())
        if message is None:
            self.acknowledge_if_current()
        else:
            self._outgoing.set_result(message)

    def acknowledge_if_current(self) -> None:
        """Acknowledges the published revision for the client's watch, if the client has acknowledged everything."""
        client = self.client
        if client is None:
            return
        watch, revision = client.watch, client.subscribers.revision
        if revision > watch.acknowledged and client.session.is_current:
            if self._clock.now() - self._acked_at >= ACK_DELAY:
                watch.acknowledge(revision)
            else:
                self._ack_delay.add(watch, revision)

    async def _write(self) -> None:
        try:
            while True:
                await self._write_next()
        except ConnectionError:
            pass  # `read` returns None, too.
        except Exception:
            _log.exception("a stream of %s failed", self.call.peer)
            self.call.cut("internal error of the registry")

    async def _write_next(self) -> None:
        self._outgoing = asyncio.get_running_loop().create_future()
        self.flush()
        message: bytes | None = await self._outgoing
        while message is not None and self.client is not None:
            self.writing_since, self.unsent = self._clock.now(), len(message)
            if self._unanswered_since is None:
                self._unanswered_since = self.writing_since
            await self.call.write(message)
            self.writing_since, self.unsent = None, 0
            self.responses_sent += 1
            message = self.client.session.next_response(self._clock.now())
