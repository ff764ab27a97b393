"""Watches a gateway's contact with its registry, and reports a loss in the log and at /readyz."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Final

from adsum.core.backoff import jittered
from adsum.envoy.admin import AdminClient, AdminUnavailable
from adsum.envoy.certificates.identity import RegistryIdentity
from adsum.envoy.metrics import monitor
from adsum.envoy.process.envoy_instance import EnvoyInstance
from adsum.envoy.registry_health.registry_contact import (
    CONTACT_POLL_INTERVAL,
    LOST_AFTER,
    ContactProblem,
    RegistryContact,
    contact_problem,
)
from adsum.envoy.registry_health.xds_health import unreachable_reason

REFUSED_REMEDY: Final = (
    "get a new line with `adsum token invite --for gateway` and give it to `adsum join` on this host; "
    "the gateway then connects again without a restart"
)
"""The way to mend a gateway whose token or certificate the registry does not accept."""
EXPIRED_REMEDY: Final = (
    "this gateway's certificate for the registry has expired: `adsum join --renew` renews it, or says why it can't be "
    "renewed; then the gateway connects again without a restart"
)

_log = logging.getLogger("adsum.envoy")


async def watch_contact(
    serving: Callable[[], EnvoyInstance | None], identity: Callable[[], RegistryIdentity | None], rng: Random
) -> None:
    """Watches until cancelled. `serving` returns the Envoy to poll; None skips a poll.

    `identity` returns the newest identity at the registry.
    """
    loop = asyncio.get_running_loop()
    contact = RegistryContact(loop.time())
    reported: tuple[EnvoyInstance | None, ContactProblem | None] = (None, None)
    while True:
        await asyncio.sleep(jittered(CONTACT_POLL_INTERVAL, rng))
        envoy = serving()
        if envoy is None:
            continue
        with suppress(AdminUnavailable):
            connected = await envoy.admin.is_registry_connected()
            received = await envoy.admin.registry_bytes_received()
            refused_at = envoy.process.refused_at
            has_changed = contact.update(loop.time(), connected=connected, received=received, refused_at=refused_at)
            is_refused = loop.time() - refused_at < LOST_AFTER
            problem = contact_problem(
                is_lost=contact.is_lost,
                is_refused=is_refused and envoy.process.refuses_credentials,
                has_expired=_has_expired(identity()),
            )
            if has_changed and problem is None:
                _log.info("the registry is connected again")
            elif has_changed or (problem is not None and reported[1] not in (None, problem)):
                await _log_problem(envoy, problem, identity(), is_refused=is_refused, is_new=has_changed)
            if reported != (envoy, problem):
                await _report(envoy.admin, problem)
                reported = envoy, problem


async def _report(admin: AdminClient, problem: ContactProblem | None) -> None:
    """Makes /readyz report the problem, and no other one."""
    for kind, key in monitor.PROBLEM_KEYS.items():
        await admin.set_runtime(key, monitor.ALWAYS_PERCENT if kind is problem else 0)


def _has_expired(identity: RegistryIdentity | None) -> bool:
    return identity is not None and identity.expires <= time.time()


async def _log_problem(
    envoy: EnvoyInstance,
    problem: ContactProblem | None,
    identity: RegistryIdentity | None,
    *,
    is_refused: bool,
    is_new: bool,
) -> None:
    """Logs the problem with its reason. One that is not new is only logged if it has a reason of its own."""
    if problem is ContactProblem.REFUSED:
        reason = f"the registry rejects this gateway: {envoy.process.refusal}: {REFUSED_REMEDY}"
    elif is_refused:
        reason = f"the registry rejects this gateway: {envoy.process.refusal}"
    elif problem is ContactProblem.EXPIRED:
        reason = EXPIRED_REMEDY
    else:
        reason = await unreachable_reason(envoy.plan.registry_nodes, identity)
    if not (reason or is_new):
        return
    _log.warning(
        "no contact with the registry for %g s; the gateway serves the last known configuration%s",
        LOST_AFTER,
        f"; {reason}" if reason else "",
    )
