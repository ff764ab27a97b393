"""Starts and replaces the Envoys of one gateway. At most two run at a time, while one takes over from the other."""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path
from typing import Final

from adsum.envoy.certificates.gateway_secrets import GatewaySecrets
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
"""Seconds that a new Envoy has to become ready; then it is given up."""
EXIT_MARGIN: Final = 5.0
"""Seconds that a replaced Envoy may exceed its time; then it is ended."""
REPORT_BEFORE_EXIT: Final = 0.5
"""Seconds before a replaced Envoy must exit, at which the connections that it drops are logged."""


class EnvoyRollout:
    """The running Envoys of one gateway: `start` starts the first, `replace` replaces it, `close` ends them all."""

    def __init__(self) -> None:
        self._runtime_folder = RuntimeFolder()
        self.folder = self._runtime_folder.path
        """The gateway's private folder."""
        self._starts = 0
        self._series = 0
        self._hot_restart: HotRestart | None = None
        self._running: set[EnvoyInstance] = set()
        self._access_log = AccessLog()
        self.draining: set[asyncio.Task[None]] = set()
        """One task per replaced Envoy, done once it has exited."""

    @property
    def pids(self) -> list[int]:
        """The process ids of the running Envoys."""
        return [envoy.process.pid for envoy in self._running]

    @property
    def folders(self) -> list[Path]:
        """The folders of the running Envoys, those that start included."""
        return [envoy.folder for envoy in self._running]

    async def start(
        self, plan: GatewayPlan, secrets: GatewaySecrets, last_good: StaticResources | None, *, strict: bool
    ) -> EnvoyInstance:
        """Starts an Envoy that takes over from none and returns it once it serves.

        It serves the configuration `last_good`, or the registry's if that is None. `secrets` are its certificates.
        Raises `CannotServe`; see `EnvoyInstance.wait_until_serving` for `strict`.
        """
        self._end_hot_restart()
        self._series += 1
        self._hot_restart = HotRestart(self.folder, self._series)
        envoy = await self._launch(plan, secrets, self._hot_restart, last_good, strict=strict)
        self._hot_restart.mark_succeeded()
        return envoy

    async def replace(
        self, old: EnvoyInstance, plan: GatewayPlan, secrets: GatewaySecrets, last_good: StaticResources | None
    ) -> EnvoyInstance:
        """Starts an Envoy that takes over from `old`, which finishes its requests and exits. See `start`.

        Raises `CannotServe`. Then `old` still serves and can be replaced later, but its admin interface may not answer
        any more: an Envoy closes it for good once its successor has started.
        """
        if self._hot_restart is None or not IS_SUPPORTED:
            raise CannotServe("Envoy supports hot restart on Linux only; restart the gateway instead")
        if not self.can_replace(plan):
            raise CannotServe(
                "an earlier reload failed, and Envoy refuses further ones until its shared memory is reset, which "
                "--no-process-access forbids; restart the gateway instead"
            )
        if self._hot_restart.is_blocked:
            self._hot_restart.unblock()
        try:
            async with asyncio.timeout(TAKEOVER_TIMEOUT):
                new = await self._launch(plan, secrets, self._hot_restart, last_good, strict=True)
        except TimeoutError:
            raise CannotServe(f"the new Envoy was not ready within {TAKEOVER_TIMEOUT:g} s") from None
        self._hot_restart.mark_succeeded()
        task = asyncio.create_task(_wait_for_exit(old))
        self.draining.add(task)
        task.add_done_callback(self.draining.discard)
        return new

    def can_replace(self, plan: GatewayPlan) -> bool:
        """Returns whether an Envoy can be replaced by one with that plan.

        Without `process_access`, one failed replacement blocks all further ones.
        """
        return self._hot_restart is not None and (plan.process_access or not self._hot_restart.is_blocked)

    def kill_all(self) -> None:
        """Kills every Envoy at once."""
        for envoy in self._running:
            envoy.process.signal(signal.SIGKILL)

    async def close(self) -> None:
        """Ends every Envoy and removes the gateway's folder. Idempotent."""
        for task in list(self.draining):
            task.cancel()
        for envoy in list(self._running):
            await envoy.process.stop(KILL_AFTER)
        self._access_log.close()
        self._end_hot_restart()
        self._runtime_folder.close()

    async def _launch(
        self,
        plan: GatewayPlan,
        secrets: GatewaySecrets,
        hot_restart: HotRestart,
        last_good: StaticResources | None,
        *,
        strict: bool,
    ) -> EnvoyInstance:
        responsive_nodes = []
        if last_good is None:
            responsive_nodes = await xds_health.responsive_nodes(plan.registry_nodes, secrets.identity)
        self._starts += 1
        folder = self.folder / str(self._starts)
        try:
            folder.mkdir(mode=0o700)
            envoy = EnvoyInstance.start(
                plan, secrets, folder, hot_restart.arguments(), last_good, self._access_log, responsive_nodes
            )
        except OSError as error:
            raise CannotServe(f"Envoy can't be started in {folder}: {error.strerror}") from None
        self._running.add(envoy)
        envoy.process.exited.add_done_callback(lambda _: self._remove(envoy))
        try:
            await envoy.wait_until_serving(strict=strict)
        except BaseException:
            await envoy.process.kill()  # SIGTERM would make it shut down the Envoy before it.
            raise
        return envoy

    def _remove(self, envoy: EnvoyInstance) -> None:
        self._running.discard(envoy)
        shutil.rmtree(envoy.folder, ignore_errors=True)

    def _end_hot_restart(self) -> None:
        if self._hot_restart is not None:
            self._hot_restart.remove_shared_memory()


async def _wait_for_exit(old: EnvoyInstance) -> None:
    """Waits until the replaced Envoy has exited: its successor shuts it down. If that fails, ends it."""
    if not await _exits_within(old, old.exits_within - REPORT_BEFORE_EXIT):
        await log_dropped_connections(old)
        if not await _exits_within(old, REPORT_BEFORE_EXIT + EXIT_MARGIN):
            await old.process.stop(KILL_AFTER)


async def _exits_within(old: EnvoyInstance, timeout: float) -> bool:
    done, _ = await asyncio.wait({old.process.exited}, timeout=timeout)
    return bool(done)
