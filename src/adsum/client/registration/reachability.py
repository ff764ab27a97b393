"""Checks from this host whether a TCP port accepts connections."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

REACHABILITY_TIMEOUT: Final = 1.0
"""Seconds that an address has to accept a connection; then it counts as unreachable."""


async def is_reachable(address: str, port: int) -> bool:
    """Returns whether the address accepts a connection on this port. The connection is closed at once."""
    try:
        async with asyncio.timeout(REACHABILITY_TIMEOUT):
            _, writer = await asyncio.open_connection(address, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True
