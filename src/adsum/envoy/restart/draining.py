"""How an Envoy ends without cutting anybody off."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from adsum.envoy.admin import AdminUnavailable
from adsum.envoy.process.envoy_instance import POLL_INTERVAL, EnvoyInstance
from adsum.envoy.restart.accept_drain import close_sockets, queued_connections, refuse_new_connections
from adsum.envoy.restart.tcp_connections import count_connections

IDLE_LINGER: Final = 1.0
"""Seconds that connections without a request have to be used or closed by their clients, so that a request that was on
its way when the drain began is answered; longer than the way takes."""
MAX_ACCEPT_WAIT: Final = 0.5
"""Seconds at most for connections that wait to be accepted; an Envoy that is not overrun needs none."""
CONNECTION_POLL_INTERVAL: Final = 0.25
"""Seconds between two looks at who is still connected."""
KILL_AFTER: Final = 3.0
"""Seconds after SIGTERM within which Envoy has ended; then it is killed."""

_log = logging.getLogger("adsum.envoy")


async def drain(envoy: EnvoyInstance, timeout: float) -> None:
    """Have it accept nothing more and finish what runs, for at most `timeout` seconds; then end it."""
    try:
        async with asyncio.timeout(timeout):
            await _finish(envoy)
    except TimeoutError:
        await _tell_what_is_cut_off(envoy)
    await envoy.process.stop(KILL_AFTER)


async def _finish(one: EnvoyInstance) -> None:
    closed = await _accept_what_has_come(one)
    try:
        # In this order: who is let go comes back at once, and should find the door closed rather than closing.
        if not closed:
            await one.admin.stop_accepting()
        await one.admin.drain_connections()
        await _until_idle(one)
    except AdminUnavailable as error:
        _log.warning("%s; it can't tell anybody to leave, so it is ended once nobody is connected", error)
        await _until_deserted(one)


async def _until_idle(one: EnvoyInstance) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    while one.process.running:
        traffic = await one.admin.active_traffic()
        if traffic.requests == 0 and (traffic.connections == 0 or loop.time() - began >= IDLE_LINGER):
            return
        await asyncio.sleep(POLL_INTERVAL)


async def _until_deserted(one: EnvoyInstance) -> None:
    """All that can be seen of a deaf one is who is connected."""
    while one.process.running:
        if not (await asyncio.to_thread(count_connections, one)).downstream:
            return
        await asyncio.sleep(CONNECTION_POLL_INTERVAL)


async def _accept_what_has_come(one: EnvoyInstance) -> bool:
    """Return once everybody who was let in by the kernel is known to Envoy; whether nobody new is let in any more.

    The monitor stays open: it says until the end that the gateway is not ready.
    """
    places = one.plan.listen_addresses
    ports = {port for _, port in places}
    # A thread of Envoy's has a socket of its own for each; with thousands of connections it takes a while to find them.
    listeners = await asyncio.to_thread(
        refuse_new_connections, one.process.pid, ports, len(places) * one.plan.concurrency
    )
    try:
        for _ in range(round(MAX_ACCEPT_WAIT / POLL_INTERVAL) if listeners else 0):
            await asyncio.sleep(POLL_INTERVAL)
            if not queued_connections(listeners):
                break
        return bool(listeners)
    finally:
        close_sockets(listeners)


async def _tell_what_is_cut_off(one: EnvoyInstance) -> None:
    try:
        traffic = await one.admin.active_traffic()
    except AdminUnavailable:
        await log_dropped_connections(one)
        return
    if traffic.requests:
        _log.warning("%d requests still run and are cut off; --drain-timeout gives them longer", traffic.requests)


async def log_dropped_connections(envoy: EnvoyInstance) -> None:
    """To be called just before it ends: it was given its time."""
    running = (await asyncio.to_thread(count_connections, envoy)).max_active
    if running:
        _log.warning("what still runs, on up to %d connections, is cut off; --drain-timeout gives it longer", running)
