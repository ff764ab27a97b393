"""The process of a registry node: its signals, its logs, and the gateway beside it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import uvloop

from adsum import systemd
from adsum.config.security import INSECURE_WARNING
from adsum.config.serve import ServeConfig
from adsum.core.errors import AdsumError
from adsum.daemon import Daemon
from adsum.file_descriptors import raise_descriptor_limit
from adsum.telemetry import Logs
from adsum.telemetry.sink import Sink
from adsum.version import __version__

if TYPE_CHECKING:
    from adsum.envoy.gateway import Gateway

GC_THRESHOLDS: Final = (10_000, 5, 2_000)
"""Thresholds of the cycle collector's generations (`gc.set_threshold`). A collection of generation 0 takes about 2 ms,
one of generation 1 about 10 ms."""

SWITCH_INTERVAL: Final = 0.0005
"""Seconds after which a thread that computes gives way to another (`sys.setswitchinterval`). Every write passes through
the thread of the SQLite file. With Python's 5 ms, each step of it waits that long for a busy event loop."""

_log = logging.getLogger("adsum.daemon")


def serve(
    config: ServeConfig,
    make_gateway: Callable[[str], Gateway] | None = None,
    reload_config: Callable[[], ServeConfig] | None = None,
) -> None:
    """Runs a node in this process until a signal ends it; see `run_node`. Raises `AdsumError` for the operator."""
    # Read when grpc is imported. Otherwise it writes a line for every failed TLS handshake, which anyone can cause.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    limit = raise_descriptor_limit()
    _collect_rarely()
    sys.setswitchinterval(SWITCH_INTERVAL)
    if config.insecure and config.log_level == "error" and sys.stderr is not None:
        sys.stderr.write(f"{INSECURE_WARNING}\n")  # The log leaves it out.
    logs = Logs(config.log_level, config.log_format)
    try:
        uvloop.run(_create_and_run(config, logs, limit, make_gateway, reload_config))
    finally:
        logs.close()


async def _create_and_run(
    config: ServeConfig,
    logs: Logs,
    descriptor_limit: int,
    make_gateway: Callable[[str], Gateway] | None,
    reload_config: Callable[[], ServeConfig] | None,
) -> None:
    await run_node(Daemon(config, logs, descriptor_limit), make_gateway, reload_config)


async def run_node(
    daemon: Daemon,
    make_gateway: Callable[[str], Gateway] | None = None,
    reload_config: Callable[[], ServeConfig] | None = None,
) -> None:
    """Runs a node until SIGTERM or SIGINT; a second signal ends the process at once.

    `make_gateway` makes a gateway for the xDS address that it gets; the gateway runs as long as the node.
    `reload_config` reads the settings again, on SIGHUP. Raises `AdsumError` if the registry fails, and the error of
    the gateway if that fails.
    """
    ended, hung_up = asyncio.Event(), asyncio.Event()
    gateways: list[Gateway] = []
    with _signals(ended, hung_up):
        await daemon.start()
        _print(f"adsum {__version__} listens on {' '.join(daemon.urls)}\n{daemon.first_steps}")
        failing = asyncio.create_task(daemon.registry.wait_until_failed())
        ending = asyncio.create_task(ended.wait())
        tasks: list[asyncio.Task[Any]] = [failing, ending]
        if make_gateway is not None:
            tasks.append(asyncio.create_task(_run_gateway(make_gateway, daemon.xds, gateways)))
        reloading = asyncio.create_task(_reload_on_hangup(daemon, hung_up, reload_config, gateways))
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        failure = failing.result() if failing.done() else None
        for task in (*tasks, reloading):
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(reloading, return_exceptions=True)
        await daemon.stop()
        if failure is not None:
            raise AdsumError(f"the registry can't go on: {failure}")
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome


async def _reload_on_hangup(
    daemon: Daemon,
    hung_up: asyncio.Event,
    reload_config: Callable[[], ServeConfig] | None,
    gateways: Sequence[Gateway],
) -> None:
    """On each SIGHUP, reads the settings again and applies those that can change; a gateway does the same."""
    while True:
        await hung_up.wait()
        hung_up.clear()
        systemd.notify(systemd.reloading_state())
        try:
            if reload_config is not None:
                await daemon.reload(reload_config())
        except AdsumError as error:
            _log.error("the settings stay as they were: %s", error)
        settled = asyncio.Event()
        for gateway in gateways:
            gateway.reload(settled.set)
        if gateways:
            await settled.wait()
        systemd.notify(systemd.READY)


async def _run_gateway(make: Callable[[str], Gateway], xds: str, running: list[Gateway]) -> None:
    """Runs a gateway until cancelled, and drains it then. It is added to `running` once it serves."""
    gateway = make(xds)
    try:
        await gateway.start()
        running.append(gateway)
        _print(f"adsum gateway listens on {' '.join(gateway.urls)}\n")
        await gateway.wait_until_failed()
    finally:
        await gateway.stop()


def _print(text: str) -> None:
    """Writes to standard output without waiting: a pipe without a reader and a full disk must not stop the node."""
    if sys.stdout is not None:
        sink = Sink(sys.stdout.fileno())
        sink.put(text.encode())
        sink.close(timeout=0.0)


@contextlib.contextmanager
def _signals(ended: asyncio.Event, hung_up: asyncio.Event) -> Iterator[None]:
    """Sets `ended` on SIGTERM or SIGINT, and `hung_up` on SIGHUP, inside the `with` block."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        ended.set()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(signum)  # The system's default action ends the process on the second signal.
            signal.signal(signum, signal.SIG_DFL)

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, end)
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def _collect_rarely() -> None:
    """Makes cycle collections rare: they block the node, and nearly all objects live long and are in no cycle."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
