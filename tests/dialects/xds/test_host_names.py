"""Host names of instances: looked up regularly, and kept when a look-up fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random
from types import MappingProxyType

import pytest

from adsum.core.catalog import snapshots
from adsum.core.catalog.changes import Batch, Change, FullState
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.model import Instance, Key, Listing, Registration
from adsum.core.provenance import Cause, Provenance
from adsum.dialects.xds import host_names
from adsum.dialects.xds.host_names import REFRESH_INTERVAL, RETRY_INTERVAL, HostNameResolver
from tests.support.fakes import FakeClock, run_until_idle

PROVENANCE = Provenance(Cause.REGISTERED, "tester")


class HostNameWorld:
    """A resolver with fake answers, and the snapshot that it follows."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.answers: dict[str, list[str]] = {}
        self.looked_up: list[str] = []
        self.changes = 0
        self.snapshot = snapshots.load_snapshot(FullState("e", 0, []))
        self.resolver = HostNameResolver(
            self.clock, Random(1), lambda ip: "not there" if ip.startswith("10.") else None, self._changed
        )

    def _changed(self) -> None:
        self.changes += 1

    async def look_up(self, name: str) -> list[str]:
        self.looked_up.append(name)
        if name not in self.answers:
            raise OSError("nobody knows")
        return self.answers[name]

    async def list(self, id: str, address: str | None, service: str = "orders") -> None:
        """Registers an instance at this address, or deregisters it (None)."""
        listing = Listing(Registration(Instance(service, id, address, 80)), PROVENANCE) if address else None
        batch = Batch(self.snapshot.revision + 1, [Change(Key(service, id), listing, PROVENANCE)])
        await self.follow(self.snapshot.apply(batch))

    async def follow(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.resolver.follow(snapshot)
        await run_until_idle()


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HostNameWorld]:
    found = HostNameWorld()
    monkeypatch.setattr(host_names, "look_up", found.look_up)
    yield found
    await found.resolver.close()


async def test_names_are_looked_up_when_they_appear_and_addresses_never(world: HostNameWorld) -> None:
    world.answers = {"a.example": ["192.0.2.1", "192.0.2.2"]}
    await world.list("a", "a.example")
    await world.list("b", "192.0.2.9")
    await world.list("c", "2001:db8::1")
    assert world.looked_up == ["a.example"]
    assert world.resolver.addresses == {"a.example": "192.0.2.1"}
    assert world.changes == 1


async def test_a_failed_look_up_keeps_the_last_address(world: HostNameWorld) -> None:
    world.answers = {"a.example": ["192.0.2.1"]}
    await world.list("a", "a.example")
    world.answers = {}
    await world.clock.advance(3 * REFRESH_INTERVAL)
    assert len(world.looked_up) > 2
    assert world.resolver.addresses == {"a.example": "192.0.2.1"}
    assert world.changes == 1


async def test_an_address_stays_while_it_is_among_the_answers(world: HostNameWorld) -> None:
    world.answers = {"a.example": ["192.0.2.1", "192.0.2.2"]}
    await world.list("a", "a.example")
    world.answers = {"a.example": ["192.0.2.2", "192.0.2.1"]}
    await world.clock.advance(2 * REFRESH_INTERVAL)
    assert world.resolver.addresses == {"a.example": "192.0.2.1"}
    world.answers = {"a.example": ["192.0.2.3"]}
    before = world.resolver.addresses
    await world.clock.advance(2 * REFRESH_INTERVAL)
    assert world.resolver.addresses == {"a.example": "192.0.2.3"}
    assert world.resolver.addresses is not before, "an address table is never changed in place"


async def test_a_name_without_an_address_is_looked_up_again_soon(world: HostNameWorld) -> None:
    await world.list("a", "a.example")
    assert world.resolver.addresses == {}
    world.answers = {"a.example": ["192.0.2.1"]}
    await world.clock.advance(2 * RETRY_INTERVAL)
    assert world.resolver.addresses == {"a.example": "192.0.2.1"}


async def test_denied_addresses_are_ignored(world: HostNameWorld) -> None:
    world.answers = {"a.example": ["10.0.0.1", "fe80::1%eth0", "192.0.2.5"], "b.example": ["10.0.0.1"]}
    await world.list("a", "a.example")
    await world.list("b", "b.example")
    assert world.resolver.addresses == {"a.example": "192.0.2.5"}


async def test_names_of_deregistered_instances_are_dropped(world: HostNameWorld) -> None:
    world.answers = {"a.example": ["192.0.2.1"], "b.example": ["192.0.2.2"]}
    await world.list("a", "a.example")
    await world.list("a", "a.example", "users")
    await world.list("b", "b.example")
    await world.list("a", None)
    assert set(world.resolver.addresses) == {"a.example", "b.example"}, "users has an instance with it, too"
    await world.list("a", None, "users")
    assert set(world.resolver.addresses) == {"b.example"}
    before = len(world.looked_up)
    await world.clock.advance(1.5 * REFRESH_INTERVAL)
    assert set(world.looked_up[before:]) == {"b.example"}


async def test_names_are_those_of_the_current_epoch(world: HostNameWorld) -> None:
    world.answers = {"a.example": ["192.0.2.1"]}
    await world.list("a", "a.example")
    await world.follow(Snapshot("e2", 0, MappingProxyType({}), 0, 0))
    assert world.resolver.addresses == {}
