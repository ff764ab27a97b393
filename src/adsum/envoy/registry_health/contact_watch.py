"""Watches a gateway's contact with its registry, and reports a loss in the log and at /readyz."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from random import Random

from adsum.core.backoff import jittered
from adsum.envoy.admin import AdminUnavailable
from adsum.envoy.metrics import monitor
from adsum.envoy.process.envoy_instance import EnvoyInstance
from adsum.envoy.registry_health.registry_contact import CONTACT_POLL_INTERVAL, LOST_AFTER, RegistryContact

_log = logging.getLogger("adsum.envoy")


async def watch_contact(serving: Callable[[], EnvoyInstance | None], rng: Random) -> None:
    """Watches until cancelled. `serving` returns the Envoy to poll; None skips a poll."""
    loop = asyncio.get_running_loop()
    contact = RegistryContact(loop.time())
    reported: tuple[EnvoyInstance | None, bool] = (None, False)
    while True:
        await asyncio.sleep(jittered(CONTACT_POLL_INTERVAL, rng))
        envoy = serving()
        if envoy is None:
            continue
        with suppress(AdminUnavailable):
            connected = await envoy.admin.is_registry_connected()
            received = await envoy.admin.registry_bytes_received()
            refused_at = envoy.process.refused_at
            if contact.update(loop.time(), connected=connected, received=received, refused_at=refused_at):
                _log_contact(envoy, loop.time(), lost=contact.is_lost)
            if reported != (envoy, contact.is_lost):
                percent = monitor.ALWAYS_PERCENT if contact.is_lost else 0
                await envoy.admin.set_runtime(monitor.REGISTRY_LOST_KEY, percent)
                reported = envoy, contact.is_lost


def _log_contact(envoy: EnvoyInstance, now: float, *, lost: bool) -> None:
    if not lost:
        _log.info("the registry is connected again")
        return
    process, reason = envoy.process, ""
    if now - process.refused_at < LOST_AFTER:
        reason = f"; the registry rejects this gateway: {process.refusal}"
    _log.warning(
        "no contact with the registry for %g s; the gateway serves the last known configuration%s", LOST_AFTER, reason
    )
