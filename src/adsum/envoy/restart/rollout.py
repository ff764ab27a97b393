"""The Envoys of one gateway, one after the other; at most two run at a time, while one takes over."""

from __future__ import annotations

import asyncio
import shutil
import signal
from typing import Final

from adsum.envoy.plan import GatewayPlan
from adsum.envoy.preflight import CannotServe
from adsum.envoy.process.access_log import AccessLog
from adsum.envoy.process.envoy_instance import EnvoyInstance
from adsum.envoy.process.runtime_folder import RuntimeFolder
from adsum.envoy.registry_health import xds_health
from adsum.envoy.registry_health.last_good_config import StaticResources
from adsum.envoy.restart.draining import KILL_AFTER, log_dropped_connections
from adsum.envoy.restart.hot_restart import IS_SUPPORTED, HotRestart

TAKEOVER_TIMEOUT: Final = 30.0
"""Seconds that one that is to take over has to come up; then it is given up."""
EXIT_MARGIN: Final = 5.0
"""Seconds by which one that was replaced may end later than it should; then it is ended."""
REPORT_BEFORE_EXIT: Final = 0.5
"""Seconds before one that was replaced is to end, at which we say what it leaves unfinished."""


class EnvoyRollout:
    """`start` a line of Envoys, have others `follow`; `close` leaves none."""

    def __init__(self) -> None:
        self._own = RuntimeFolder()
        self.folder = self._own.path
        """Ours alone."""
        self._begun = 0
        self._lineages = 0
        self._lineage: HotRestart | None = None
        self._running: set[EnvoyInstance] = set()
        self._access_log = AccessLog()
        self.draining: set[asyncio.Task[None]] = set()
        """Done when those that were replaced have ended."""

    @property
    def pids(self) -> list[int]:
        """Of those that run."""
        return [each.process.pid for each in self._running]

    async def start(
        self, plan: GatewayPlan, pair: bytes, last_good: StaticResources | None, *, strict: bool
    ) -> EnvoyInstance:
        """One that follows none, once it serves; it gets what there is to serve from `told`, else from the registry.

        `pair` is the certificate that it shows. Raises `CannotServe`; see `EnvoyInstance.until_serving` for `strict`.
        """
        self._end_lineage()
        self._lineages += 1
        self._lineage = HotRestart(self.folder, self._lineages)
        one = await self._come_up(plan, pair, self._lineage, last_good, strict=strict)
        self._lineage.mark_succeeded()
        return one

    async def replace(
        self, old: EnvoyInstance, plan: GatewayPlan, pair: bytes, last_good: StaticResources | None
    ) -> EnvoyInstance:
        """One that has taken over from `old`, which finishes what runs and leaves. See `start`.

        Raises `CannotServe`: then `old` goes on, but if the new one got far enough, it is deaf: nobody can ask it
        anything any more. Another one can follow it.
        """
        if self._lineage is None or not IS_SUPPORTED:
            raise CannotServe("Envoy can take over from another on Linux alone; restart the gateway instead")
        try:
            async with asyncio.timeout(TAKEOVER_TIMEOUT):
                new = await self._come_up(plan, pair, self._lineage, last_good, strict=True)
        except TimeoutError:
            self._lineage.mark_failed()
            raise CannotServe(f"the new one took no requests within {TAKEOVER_TIMEOUT:g} s") from None
        except BaseException:
            self._lineage.mark_failed()
            raise
        self._lineage.mark_succeeded()
        leaving = asyncio.create_task(_see_off(old))
        self.draining.add(leaving)
        leaving.add_done_callback(self.draining.discard)
        return new

    def kill_all(self) -> None:
        """All of them, now."""
        for each in self._running:
            each.process.signal(signal.SIGKILL)

    async def close(self) -> None:
        """End what still runs, and leave nothing behind; idempotent."""
        for leaving in list(self.draining):
            leaving.cancel()
        for each in list(self._running):
            await each.process.stop(KILL_AFTER)
        self._access_log.close()
        self._end_lineage()
        self._own.close()

    async def _come_up(
        self, plan: GatewayPlan, pair: bytes, lineage: HotRestart, told: StaticResources | None, *, strict: bool
    ) -> EnvoyInstance:
        answering = await xds_health.responsive_nodes(plan.registry_nodes) if told is None else []
        self._begun += 1
        folder = self.folder / str(self._begun)
        try:
            folder.mkdir(mode=0o700)
            one = EnvoyInstance.start(plan, pair, folder, lineage.arguments(), told, self._access_log, answering)
        except OSError as error:
            raise CannotServe(f"Envoy can't be started in {folder}: {error.strerror}") from None
        self._running.add(one)
        one.process.exited.add_done_callback(lambda _: self._over(one))
        try:
            await one.wait_until_serving(strict=strict)
        except BaseException:
            await one.process.kill()  # Were it told to end, it would tell the one before to end, too.
            raise
        return one

    def _over(self, one: EnvoyInstance) -> None:
        self._running.discard(one)
        shutil.rmtree(one.folder, ignore_errors=True)

    def _end_lineage(self) -> None:
        if self._lineage is not None:
            self._lineage.remove_shared_memory()


async def _see_off(old: EnvoyInstance) -> None:
    """The one that took over tells it to end; unless it can't."""
    if not await _ends_within(old, old.exits_within - REPORT_BEFORE_EXIT):
        await log_dropped_connections(old)
        if not await _ends_within(old, REPORT_BEFORE_EXIT + EXIT_MARGIN):
            await old.process.stop(KILL_AFTER)


async def _ends_within(old: EnvoyInstance, length: float) -> bool:
    done, _ = await asyncio.wait({old.process.exited}, timeout=length)
    return bool(done)
