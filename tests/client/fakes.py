"""A source and a transport under the test's control, and short ways to make what they say."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from adsum.client.errors import NodeNotConnected, RegistryUnavailable
from adsum.client.native.transport import QueryParams, TransportReply
from adsum.client.sources.source import ConnectionLost, ServiceUpdate, ViewPosition
from adsum.core.errors import UnknownInstance
from adsum.core.model import Endpoint, Instance, Status
from adsum.wire import ConsumerView, LeaseBody, LostLease, OverrideBody, RegistrationBody, RenewalResult, WriteResult


def endpoint(
    id: str, status: Status = Status.PASSING, *, port: int = 80, zone: str = "", weight: int = 1, process: str = ""
) -> Endpoint:
    return Endpoint(Instance("orders", id, "10.0.0.1", port, zone=zone, weight=weight), status, process)


def full_update(revision: int, *endpoints: Endpoint, epoch: str = "e1", age: float = 0.0) -> ServiceUpdate:
    return ServiceUpdate(ViewPosition(epoch, revision), True, {each.id: each for each in endpoints}, age=age)


def delta_update(
    since: int, revision: int, *changed: Endpoint, gone: Sequence[str] = (), epoch: str = "e1", age: float = 0.0
) -> ServiceUpdate:
    return ServiceUpdate(
        ViewPosition(epoch, revision), False, {each.id: each for each in changed}, frozenset(gone), since=since, age=age
    )


class ScriptedSource:
    """Implements `ports.Source`: says what it is told to say, and remembers what it was asked."""

    cache_fallback_delay = 1.0

    def __init__(self) -> None:
        self.address = "10.1.2.3"
        self.goodbyes: list[Sequence[str]] = []
        """The services of each good-bye."""
        self.positions: list[ViewPosition | None] = []
        """What the consumer knew each time a watch began."""
        self.applied: list[ViewPosition] = []
        """The groups after which more was asked for."""
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
        """Clear: what is registered is in the catalog, and its answer on the way."""
        self.answering.set()
        self._said: defaultdict[str, asyncio.Queue[ServiceUpdate | ConnectionLost | Exception | None]] = defaultdict(
            asyncio.Queue
        )

    def emit(self, *events: ServiceUpdate | ConnectionLost | Exception | None, service: str = "orders") -> None:
        """An exception is raised, None ends the watch."""
        for event in events:
            self._said[service].put_nowait(event)

    async def watch(
        self, service: str, position: Callable[[], ViewPosition | None]
    ) -> AsyncGenerator[ServiceUpdate | ConnectionLost, None]:
        self.positions.append(position())
        self.open_watches += 1
        try:
            while (event := await self._said[service].get()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event
                if isinstance(event, ServiceUpdate):
                    self.applied.append(event.position)
        finally:
            self.open_watches -= 1

    async def register(self, service: str, id: str, body: RegistrationBody) -> WriteResult:
        self._ask(f"register {id}")
        if self.refuse is not None:
            raise self.refuse
        self.listed[service, id] = body
        await self.answering.wait()
        return WriteResult(self.epoch, 1, body.ttl)

    async def renew(self, leases: Sequence[LeaseBody], node_timeout: float) -> RenewalResult:
        self._ask(f"renew {' '.join(lease.id for lease in leases)}")
        lost = [LostLease(lease.service, lease.id, "superseded") for lease in leases if lease.id in self.superseded]
        lost += [
            LostLease(lease.service, lease.id, "unknown")
            for lease in leases
            if (lease.service, lease.id) not in self.listed
        ]
        return RenewalResult(self.epoch, 1, len(leases) - len(lost), lost)

    async def override(self, service: str, id: str, body: OverrideBody) -> WriteResult:
        self._ask(f"override {id}")
        if (service, id) not in self.listed:
            raise UnknownInstance(service, id)
        self.overrides.append(body)
        return WriteResult(self.epoch, 2, unacknowledged=self.unacknowledged, waiting=self.waiting, lost=self.lost)

    async def deregister(self, service: str, id: str, reason: str, holder: str) -> WriteResult:
        self._ask(f"deregister {id}")
        self.listed.pop((service, id), None)
        return WriteResult(self.epoch, 3)

    async def local_address(self) -> str:
        self._ask("address")
        return self.address

    async def send_goodbye(self, services: Sequence[str] = ()) -> None:
        self.goodbyes.append(services)

    async def close(self) -> None:
        self.closed = True

    def _ask(self, call: str) -> None:
        self.calls.append(call)
        if self.down:
            raise RegistryUnavailable("it is down")


class FakeStream:
    """A watch at a fake node: the test says what comes over it, and when it ends."""

    def __init__(self, node: str, params: QueryParams, headers: Mapping[str, str]) -> None:
        self.node = node
        self.params = dict(params)
        self.since = headers.get("Last-Event-ID")
        self.closed = False
        self._chunks: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()

    def send(self, *chunks: bytes | Exception | None) -> None:
        """An exception breaks the stream, None ends it."""
        for chunk in chunks:
            self._chunks.put_nowait(chunk)

    async def chunks(self) -> AsyncIterator[bytes]:
        while (chunk := await self._chunks.get()) is not None:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


class FakeTransport:
    """Stands for `transport.Transport`: nodes that answer, refuse, or hang."""

    def __init__(self) -> None:
        self.hanging: set[str] = set()
        """Nodes that accept connections and never answer."""
        self.refusing: set[str] = set()
        self.first_events = b""
        """What a node says first on every watch."""
        self.streams: list[FakeStream] = []
        self.requests: list[tuple[str, str]] = []
        """Method and URL, without a query."""
        self.bodies: list[bytes | None] = []
        self.fresh: list[bool] = []
        """Which requests were to go over a new connection."""
        self.answer = TransportReply(200, {}, b"")
        self.idle_closes = 0
        """How often idle connections were dropped."""

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
        return self.answer

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
