"""Saves the configuration of a serving Envoy as the last good one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Final

from adsum.core.backoff import jittered
from adsum.envoy.admin import AdminUnavailable
from adsum.envoy.process.envoy_instance import EnvoyInstance
from adsum.envoy.registry_health.last_good_config import LastGoodConfig, StaticResources

SAVE_INTERVAL: Final = 5.0
"""The shortest time between two config dumps, in seconds."""
MAX_SAVE_TIME_SHARE: Final = 0.01
"""The share of time that config dumps may take. A large configuration is saved less often."""


async def save_config(envoy: EnvoyInstance, last_good: LastGoodConfig) -> None:
    """Saves the Envoy's configuration, unless it came from the last good one or the admin interface is unavailable."""
    if not envoy.uses_last_good_config:
        with suppress(AdminUnavailable):
            last_good.save(StaticResources.from_config_dump(await envoy.admin.config_dump()))


async def save_periodically(
    last_good: Callable[[], LastGoodConfig], serving: Callable[[], EnvoyInstance | None], rng: Random
) -> None:
    """Saves until cancelled. `serving` returns the Envoy to save from; None skips a turn."""
    loop = asyncio.get_running_loop()
    interval = SAVE_INTERVAL
    while True:
        await asyncio.sleep(jittered(interval, rng))
        envoy, started_at = serving(), loop.time()
        if envoy is None:
            continue
        await save_config(envoy, last_good())
        interval = max(SAVE_INTERVAL, (loop.time() - started_at) / MAX_SAVE_TIME_SHARE)
