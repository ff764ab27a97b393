"""Whether somebody answers at a place, as far as this host can tell."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

REACHABILITY_TIMEOUT: Final = 1.0
"""Seconds that a place has to take a connection; then nobody answers there."""


async def is_reachable(address: str, port: int) -> bool:
    """Whether the place takes a connection, which is closed at once."""
    try:
        async with asyncio.timeout(REACHABILITY_TIMEOUT):
            _, writer = await asyncio.open_connection(address, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True
