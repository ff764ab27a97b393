from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.dialects.native.native_api import NativeApi
from tests.support.fakes import FakeSharding


@pytest.fixture
async def api() -> AsyncIterator[NativeApi]:
    """A running registry with the native dialect."""
    api = NativeApi()
    await api.registry.start()
    yield api
    await api.registry.stop()


@pytest.fixture
async def sharded_api() -> AsyncIterator[NativeApi]:
    """One of several nodes. It keeps `orders`; no node keeps `users`."""
    api = NativeApi(sharding=FakeSharding("orders"))
    await api.registry.start()
    await api.register("orders", "o1", ttl=10)
    await api.register("users", "u1", ttl=10)
    yield api
    await api.registry.stop()
