"""Ends an Envoy without cutting off requests."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from adsum.envoy.admin import AdminUnavailable
from adsum.envoy.process.envoy_instance import POLL_INTERVAL, EnvoyInstance
from adsum.envoy.restart.accept_drain import close_sockets, queued_connections, refuse_new_connections
from adsum.envoy.restart.tcp_connections import count_connections

IDLE_LINGER: Final = 1.0
"""Seconds that idle connections stay open, longer than a request takes on its way, so that a request sent before the
drain is answered."""
MAX_ACCEPT_WAIT: Final = 0.5
"""The longest wait, in seconds, until Envoy has accepted the queued connections. An Envoy that is not overloaded needs
none."""
CONNECTION_POLL_INTERVAL: Final = 0.25
"""Seconds between two counts of the connections of an Envoy whose admin interface does not answer."""
KILL_AFTER: Final = 3.0
"""Seconds between SIGTERM and SIGKILL."""

_log = logging.getLogger("adsum.envoy")


async def drain(envoy: EnvoyInstance, timeout: float) -> None:
    """Makes the Envoy refuse connections, waits at most `timeout` seconds for its requests to finish, and ends it."""
    try:
        async with asyncio.timeout(timeout):
            await _finish(envoy)
    except TimeoutError:
        await _log_dropped_requests(envoy)
    await envoy.process.stop(KILL_AFTER)


async def _finish(envoy: EnvoyInstance) -> None:
    closed = await _refuse_new_connections(envoy)
    try:
        # Sockets first: a client whose connection is closed reconnects at once, and must not reach a closing socket.
        if not closed:
            await envoy.admin.stop_accepting()
        await envoy.admin.drain_connections()
        await _wait_until_idle(envoy)
    except AdminUnavailable as error:
        _log.warning(
            "%s; it can't close its connections, so it is ended once no client is connected, "
            "at the latest after the drain timeout",
            error,
        )
        await _wait_until_disconnected(envoy)


async def _wait_until_idle(envoy: EnvoyInstance) -> None:
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    while envoy.process.running:
        traffic = await envoy.admin.active_traffic()
        if traffic.requests == 0 and (traffic.connections == 0 or loop.time() - started_at >= IDLE_LINGER):
            return
        await asyncio.sleep(POLL_INTERVAL)


async def _wait_until_disconnected(envoy: EnvoyInstance) -> None:
    """Waits until no client is connected, or until the Envoy exits if its connections can't be seen.

    The connections are all that can be seen of an unresponsive Envoy.
    """
    while envoy.process.running:
        counts = await asyncio.to_thread(count_connections, envoy)
        if counts is not None and not counts.downstream:
            return
        await asyncio.sleep(CONNECTION_POLL_INTERVAL)


async def _refuse_new_connections(envoy: EnvoyInstance) -> bool:
    """Makes the kernel refuse new connections, and waits until Envoy has accepted the queued ones.

    Returns False if the plan or the system does not permit it; then new connections are still accepted. The
    monitor's listener stays open: it reports until the end that the gateway is not ready.
    """
    if not envoy.plan.process_access:
        return False
    addresses = envoy.plan.listen_addresses
    ports = {port for _, port in addresses}
    # Each Envoy worker has a socket per address. Among thousands of connections, finding them takes a while.
    listeners = await asyncio.to_thread(
        refuse_new_connections, envoy.process.pid, ports, len(addresses) * envoy.plan.concurrency
    )
    try:
        for _ in range(round(MAX_ACCEPT_WAIT / POLL_INTERVAL) if listeners else 0):
            await asyncio.sleep(POLL_INTERVAL)
            if not queued_connections(listeners):
                break
        return bool(listeners)
    finally:
        close_sockets(listeners)


async def _log_dropped_requests(envoy: EnvoyInstance) -> None:
    try:
        traffic = await envoy.admin.active_traffic()
    except AdminUnavailable:
        await log_dropped_connections(envoy)
        return
    if traffic.requests:
        _log.warning(
            "requests still in progress: %d; they are cut off, and --drain-timeout would give them more time",
            traffic.requests,
        )


async def log_dropped_connections(envoy: EnvoyInstance) -> None:
    """Logs how many connections are cut off, if they can be seen. To be called just before an Envoy ends."""
    counts = await asyncio.to_thread(count_connections, envoy)
    if counts is not None and counts.max_active:
        _log.warning(
            "requests on up to %d connections are cut off; --drain-timeout gives them more time", counts.max_active
        )
