"""Is there anybody where the registry should be?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Final

from adsum.core.backoff import jittered
from adsum.envoy.plan import Place

ANSWER: Final = 1.0
"""Seconds that a node has to accept a connection."""
PAUSE: Final = 1.0
"""Seconds between two looks, give or take a tenth."""


async def reachable(places: Sequence[Place]) -> bool:
    """Whether one of them accepts connections."""
    return any(await asyncio.gather(*(_accepts(host, port) for host, port in places)))


async def until_reachable(places: Sequence[Place], rng: Random) -> None:
    """Return once one of them does; not at once."""
    while True:
        await asyncio.sleep(jittered(PAUSE, rng))
        if await reachable(places):
            return


async def _accepts(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(ANSWER):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
