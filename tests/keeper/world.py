"""A registry and its keeper under a fake clock, for tests."""

from __future__ import annotations

from collections.abc import Collection
from random import Random
from zlib import crc32

from adsum.core.catalog import decisions
from adsum.core.catalog.decisions import Caller
from adsum.core.errors import ProbeUnavailable
from adsum.core.liveness.guard import Guard
from adsum.core.model import Check, Instance, Key, Listing, Outcome, Override, Registration, Result, Status
from adsum.core.provenance import Cause
from adsum.keeper import Keeper
from adsum.registry import Registry
from tests.support.fakes import FakeClock, FakeSharding, FakeStore
from tests.support.observers import RecordingObserver

CALLER = Caller("tester", 0.0)


class ScriptedProbe:
    """Returns the result in `results` for the id of the instance, after `took` seconds."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.results: dict[str, Result] = {}
        self.took = 0.0
        self.unavailable: ProbeUnavailable | None = None
        self.starts: list[tuple[float, Key]] = []
        self.running = 0
        self.max_running = 0

    async def probe(self, instance: Instance, check: Check) -> Outcome:
        self.starts.append((self._clock.now(), instance.key))
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        try:
            await self._clock.sleep(self.took)
            if self.unavailable is not None:
                raise self.unavailable
            result = self.results.get(instance.id, Result.PASS)
            return Outcome(result, f"{result} on port {instance.port}", self.took)
        finally:
            self.running -= 1

    async def close(self) -> None:
        pass


class KeeperWorld:
    """One node over a store, which can be reused by another one."""

    def __init__(
        self,
        store: FakeStore | None = None,
        clock: FakeClock | None = None,
        *,
        sharding: FakeSharding | None = None,
        max_probes: int = 256,
    ) -> None:
        self.store = store or FakeStore()
        self.clock = clock or FakeClock()
        self.observer = RecordingObserver()
        self.registry = Registry(self.store, self.clock, self.observer)
        self.probe = ScriptedProbe(self.clock)
        self.referenced: set[str] = set()
        """The services that are referenced."""
        self.keeper = Keeper(
            self.registry,
            self.probe,
            self.clock,
            self.observer,
            Random(1),
            sharding=sharding,
            guard=Guard(),
            max_probes=max_probes,
            find_referenced=self._find_referenced,
        )

    async def _find_referenced(self, services: Collection[str]) -> set[str]:
        return self.referenced & set(services)

    async def __aenter__(self) -> KeeperWorld:
        await self.registry.start()
        await self.keeper.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.keeper.stop()
        await self.registry.stop()

    async def register(
        self,
        id: str,
        service: str = "orders",
        *,
        ttl: float | None = 30.0,
        grace: float = 60.0,
        checks: tuple[Check, ...] = (),
        holder: str = "",
        port: int = 8000,
        address: str = "",
    ) -> Key:
        """Registers an instance. Without an address it has one that no other instance has."""
        number = crc32(f"{service}/{id}".encode())
        address = address or f"127.{number & 255}.{number >> 8 & 255}.{number >> 16 & 255}"
        registration = Registration(Instance(service, id, address, port), ttl, grace, checks, holder)
        await self.registry.write(decisions.register(registration, CALLER))
        return registration.key

    async def deregister(self, key: Key) -> None:
        await self.registry.write(decisions.deregister(key, "", "", CALLER))

    async def override(self, key: Key, length: float | None, reason: str = "") -> None:
        override = Override(Status.MAINTENANCE, "tester", reason, length)
        await self.registry.write(decisions.set_override(key, override, "", CALLER))

    def find(self, key: Key) -> Listing | None:
        return self.registry.snapshot.find(key)

    def status(self, key: Key) -> Status | None:
        listing = self.find(key)
        return listing.status if listing is not None else None

    def causes(self, key: Key) -> list[Cause]:
        return [change.provenance.cause for change in self.store.changes if change.key == key]

    def reason(self, key: Key) -> str:
        """The reason of the last change."""
        return [change.provenance.reason for change in self.store.changes if change.key == key][-1]
