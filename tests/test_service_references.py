"""Which services somebody names."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from adsum.core.catalog import declarations
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.documents import DocumentKind, Title
from adsum.registry import Registry
from adsum.service_references import Mentions
from tests.support.fakes import FakeClock, FakeStore
from tests.support.observers import Recorder

CALLER = Caller("tester", 0.0)


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    registry = Registry(FakeStore(), FakeClock(), Recorder())
    await registry.start()
    yield registry
    await registry.stop()


async def test_routes_upstreams_and_consumers_name_services(registry: Registry) -> None:
    route, upstream = Title(DocumentKind.ROUTE, "r"), Title(DocumentKind.UPSTREAM, "pay")
    to = b'{"to":[{"service":"orders"}],"mirror":{"to":{"service":"copies"}}}'
    await registry.write(declarations.declared(route, to, CALLER))
    await registry.write(declarations.declared(upstream, b"{}", CALLER))
    mentions = Mentions(registry, lambda service: service == "calls")
    asked = ["orders", "copies", "pay", "users", "calls", "nobody"]
    with registry.watches.open(frozenset({"users"})), registry.watches.open(None):
        assert await mentions.of(asked) == {"orders", "copies", "pay", "users", "calls"}
    await registry.write(declarations.withdrawn(route, "", CALLER))
    assert await mentions.of(asked) == {"pay", "calls"}
