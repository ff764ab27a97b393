from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.dialects.native.native_api import NativeApi
from tests.support.fakes import FakeSharding


@pytest.fixture
async def spoken() -> AsyncIterator[NativeApi]:
    """A registry that runs, with the native dialect in front of it."""
    spoken = NativeApi()
    await spoken.registry.start()
    yield spoken
    await spoken.registry.stop()


@pytest.fixture
async def sharing() -> AsyncIterator[NativeApi]:
    """One of several nodes: it keeps `orders`, and who keeps `users` can't be asked just now."""
    spoken = NativeApi(shares=FakeSharding("orders"))
    await spoken.registry.start()
    await spoken.register("orders", "o1", ttl=10)
    await spoken.register("users", "u1", ttl=10)
    yield spoken
    await spoken.registry.stop()
