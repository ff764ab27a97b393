"""The native dialect in the test process: requests as an ASGI server makes them, without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import unquote

from adsum import wire
from adsum.access.authority import AuthorityService
from adsum.access.control import AccessControl
from adsum.access.registry_addresses import RegistryAddresses
from adsum.core.access.scopes import EVERYTHING, Scopes
from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT
from adsum.core.model import Key, Outcome
from adsum.dialects.native import Native
from adsum.dialects.native.asgi import Headers
from adsum.dialects.native.brief.service_reads import EncodedReply
from adsum.dialects.native.ports import OtherNodes
from adsum.keeper import Keeper
from adsum.peers.peers import Peers
from adsum.ports import CLIENT_CERTIFICATE, Sharding, Store
from adsum.registry import Registry
from tests.support.fakes import FakeClock, FakeStore
from tests.support.observers import RecordingObserver

JSON = {"content-type": "application/json"}
WAIT_TIMEOUT = 10.0


class NoProbe:
    """A probe that never ends: no test here waits for a check."""

    async def probe(self, instance: object, check: object) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    async def close(self) -> None:
        pass


@dataclass(frozen=True)
class ApiResult:
    """A whole response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class WatchEvent:
    """One Server-Sent Event."""

    kind: str
    data: Any
    id: str = ""


@dataclass
class OpenWatch:
    """A watch, as its client sees it."""

    task: asyncio.Task[None]
    unread_writes: asyncio.Queue[bytes]
    hang_up: Callable[[], None]
    start: MutableMapping[str, Any] = field(default_factory=dict)
    writes: list[bytes] = field(default_factory=list)

    async def next_group(self) -> list[WatchEvent]:
        """Returns the events up to and including the next `synced`."""
        events: list[WatchEvent] = []
        while not events or events[-1].kind != "synced":
            events += parse_events(await self.next_write())
        return events

    async def next_write(self) -> bytes:
        """Returns the bytes of the next write."""
        async with asyncio.timeout(WAIT_TIMEOUT):
            text = await self.unread_writes.get()
        self.writes.append(text)
        return text

    @property
    def is_quiet(self) -> bool:
        return self.unread_writes.empty()


class FakeChunks:
    """A `ChunkSender` that keeps what is written."""

    def __init__(self, written: list[bytes]) -> None:
        self.written = written
        self.is_closed = False

    def __call__(self, data: bytes) -> bool:
        if not self.is_closed:
            self.written.append(data)
        return not self.is_closed

    def close(self) -> None:
        self.is_closed = True


def parse_events(text: bytes) -> list[WatchEvent]:
    """Returns the events in a text of whole events. Comments and `retry` are none."""
    assert text.endswith(b"\n\n")
    events = []
    for block in text.decode().removesuffix("\n\n").split("\n\n"):
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(": ")
            assert name not in fields
            fields[name] = value
        assert fields.keys() <= {"event", "data", "id", "retry", ""}
        if "event" in fields:
            events.append(WatchEvent(fields["event"], json.loads(fields["data"]), fields.get("id", "")))
    return events


class NativeApi:
    """A registry with the native dialect. Its clock stands still."""

    def __init__(
        self,
        store: Store | None = None,
        sharding: Sharding | None = None,
        heartbeat: float = DEFAULT_HEARTBEAT,
        anonymous: Scopes = EVERYTHING,
        authority: AuthorityService | None = None,
        peers: OtherNodes | None = None,
    ) -> None:
        """`anonymous`: the scopes of callers that prove nothing. `authority`: that of the registry, if it has one.

        `peers`: the other nodes; None for those of `sharding`.
        """
        self.clock = FakeClock()
        self.observer = RecordingObserver()
        self.store = FakeStore()
        self.registry = Registry(store or self.store, self.clock, self.observer, heartbeat)
        self.keeper = Keeper(self.registry, NoProbe(), self.clock, self.observer, Random(1), sharding=sharding)
        self.outcomes: dict[str, Outcome] = {}
        self.refusals: list[tuple[str, str]] = []
        """The operation and the reason of each refusal of access control."""
        self.access = AccessControl(
            self.registry, self.clock, anonymous, lambda operation, reason: self.refusals.append((operation, reason))
        )
        self.addresses = RegistryAddresses(["https://10.0.0.5:23786", "https://[fd00::1]:23786"], ["10.0.0.5:23787"])
        self.native = Native(
            self.registry,
            self.keeper,
            self.clock,
            self.observer,
            Random(1),
            check_address=lambda address: None,
            latest_outcomes=self._outcomes,
            status=lambda: wire.NodeStatus("n", "0", True, "e", 1, "memory:", 0.0, 0.0),
            exposition=lambda: b"adsum_up 1\n",
            access=self.access,
            authority=authority,
            addresses=lambda: self.addresses,
            peers=peers or (Peers(sharding, self.clock, Random(1)) if sharding is not None else None),
            node="n1",
        )

    def fast_path(self, target: bytes, headers: Headers = (), certificate: bytes = b"") -> EncodedReply | None:
        """Returns the response of the fast path to a GET, None if it has none."""
        replies = self.answers("GET", target, b"", headers, certificate)
        return replies[0] if replies else None

    def answers(
        self, method: str, target: bytes, body: bytes = b"", headers: Headers = (), certificate: bytes = b""
    ) -> list[EncodedReply] | None:
        """Has the fast path answer a request. Returns the list that gets the response, None if it does not answer.

        A response with the status 0 stands for the application, which must answer after all.
        """
        replies: list[EncodedReply] = []
        path = self.native.fast_path
        prepared = path.prepare(headers, certificate)

        def reply(status: int | None, encoded: bytes) -> None:
            replies.append(EncodedReply(status or 0, encoded))

        return replies if path.answer(method.encode(), target, prepared, body, "10.1.2.3", reply) else None

    def _outcomes(self, key: Key) -> Mapping[str, Outcome]:
        return self.outcomes

    async def request(
        self,
        method: str,
        target: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        certificate: bytes = b"",
    ) -> ApiResult:
        """Sends a request. Returns the whole response. A body that is not bytes is sent as JSON.

        `certificate`: the verified client certificate of the connection.
        """
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent_headers = dict(headers or {})
        if body is not None and headers is None:
            sent_headers |= JSON
        messages: list[MutableMapping[str, Any]] = [{"type": "http.request", "body": raw, "more_body": False}]
        forever = asyncio.Event()

        async def receive() -> MutableMapping[str, Any]:
            if messages:
                return messages.pop()
            await forever.wait()
            raise AssertionError

        sent: list[Mapping[str, Any]] = []

        async def send(message: Mapping[str, Any]) -> None:
            sent.append(message)

        async with asyncio.timeout(WAIT_TIMEOUT):
            scope = _scope(method, target, sent_headers)
            scope["state"] = {CLIENT_CERTIFICATE: certificate} if certificate else {}
            await self.native(scope, receive, send)
        start, *bodies = sent
        names = {name.decode(): value.decode() for name, value in start["headers"]}
        return ApiResult(start["status"], names, b"".join(message["body"] for message in bodies))

    @asynccontextmanager
    async def watch(
        self,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        state: Mapping[str, Any] | None = None,
        readable: asyncio.Event | None = None,
    ) -> AsyncIterator[OpenWatch]:
        """An open watch. `state`: the extensions of ASGI that the server offers. `readable`: set while writes end."""
        writes: asyncio.Queue[bytes] = asyncio.Queue()
        gone = asyncio.Event()

        async def receive() -> MutableMapping[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                watch.start.update(message)
            else:
                writes.put_nowait(message["body"])
                if readable is not None:
                    await readable.wait()

        scope = _scope("GET", f"/api/v1/watch{query}", headers or {})
        scope["state"] = dict(state or {})
        watch = OpenWatch(asyncio.create_task(self.native(scope, receive, send)), writes, gone.set)
        try:
            yield watch
        finally:
            gone.set()
            async with asyncio.timeout(WAIT_TIMEOUT):
                await watch.task

    async def register(self, service: str, id: str, **body: object) -> ApiResult:
        """Registers an instance."""
        response = await self.request("PUT", f"/api/v1/services/{service}/instances/{id}", {"port": 8000, **body})
        assert response.status in (200, 201), response.body
        return response

    async def deregister(self, service: str, id: str, query: str = "") -> ApiResult:
        """Deregisters an instance."""
        response = await self.request("DELETE", f"/api/v1/services/{service}/instances/{id}{query}")
        assert response.status == 200, response.body
        return response


def _scope(method: str, target: str, headers: Mapping[str, str]) -> MutableMapping[str, Any]:
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "method": method,
        "path": unquote(path),
        "raw_path": path.encode("ascii"),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("10.1.2.3", 5555),
    }
