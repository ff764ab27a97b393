"""Waits for what another thread, process or node does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

WAIT_TIMEOUT: Final = 30.0
"""Seconds after which a condition counts as never true, and the test fails."""
LOOK_INTERVAL: Final = 0.01
"""Seconds between two looks at a condition that no event reports."""


async def until(condition: Callable[[], object]) -> None:
    """Returns once the condition is true. Raises `TimeoutError`."""
    async with asyncio.timeout(WAIT_TIMEOUT):
        while not condition():  # noqa: ASYNC110 - no event reports what others do
            await asyncio.sleep(LOOK_INTERVAL)
