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
SCENE: Final = 3.0
"""Seconds that a scene takes at pace 1."""
FIRST: Final = ("orders-1", "orders-2", "orders-3")
USERS: Final = ("users-1", "users-2")
POLL: Final = 0.02


class Scenario:
    """One run of the scenario. With `pace` 2.0 each scene takes half as long."""

    def __init__(self, cast: DemoCluster, client: Client, board: Scoreboard, pace: float) -> None:
        self._cast = cast
        self._client = client
        self._board = board
        self._pace = pace

    async def start_services(self) -> None:
        """Start the registry, the first services and the gateway; returns when all of them are ready."""
        self._act(f"starting a registry (SQLite) on {self._cast.url}")
        await self._start_registry()
        for id in USERS:
            self._cast.start_registering("users", id)
        for id in FIRST:
            self._cast.start_wrapped("orders", id)
        self._act("starting three orders (wrapped by `adsum run`) and two users (through the library)")
        await self._until("the first instances to pass", lambda: self._passing() >= {*FIRST, *USERS})
        await self._open_gateway()

    async def run(self) -> None:
        """Run the scenes while the callers send requests."""
        through = f", and {self._cast.gateway}/orders/ 25 times" if self._cast.gateway else ""
        self._act(f"calling http://orders and http://users by name, 50 times a second{through}")
        await self._scene()
        await self._crash()
        await self._grow()
        await self._deploy()
        await self._registry_dies()

    async def _open_gateway(self) -> None:
        """Start the gateway; returns when it forwards requests, or at once if there is no Envoy."""
        if not self._cast.start_gateway():
            self._act(f"no gateway: Envoy is not installed ({INSTALL_HINT})")
            return
        self._act(f"starting a gateway (Envoy) on {self._cast.gateway}")
        began = time.monotonic()
        while not await gateway_is_ready(self._cast.gateway):
            await self._tick(began, "the gateway to forward requests")
        self._board.note(NoteKind.GOOD, f"the gateway forwards requests after {time.monotonic() - began:.1f} s")

    async def run_until_cancelled(self) -> None:
        """Keep everything running until cancelled."""
        self._act(
            f"all scenes are done; everything keeps running until Ctrl-C. Try: ADSUM_URL={self._cast.url} adsum watch"
        )
        while True:
            await self._scene()

    async def _crash(self) -> None:
        self._act("kill -9 orders-2: it can't deregister")
        self._cast.processes.kill(self._cast.instances["orders-2"])
        took = await self._until("the crash to be noticed", lambda: "orders-2" not in self._passing())
        self._find("the crash was noticed after", took)
        await self._scene()

    async def _grow(self) -> None:
        self._act("scaling up: orders-4 starts")
        self._cast.start_wrapped("orders", "orders-4")
        took = await self._until("orders-4 to be called", lambda: self._board.shares().get("orders/orders-4", 0) > 0)
        self._find("orders-4, from its start to its first call", took)
        await self._scene()

    async def _deploy(self) -> None:
        self._act("a deploy: orders-5 starts, then SIGTERM for orders-1, which is drained before it stops")
        self._cast.start_wrapped("orders", "orders-5")
        await self._until("orders-5 to pass", lambda: "orders-5" in self._passing())
        leaving = self._cast.instances["orders-1"]
        self._cast.processes.stop(leaving)
        took = await self._until("orders-1 to end", lambda: not leaving.running)
        self._find("orders-1, from SIGTERM through the drain to its end", took)
        await self._scene()

    async def _registry_dies(self) -> None:
        self._act("kill -9 the registry: callers continue with their last view")
        before, answered, changes = self._passing(), self._board.answered, self._board.changes
        self._cast.processes.kill(self._registry)
        await self._scene()
        self._board.measurements.append(("calls answered without a registry", str(self._board.answered - answered)))
        self._act("the registry restarts from its SQLite file")
        took = await self._start_registry()
        self._find("the registry was back after", took)
        await self._scene()
        await self._until("the instances to pass after the restart", lambda: self._passing() >= before)
        self._board.measurements.append(("changes in the catalog because of that", str(self._board.changes - changes)))

    async def _start_registry(self) -> float:
        self._registry = self._cast.start_registry()
        began = time.monotonic()
        while time.monotonic() - began < STEP_TIMEOUT:
            self._cast.processes.check_running()
            try:
                if (await self._client.api.status()).ready:
                    return time.monotonic() - began
            except AdsumError:
                await asyncio.sleep(POLL)
        raise DemoFailed(f"the registry did not answer within {STEP_TIMEOUT:g} s")

    async def _until(self, what: str, done: Callable[[], bool]) -> float:
        """Wait for `done`; returns the seconds it took. Raises `DemoFailed` naming `what` after `STEP_TIMEOUT`."""
        began = time.monotonic()
        while not done():
            await self._tick(began, what)
        return time.monotonic() - began

    async def _tick(self, began: float, what: str) -> None:
        self._cast.processes.check_running()
        if time.monotonic() - began > STEP_TIMEOUT:
            raise DemoFailed(f"waited {STEP_TIMEOUT:g} s for {what}")
        await asyncio.sleep(POLL)

    def _passing(self) -> set[str]:
        views = self._board.views.values()
        return {each.id for view in views for each in view.endpoints if each.status is Status.PASSING}

    async def _scene(self) -> None:
        await asyncio.sleep(SCENE / self._pace)
        self._cast.processes.check_running()

    def _act(self, text: str) -> None:
        self._board.note(NoteKind.ACT, text)

    def _find(self, what: str, took: float) -> None:
        self._board.measurements.append((what, f"{took:.1f} s"))
        self._board.note(NoteKind.GOOD, f"{what} {took:.1f} s")
