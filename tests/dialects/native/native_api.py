"""Speaking to the native dialect as an ASGI server would, without a socket."""

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
from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT
from adsum.core.model import Key, Outcome
from adsum.dialects.native import Native
from adsum.keeper import Keeper
from adsum.peers.peers import Peers
from adsum.ports import Sharding, Store
from adsum.registry import Registry
from tests.support.fakes import FakeClock, FakeStore
from tests.support.observers import RecordingObserver

JSON = {"content-type": "application/json"}
WAIT_TIMEOUT = 10.0


class NoProbe:
    """Runs no checks: nothing here waits for one."""

    async def probe(self, instance: object, check: object) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    async def close(self) -> None:
        pass


@dataclass(frozen=True)
class ApiAnswer:
    """A whole answer."""

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
    """A watch as a client hears it."""

    task: asyncio.Task[None]
    unread_writes: asyncio.Queue[bytes]
    hang_up: Callable[[], None]
    start: MutableMapping[str, Any] = field(default_factory=dict)
    writes: list[bytes] = field(default_factory=list)

    async def next_group(self) -> list[WatchEvent]:
        """The events up to and with the next `synced`."""
        events: list[WatchEvent] = []
        while not events or events[-1].kind != "synced":
            events += parse_events(await self.next_write())
        return events

    async def next_write(self) -> bytes:
        """What the next write says."""
        async with asyncio.timeout(WAIT_TIMEOUT):
            text = await self.unread_writes.get()
        self.writes.append(text)
        return text

    @property
    def is_quiet(self) -> bool:
        return self.unread_writes.empty()


def parse_events(text: bytes) -> list[WatchEvent]:
    """The events in a text of whole ones; comments and `retry` are no events."""
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
    """A registry with the dialect in front of it, under a clock that stands still."""

    def __init__(
        self, store: Store | None = None, shares: Sharding | None = None, heartbeat: float = DEFAULT_HEARTBEAT
    ) -> None:
        self.clock = FakeClock()
        self.observer = RecordingObserver()
        self.store = FakeStore()
        self.registry = Registry(store or self.store, self.clock, self.observer, heartbeat)
        self.keeper = Keeper(self.registry, NoProbe(), self.clock, self.observer, Random(1), sharding=shares)
        self.outcomes: dict[str, Outcome] = {}
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
            peers=Peers(shares, self.clock, Random(1)) if shares is not None else None,
            node="n1",
        )

    def _outcomes(self, key: Key) -> Mapping[str, Outcome]:
        return self.outcomes

    async def request(
        self, method: str, target: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> ApiAnswer:
        """Ask and hear the whole answer; a body that isn't bytes goes as JSON."""
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        given = dict(headers or {})
        if body is not None and headers is None:
            given |= JSON
        messages: list[MutableMapping[str, Any]] = [{"type": "http.request", "body": raw, "more_body": False}]
        forever = asyncio.Event()

        async def receive() -> MutableMapping[str, Any]:
            if messages:
                return messages.pop()
            await forever.wait()
            raise AssertionError

        said: list[Mapping[str, Any]] = []

        async def send(message: Mapping[str, Any]) -> None:
            said.append(message)

        async with asyncio.timeout(WAIT_TIMEOUT):
            await self.native(_scope(method, target, given), receive, send)
        start, *bodies = said
        names = {name.decode(): value.decode() for name, value in start["headers"]}
        return ApiAnswer(start["status"], names, b"".join(each["body"] for each in bodies))

    @asynccontextmanager
    async def watch(
        self, query: str = "", headers: Mapping[str, str] | None = None, state: Mapping[str, Any] | None = None
    ) -> AsyncIterator[OpenWatch]:
        """An open watch. `state`: what a server would offer beyond ASGI."""
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        gone = asyncio.Event()

        async def receive() -> MutableMapping[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                listening.start.update(message)
            else:
                heard.put_nowait(message["body"])

        scope = _scope("GET", f"/api/v1/watch{query}", headers or {})
        scope["state"] = dict(state or {})
        listening = OpenWatch(asyncio.create_task(self.native(scope, receive, send)), heard, gone.set)
        try:
            yield listening
        finally:
            gone.set()
            async with asyncio.timeout(WAIT_TIMEOUT):
                await listening.task

    async def register(self, service: str, id: str, **body: object) -> ApiAnswer:
        """Register an instance."""
        heard = await self.request("PUT", f"/api/v1/services/{service}/instances/{id}", {"port": 8000, **body})
        assert heard.status in (200, 201), heard.body
        return heard

    async def deregister(self, service: str, id: str, query: str = "") -> ApiAnswer:
        """Deregister an instance."""
        heard = await self.request("DELETE", f"/api/v1/services/{service}/instances/{id}{query}")
        assert heard.status == 200, heard.body
        return heard


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
