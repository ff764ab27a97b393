"""A registry with xDS whose clock stands still, and calls of clients."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from random import Random
from typing import Any

from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest

from adsum.access.control import AccessControl
from adsum.core.access.scopes import EVERYTHING, Scopes
from adsum.core.catalog import decisions
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.model import Instance, Registration
from adsum.dialects.xds.xds import Xds
from adsum.gateway.intent.intent import NO_INTENT, Intent
from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources.compiled_resources import CompiledResources
from adsum.registry import Registry
from tests.dialects.xds.fakes import CDS, EDS, FakeCompiled, ReceivedResponse, decode
from tests.support.fakes import FakeClock, FakeStore, run_until_idle
from tests.support.observers import RecordingObserver
from tests.support.tokens import declare_token

CALLER = Caller("tester", 0.0)
ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService"


class FakeStreamCall:
    """A call whose peer sends what the test sends; it reads only while `can_write` is set."""

    peer = "192.0.2.1:1234"
    certificate = b""

    def __init__(self, serve: Any, token: str = "") -> None:
        self.metadata = {"authorization": f"Bearer {token}"} if token else {}
        self.received: list[ReceivedResponse] = []
        self.ended = ""
        self.can_write = asyncio.Event()
        self.can_write.set()
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._task = asyncio.create_task(serve(self))

    async def read(self) -> bytes | None:
        return await self._requests.get()

    async def write(self, message: bytes) -> None:
        await self.can_write.wait()
        self.received.append(decode(message, delta=True))

    def refuse(self, code: str, message: str) -> None:
        self.ended = self.ended or f"{code}: {message}"

    def cut(self, reason: str) -> None:
        self.ended = self.ended or f"cut: {reason}"
        self._task.cancel()

    async def close(self) -> None:
        self._requests.put_nowait(None)
        with suppress(asyncio.CancelledError):
            await self._task

    def send(self, request: Any) -> None:
        self.send_bytes(request.SerializeToString())

    def send_bytes(self, request: bytes) -> None:
        self._requests.put_nowait(request)

    async def request(
        self,
        kind: Any,
        *names: str,
        node: str = "",
        agent: str = "envoy",
        listen: str = "127.0.0.1:8080",
        error: str = "",
        **more: Any,
    ) -> None:
        request = DeltaDiscoveryRequest(type_url=kind.value, resource_names_subscribe=names, **more)
        if node:
            request.node.id, request.node.user_agent_name = node, agent
            request.node.metadata.update(GatewayProfile(listen=(listen,)).metadata())
        if error:
            request.error_detail.message = error
        self.send(request)
        await run_until_idle()

    async def ack(self, error: str = "") -> None:
        """Answers the last response."""
        last = self.received[-1]
        await self.request(last.kind, response_nonce=last.nonce, error=error)

    async def connect(self, node: str = "gw1") -> None:
        await self.request(CDS, node=node)
        await self.ack()
        await self.request(EDS, "orders")
        await self.ack()


class StreamsWorld:
    """A registry with xDS, under a clock that stands still."""

    def __init__(
        self,
        anonymous: Scopes = EVERYTHING,
        compiled: CompiledResources | None = None,
        store: FakeStore | None = None,
    ) -> None:
        """`anonymous`: the scopes of callers that prove nothing. `compiled`: fake resources by default."""
        self.clock = FakeClock()
        self.store = store or FakeStore()
        self.registry = Registry(self.store, self.clock, RecordingObserver())
        self.is_failing = False
        self.refused: list[tuple[str, str]] = []
        """The operation and the reason of each refusal of access control."""
        self.access = AccessControl(
            self.registry, self.clock, anonymous, lambda operation, reason: self.refused.append((operation, reason))
        )
        self.xds = Xds(
            self.registry,
            self.clock,
            Random(1),
            self.access,
            compiled=compiled or FakeCompiled(),
            intent=self._intent,
            refusal=lambda ip: "not there" if ip.startswith("10.") else None,
        )
        self.calls: list[FakeStreamCall] = []

    def _intent(self, snapshot: Snapshot) -> Intent:
        if self.is_failing:
            raise ValueError("this can't be compiled")
        return NO_INTENT

    def call(self, token: str = "", method: str = f"{ADS}/DeltaAggregatedResources") -> FakeStreamCall:
        self.calls.append(FakeStreamCall(self.xds.methods[method], token))
        return self.calls[-1]

    async def register(self, id: str, service: str = "orders", address: str = "127.0.0.1") -> int:
        instance = Instance(service, id, address, 1_000 + len(id))
        return await self.write(decisions.register(Registration(instance), CALLER))

    async def write(self, decision: Any) -> int:
        revision = await self.registry.write(decision)
        await self.settle()
        return revision

    async def declare(self, name: str, *scopes: str, expires: float | None = None) -> str:
        """Declares a token. Returns it as its holder keeps it."""
        token = await declare_token(self.registry, name, *scopes, expires=expires)
        await self.settle()
        return token

    async def settle(self) -> None:
        """Waits until the newest snapshot is published: the registry coalesces the wake-ups of a burst."""
        await run_until_idle()
        await asyncio.sleep(0.03)
        await run_until_idle()

    async def unacknowledged(self, service: str, revision: int, wait: float) -> int:
        """Returns how many consumers have not acknowledged the revision after `wait` seconds."""
        return len((await self.registry.watches.consumers.wait_for_acknowledgements(service, revision, wait)).waiting)

    def acknowledged(self) -> Mapping[str, int]:
        return {status.node: status.revision for status in self.xds.streams.statuses()}
