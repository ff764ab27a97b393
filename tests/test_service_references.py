"""References to services."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from adsum.core.catalog import declarations
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.documents import DocumentKey, DocumentKind
from adsum.registry import Registry
from adsum.service_references import ServiceReferences
from tests.support.fakes import FakeClock, FakeStore
from tests.support.observers import RecordingObserver

CALLER = Caller("tester", 0.0)


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    registry = Registry(FakeStore(), FakeClock(), RecordingObserver())
    await registry.start()
    yield registry
    await registry.stop()


async def test_routes_upstreams_and_consumers_reference_services(registry: Registry) -> None:
    route, upstream = DocumentKey(DocumentKind.ROUTE, "r"), DocumentKey(DocumentKind.UPSTREAM, "pay")
    to = b'{"to":[{"service":"orders"}],"mirror":{"to":{"service":"copies"}}}'
    await registry.write(declarations.declare(route, to, CALLER))
    await registry.write(declarations.declare(upstream, b"{}", CALLER))
    references = ServiceReferences(registry, lambda service: service == "calls")
    services = ["orders", "copies", "pay", "users", "calls", "nobody"]
    with registry.watches.open(frozenset({"users"})), registry.watches.open(None):
        assert await references.referenced(services) == {"orders", "copies", "pay", "users", "calls"}
    await registry.write(declarations.withdraw(route, "", CALLER))
    assert await references.referenced(services) == {"pay", "calls"}
