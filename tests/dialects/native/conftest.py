from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.dialects.native.native_api import Spoken
from tests.support.fakes import FakeShares


@pytest.fixture
async def spoken() -> AsyncIterator[Spoken]:
    """A registry that runs, with the native dialect in front of it."""
    spoken = Spoken()
    await spoken.registry.start()
    yield spoken
    await spoken.registry.stop()


@pytest.fixture
async def sharing() -> AsyncIterator[Spoken]:
    """One of several nodes: it keeps `orders`, and who keeps `users` can't be asked just now."""
    spoken = Spoken(shares=FakeShares("orders"))
    await spoken.registry.start()
    await spoken.put("orders", "o1", ttl=10)
    await spoken.put("users", "u1", ttl=10)
    yield spoken
    await spoken.registry.stop()
