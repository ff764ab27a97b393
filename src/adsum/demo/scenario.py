"""The scenario of the demo: steady calls, a crash, a new instance, a deploy, and a crash of the registry."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from adsum.client.client import Client
from adsum.core.errors import AdsumError
from adsum.core.model import Status
from adsum.demo.cluster import DemoCluster
from adsum.demo.processes import DemoFailed
from adsum.demo.scoreboard import NoteKind, Scoreboard
from adsum.demo.traffic import gateway_is_ready
from adsum.envoy.process.binary import INSTALL_HINT

STEP_TIMEOUT: Final = 60.0
"""Seconds that a step may take on a busy machine; after that the demo fails and names the step."""
SCENE_DURATION: Final = 3.0
"""Seconds that a scene takes at pace 1."""
FIRST_ORDERS: Final = ("orders-1", "orders-2", "orders-3")
FIRST_USERS: Final = ("users-1", "users-2")
POLL_INTERVAL: Final = 0.02
"""Seconds between two looks at a condition that a step waits for."""


class Scenario:
    """One run of the scenario. With `pace` 2.0 each scene takes half as long."""

    def __init__(self, cluster: DemoCluster, client: Client, board: Scoreboard, pace: float) -> None:
        self._cluster = cluster
        self._client = client
        self._board = board
        self._pace = pace

    async def start_services(self) -> None:
        """Start the registry, the first services and the gateway; returns when all of them are ready."""
        self._announce(f"starting a registry (SQLite) on {self._cluster.url}")
        await self._start_registry()
        for id in FIRST_USERS:
            self._cluster.start_registering("users", id)
        for id in FIRST_ORDERS:
            self._cluster.start_wrapped("orders", id)
        self._announce("starting three orders (wrapped by `adsum run`) and two users (through the library)")
        await self._until("the first instances to pass", lambda: self._passing_ids() >= {*FIRST_ORDERS, *FIRST_USERS})
        await self._start_gateway()

    async def run(self) -> None:
        """Run the scenes while the callers send requests."""
        through = f", and {self._cluster.gateway}/orders/ 25 times" if self._cluster.gateway else ""
        self._announce(f"calling http://orders and http://users by name, 50 times a second{through}")
        await self._show_scene()
        await self._crash()
        await self._scale_up()
        await self._deploy()
        await self._crash_registry()

    async def _start_gateway(self) -> None:
        """Start the gateway; returns when it forwards requests, or at once if there is no Envoy."""
        if not self._cluster.start_gateway():
            self._announce(f"no gateway: Envoy is not installed ({INSTALL_HINT})")
            return
        self._announce(f"starting a gateway (Envoy) on {self._cluster.gateway}")
        started_at = time.monotonic()
        while not await gateway_is_ready(self._cluster.gateway):
            await self._pause(started_at, "the gateway to forward requests")
        self._board.note(NoteKind.GOOD, f"the gateway forwards requests after {time.monotonic() - started_at:.1f} s")

    async def run_until_cancelled(self) -> None:
        """Keep everything running until cancelled."""
        self._announce(
            f"all scenes are done; everything runs on until Ctrl-C. Try: ADSUM_URL={self._cluster.url} adsum watch"
        )
        while True:
            await self._show_scene()

    async def _crash(self) -> None:
        self._announce("kill -9 orders-2: it can't deregister")
        self._cluster.processes.kill(self._cluster.instances["orders-2"])
        duration = await self._until("the crash to be noticed", lambda: "orders-2" not in self._passing_ids())
        self._measure("the crash was noticed after", duration)
        await self._show_scene()

    async def _scale_up(self) -> None:
        self._announce("scaling up: orders-4 starts")
        self._cluster.start_wrapped("orders", "orders-4")
        duration = await self._until(
            "orders-4 to be called", lambda: self._board.shares().get("orders/orders-4", 0) > 0
        )
        self._measure("orders-4, from its start to its first call", duration)
        await self._show_scene()

    async def _deploy(self) -> None:
        self._announce("a deploy: orders-5 starts, then SIGTERM for orders-1, which is drained before it stops")
        self._cluster.start_wrapped("orders", "orders-5")
        await self._until("orders-5 to pass", lambda: "orders-5" in self._passing_ids())
        leaving = self._cluster.instances["orders-1"]
        self._cluster.processes.stop(leaving)
        duration = await self._until("orders-1 to end", lambda: not leaving.running)
        self._measure("orders-1, from SIGTERM through the drain to its end", duration)
        await self._show_scene()

    async def _crash_registry(self) -> None:
        self._announce("kill -9 the registry: callers continue with their last view")
        before, answered, changes = self._passing_ids(), self._board.answered, self._board.changes
        self._cluster.processes.kill(self._registry)
        await self._show_scene()
        self._board.measurements.append(("calls answered without a registry", str(self._board.answered - answered)))
        self._announce("the registry restarts from its SQLite file")
        duration = await self._start_registry()
        self._measure("the registry was back after", duration)
        await self._show_scene()
        await self._until("the instances to pass after the restart", lambda: self._passing_ids() >= before)
        self._board.measurements.append(("changes in the catalog because of that", str(self._board.changes - changes)))

    async def _start_registry(self) -> float:
        self._registry = self._cluster.start_registry()
        started_at = time.monotonic()
        while time.monotonic() - started_at < STEP_TIMEOUT:
            self._cluster.processes.check_running()
            try:
                if (await self._client.api.status()).ready:
                    return time.monotonic() - started_at
            except AdsumError:
                await asyncio.sleep(POLL_INTERVAL)
        raise DemoFailed(f"the registry did not answer within {STEP_TIMEOUT:g} s")

    async def _until(self, label: str, done: Callable[[], bool]) -> float:
        """Wait for `done`; returns the seconds it took. Raises `DemoFailed` naming `label` after `STEP_TIMEOUT`."""
        started_at = time.monotonic()
        while not done():
            await self._pause(started_at, label)
        return time.monotonic() - started_at

    async def _pause(self, started_at: float, label: str) -> None:
        self._cluster.processes.check_running()
        if time.monotonic() - started_at > STEP_TIMEOUT:
            raise DemoFailed(f"waited {STEP_TIMEOUT:g} s for {label}")
        await asyncio.sleep(POLL_INTERVAL)

    def _passing_ids(self) -> set[str]:
        views = self._board.views.values()
        return {endpoint.id for view in views for endpoint in view.endpoints if endpoint.status is Status.PASSING}

    async def _show_scene(self) -> None:
        await asyncio.sleep(SCENE_DURATION / self._pace)
        self._cluster.processes.check_running()

    def _announce(self, text: str) -> None:
        self._board.note(NoteKind.STEP, text)

    def _measure(self, label: str, duration: float) -> None:
        self._board.measurements.append((label, f"{duration:.1f} s"))
        self._board.note(NoteKind.GOOD, f"{label} {duration:.1f} s")
