"""A source and a transport under the test's control, and short constructors of updates."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from adsum.client.errors import NodeNotConnected, RegistryUnavailable
from adsum.client.native.transport import QueryParams, TransportReply
from adsum.client.sources.source import ConnectionLost, ServiceUpdate, ViewPosition
from adsum.client.views.resolver import Resolver
from adsum.core.errors import UnknownInstance
from adsum.core.model import Endpoint, Instance, Status
from adsum.wire import (
    ConsumerView,
    LeaseBody,
    LostLease,
    OverrideBody,
    Problem,
    RegistrationBody,
    RenewalResult,
    WriteResult,
    encode,
)


def endpoint(
    id: str, status: Status = Status.PASSING, *, port: int = 80, zone: str = "", weight: int = 1, process: str = ""
) -> Endpoint:
    return Endpoint(Instance("orders", id, "10.0.0.1", port, zone=zone, weight=weight), status, process)


def full_update(revision: int, *endpoints: Endpoint, epoch: str = "e1", age: float = 0.0) -> ServiceUpdate:
    by_id = {endpoint.id: endpoint for endpoint in endpoints}
    return ServiceUpdate(ViewPosition(epoch, revision), True, by_id, age=age)


def delta_update(
    since: int, revision: int, *changed: Endpoint, removed: Sequence[str] = (), epoch: str = "e1", age: float = 0.0
) -> ServiceUpdate:
    by_id = {endpoint.id: endpoint for endpoint in changed}
    return ServiceUpdate(ViewPosition(epoch, revision), False, by_id, frozenset(removed), since=since, age=age)


def ids(resolver: Resolver) -> set[str]:
    """Returns the ids of the endpoints in the view."""
    return {endpoint.id for endpoint in resolver.view.endpoints}


class ScriptedSource:
    """Implements `Source`: sends the events that a test emits, and records every call."""

    cache_fallback_delay = 1.0

    def __init__(self) -> None:
        self.address = "10.1.2.3"
        self.goodbyes: list[Sequence[str]] = []
        """The services of each good-bye."""
        self.positions: list[ViewPosition | None] = []
        """The consumer's position at the start of each watch."""
        self.acknowledged: list[ViewPosition] = []
        """The positions of the updates that the consumer has acknowledged by requesting the next one."""
        self.open_watches = 0
        self.down = False
        self.epoch = "e1"
        self.listed: dict[tuple[str, str], RegistrationBody] = {}
        self.calls: list[str] = []
        self.overrides: list[OverrideBody] = []
        self.superseded: set[str] = set()
        self.refuse: Exception | None = None
        self.unacknowledged = 0
        self.waiting: list[ConsumerView] = []
        self.lost: list[ConsumerView] = []
        self.closed = False
        self.answering = asyncio.Event()
        """Clear: `register` lists the instance, but does not return."""
        self.answering.set()
        self._events: defaultdict[str, asyncio.Queue[ServiceUpdate | ConnectionLost | Exception | None]] = defaultdict(
            asyncio.Queue
        )

    def emit(self, *events: ServiceUpdate | ConnectionLost | Exception | None, service: str = "orders") -> None:
        """Sends events to the watch. An exception is raised there; None ends the watch."""
        for event in events:
            self._events[service].put_nowait(event)

    async def watch(
        self, service: str, position: Callable[[], ViewPosition | None]
    ) -> AsyncGenerator[ServiceUpdate | ConnectionLost, None]:
        self.positions.append(position())
        self.open_watches += 1
        try:
            while (event := await self._events[service].get()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event
                if isinstance(event, ServiceUpdate):
                    self.acknowledged.append(event.position)
        finally:
            self.open_watches -= 1

    async def register(self, service: str, id: str, body: RegistrationBody) -> WriteResult:
        self._record(f"register {id}")
        if self.refuse is not None:
            raise self.refuse
        self.listed[service, id] = body
        await self.answering.wait()
        return WriteResult(self.epoch, 1, body.ttl)

    async def renew(self, leases: Sequence[LeaseBody], node_timeout: float) -> RenewalResult:
        self._record(f"renew {' '.join(lease.id for lease in leases)}")
        lost = [LostLease(lease.service, lease.id, "superseded") for lease in leases if lease.id in self.superseded]
        lost += [
            LostLease(lease.service, lease.id, "unknown")
            for lease in leases
            if (lease.service, lease.id) not in self.listed
        ]
        return RenewalResult(self.epoch, 1, len(leases) - len(lost), lost)

    async def override(self, service: str, id: str, body: OverrideBody) -> WriteResult:
        self._record(f"override {id}")
        if (service, id) not in self.listed:
            raise UnknownInstance(service, id)
        self.overrides.append(body)
        return WriteResult(self.epoch, 2, unacknowledged=self.unacknowledged, waiting=self.waiting, lost=self.lost)

    async def deregister(self, service: str, id: str, reason: str, holder: str) -> WriteResult:
        self._record(f"deregister {id}")
        self.listed.pop((service, id), None)
        return WriteResult(self.epoch, 3)

    async def local_address(self) -> str:
        self._record("address")
        return self.address

    async def send_goodbye(self, services: Sequence[str] = ()) -> None:
        self.goodbyes.append(services)

    async def close(self) -> None:
        self.closed = True

    def _record(self, call: str) -> None:
        self.calls.append(call)
        if self.down:
            raise RegistryUnavailable("it is down")


INVISIBLE_REPLY = TransportReply(404, {}, encode(Problem("Not Found", 404, "you may not see it", reason="invisible")))
"""The answer to a request for a service that the caller may not see."""


class FakeStream:
    """A watch at a fake node: the test sends its bytes and ends it."""

    def __init__(self, node: str, params: QueryParams, headers: Mapping[str, str]) -> None:
        self.node = node
        self.params = dict(params)
        self.services = [value for name, value in params if name == "service"]
        self.since = headers.get("Last-Event-ID")
        self.closed = False
        self._chunks: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()

    def send(self, *chunks: bytes | Exception | None) -> None:
        """Sends bytes. An exception breaks the stream; None ends it."""
        for chunk in chunks:
            self._chunks.put_nowait(chunk)

    async def chunks(self) -> AsyncIterator[bytes]:
        while (chunk := await self._chunks.get()) is not None:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


class FakeTransport:
    """A fake of `native.transport.Transport`, with nodes that answer, refuse or hang."""

    def __init__(self) -> None:
        self.hanging: set[str] = set()
        """Nodes that accept connections and never answer."""
        self.refusing: set[str] = set()
        self.first_events = b""
        """The bytes that a node sends at the start of every watch."""
        self.streams: list[FakeStream] = []
        self.requests: list[tuple[str, str]] = []
        """Method and URL, without a query."""
        self.bodies: list[bytes | None] = []
        self.fresh: list[bool] = []
        """For each request, whether it was to use a new connection."""
        self.answer = TransportReply(200, {}, b"")
        self.answers: list[TransportReply] = []
        """The answers to the next requests, before `answer`."""
        self.invisible: set[str] = set()
        """Services whose watch is refused."""
        self.idle_closes = 0
        """The number of times that idle connections were closed."""

    async def close_idle(self) -> None:
        self.idle_closes += 1

    async def request(
        self,
        method: str,
        url: str,
        *,
        timeout: float,
        body: bytes | None = None,
        params: QueryParams = (),
        headers: Mapping[str, str] | None = None,
        fresh: bool = False,
    ) -> TransportReply:
        self.requests.append((method, url))
        self.fresh.append(fresh)
        self.bodies.append(body)
        await self._reach(url)
        return self.answers.pop(0) if self.answers else self.answer

    @asynccontextmanager
    async def stream(
        self,
        url: str,
        *,
        idle: float,
        params: QueryParams,
        headers: Mapping[str, str],
    ) -> AsyncIterator[tuple[TransportReply, AsyncIterator[bytes]]]:
        stream = FakeStream(url.partition("/api/")[0], params, headers)
        self.streams.append(stream)
        try:
            await self._reach(url)
            if self.invisible.intersection(stream.services):
                yield INVISIBLE_REPLY, stream.chunks()
                return
            stream.send(self.first_events)
            yield TransportReply(200, {}, b""), stream.chunks()
        finally:
            stream.closed = True

    async def _reach(self, url: str) -> None:
        if any(url.startswith(node) for node in self.refusing):
            raise NodeNotConnected("connection refused")
        if any(url.startswith(node) for node in self.hanging):
            await asyncio.Event().wait()

    async def close(self) -> None:
        pass
