from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.dialects.speaking import Spoken


@pytest.fixture
async def spoken() -> AsyncIterator[Spoken]:
    """A registry that runs, with the native dialect in front of it."""
    spoken = Spoken()
    await spoken.registry.start()
    yield spoken
    await spoken.registry.stop()
