"""A gateway: keeps one Envoy serving, restarts it when it exits, and replaces it when the settings change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final

from adsum.cache_files import cache_folder
from adsum.certificates.expiry import CertificateLife
from adsum.core.backoff import Backoff, jittered
from adsum.core.errors import AdsumError
from adsum.envoy.certificates.expiry import watch_expiry
from adsum.envoy.certificates.gateway_secrets import GatewaySecrets, SecretRenewal, read_secrets
from adsum.envoy.certificates.identity import RegistryIdentity
from adsum.envoy.certificates.identity_renewal import keep_identity_valid, obtain_certificate
from adsum.envoy.certificates.renewal import CERTIFICATE_POLL_INTERVAL
from adsum.envoy.plan import GatewayPlan, SocketAddress
from adsum.envoy.preflight import CannotServe, check_plan
from adsum.envoy.process.envoy_instance import EnvoyInstance
from adsum.envoy.registry_health.config_saver import save_config, save_periodically
from adsum.envoy.registry_health.contact_watch import watch_contact
from adsum.envoy.registry_health.last_good_config import LastGoodConfig, StaticResources
from adsum.envoy.registry_health.xds_health import is_reachable, unreachable_reason, wait_until_reachable
from adsum.envoy.restart.draining import KILL_AFTER, drain
from adsum.envoy.restart.rollout import EXIT_MARGIN, TAKEOVER_TIMEOUT, EnvoyRollout

FIRST_RESTART_DELAY, MAX_RESTART_DELAY = 0.1, 5.0
"""Seconds before an Envoy that has exited by itself is started again."""
FIRST_REPLACE_DELAY, MAX_REPLACE_DELAY = 1.0, 60.0
"""Seconds before the gateway tries again to replace an Envoy when its replacement has failed."""
STABLE_AFTER: Final = 30.0
"""Seconds that an Envoy must have run for its exit to reset the restart delay."""

_log = logging.getLogger("adsum.envoy")


class Gateway:
    """Keeps an Envoy serving between `start` and `stop`. `reload` replaces it by one with the current settings."""

    def __init__(self, plan: GatewayPlan, reread_plan: Callable[[], GatewayPlan], rng: Random) -> None:
        """`reread_plan` makes the plan from the current settings. It may block on the disk, and raise `AdsumError`."""
        self._plan = plan
        self._reread_plan = reread_plan
        self._rng = rng
        self._envoys = EnvoyRollout()
        self._last_good = LastGoodConfig(cache_folder("gateways"), plan)
        self._renewal = SecretRenewal(GatewaySecrets())
        self._replace_backoff = Backoff(FIRST_REPLACE_DELAY, MAX_REPLACE_DELAY)
        self._replace_delay = 0.0
        """Seconds until the next attempt to replace the Envoy without a reload."""
        self._is_unresponsive = False
        """True if the serving Envoy has closed its admin interface for a replacement, which then failed."""
        self._reload_requested = asyncio.Event()
        self._on_reloaded: Callable[[], None] = lambda: None
        self._replacing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._current: EnvoyInstance | None = None

    @property
    def pids(self) -> list[int]:
        """The process ids of its Envoys: one, or two while one takes over from the other."""
        return self._envoys.pids

    @property
    def urls(self) -> list[str]:
        """The URLs at which it accepts requests."""
        return self._plan.urls

    async def start(self) -> None:
        """Starts Envoy and returns once it accepts requests. Raises `CannotServe`."""
        folder = self._credentials_folder()
        try:
            if folder is not None:
                await obtain_certificate(folder, self._rng)
            self._renewal = await self._check(self._plan, ())
            # A registry that does not accept the certificates yet may keep Envoy waiting until they are renewed.
            renewals = self._renew_certificates(), keep_identity_valid(self._credentials_folder, self._rng)
            self._tasks = [asyncio.create_task(work) for work in renewals]
            self._current = await self._start_envoy(strict=True)
        except BaseException:
            for task in self._tasks:
                await _cancel(task)
            await self._envoys.close()
            raise
        loops = (
            self._keep_serving(self._current),
            save_periodically(lambda: self._last_good, self._serving, self._rng),
            watch_contact(self._serving, self._identity, self._rng),
            watch_expiry(self._certificate_lives, self._rng),
        )
        self._tasks += [asyncio.create_task(work) for work in loops]

    def reload(self, on_done: Callable[[], None] = lambda: None) -> None:
        """Replaces the Envoy by one that follows the current settings, without a gap. Failures are logged.

        `on_done` is called once the new Envoy serves or the old one stays.
        """
        self._on_reloaded = on_done
        self._reload_requested.set()

    async def wait_until_failed(self) -> None:
        """Never returns while the gateway works. Raises the error that ended one of its tasks."""
        await asyncio.gather(*map(asyncio.shield, self._tasks))

    async def stop(self) -> None:
        """Refuses new connections, finishes requests within the drain timeout, and ends. Idempotent."""
        self._reload_requested.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(EXIT_MARGIN), self._replacing:  # An Envoy amid a takeover can't be drained.
                pass
        for task in self._tasks:
            await _cancel(task)
        timeout = self._plan.drain_timeout
        drains = [drain(self._current, timeout)] if self._current is not None else []
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout + KILL_AFTER):
                await asyncio.gather(*drains, *self._envoys.draining)
        await self._envoys.close()

    def abort(self) -> None:
        """Kills every Envoy at once."""
        self._envoys.kill_all()

    async def _start_envoy(self, *, strict: bool) -> EnvoyInstance:
        """Starts an Envoy that takes over from none, and returns it once it serves.

        It follows the registry; if no node answers, it serves the last good configuration. For `strict`, see
        `EnvoyInstance.wait_until_serving`.
        """
        last_good = self._last_good.load()
        if last_good is None:
            return await self._start_envoy_with(None, strict=strict)
        if await is_reachable(self._plan.registry_nodes, self._identity()):
            with suppress(TimeoutError):
                async with asyncio.timeout(TAKEOVER_TIMEOUT):
                    return await self._start_envoy_with(None, strict=strict)
        try:
            envoy = await self._start_envoy_with(last_good, strict=strict)
        except CannotServe as error:
            _log.warning("the last good configuration can't be served: %s", error)
            return await self._start_envoy_with(None, strict=strict)
        _log.warning("no registry answers; the gateway serves the last good configuration")
        return envoy

    async def _start_envoy_with(self, last_good: StaticResources | None, *, strict: bool) -> EnvoyInstance:
        return await self._envoys.start(self._plan, self._renewal.secrets, last_good, strict=strict)

    async def _check(self, plan: GatewayPlan, already_open: Sequence[SocketAddress]) -> SecretRenewal:
        """Checks the plan and its certificates. Returns the renewal, which has the certificates. Raises `CannotServe`.

        `already_open`: see `check_plan`.
        """

        def valid_secrets() -> GatewaySecrets:
            check_plan(plan, already_open)
            return read_secrets(plan, self._envoys.folder)

        renewal = SecretRenewal(await asyncio.to_thread(valid_secrets))
        if plan.connection_limit < plan.max_connections:
            _log.info(
                "the gateway accepts at most %d connections instead of the %d of --max-connections, because a program "
                "may open %d files here and each connection needs two; raise the hard limit (ulimit -Hn; LimitNOFILE= "
                "of systemd; --ulimit nofile= of docker)",
                plan.connection_limit,
                plan.max_connections,
                plan.max_open_files,
            )
        return renewal

    async def _keep_serving(self, current: EnvoyInstance) -> None:
        backoff = Backoff(FIRST_RESTART_DELAY, MAX_RESTART_DELAY)
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        while True:
            await self._wait_for_change(current)
            if not current.process.running:
                if loop.time() - started_at >= STABLE_AFTER:
                    backoff.reset()
                current = await self._restart(backoff, current)
                started_at = loop.time()
                self._is_unresponsive = False
            elif self._reload_requested.is_set():
                self._reload_requested.clear()
                current = await self._replace(current, self._reread_plan, allow_last_good=True)
                self._on_reloaded()
            else:
                current = await self._replace(current, lambda: self._plan, allow_last_good=self._is_unresponsive)
            self._current = current

    async def _wait_for_change(self, current: EnvoyInstance) -> None:
        """Returns when the Envoy has exited or should be replaced."""
        while self._envoys.draining and current.process.running:  # Hot restart supports only two Envoys at a time.
            await asyncio.wait([current.process.exited, *self._envoys.draining], return_when=asyncio.FIRST_COMPLETED)
        waiting = [asyncio.create_task(self._wait_for_reload())]
        if (self._is_unresponsive or current.uses_last_good_config) and self._envoys.can_replace(self._plan):
            waiting.append(asyncio.create_task(self._wait_for_replacement(current)))
        try:
            await asyncio.wait([current.process.exited, *waiting], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                await _cancel(task)

    async def _wait_for_replacement(self, current: EnvoyInstance) -> None:
        """Returns when an Envoy that does not follow the registry, or is unresponsive, should be replaced."""
        await asyncio.sleep(self._replace_delay)
        if not self._is_unresponsive:
            await wait_until_reachable(current.plan.registry_nodes, self._identity, self._rng)

    async def _wait_for_reload(self) -> None:
        await self._reload_requested.wait()

    async def _restart(self, backoff: Backoff, exited: EnvoyInstance) -> EnvoyInstance:
        problem = f"Envoy has exited unexpectedly ({exited.process.exit_summary()})"
        while True:
            delay = backoff.next(self._rng)
            _log.error("%s; it is restarted in %.1f s", problem, delay)
            await asyncio.sleep(delay)
            try:
                envoy = await self._start_envoy(strict=False)
            except CannotServe as error:
                problem = str(error)
            else:
                _log.info("Envoy serves again")
                return envoy

    async def _replace(
        self, old: EnvoyInstance, make_plan: Callable[[], GatewayPlan], *, allow_last_good: bool
    ) -> EnvoyInstance:
        """Returns the Envoy that serves afterwards: a new one with the plan, or the old one if the new one failed.

        `allow_last_good`: whether the new one may serve the last good configuration if no registry answers.
        """
        async with self._replacing:
            try:
                plan = await asyncio.to_thread(make_plan)
                renewal = await self._check(plan, old.plan.all_addresses)
                await save_config(old, self._last_good)
                last_good_config = LastGoodConfig(cache_folder("gateways"), plan)
                if last_good_config.name == self._last_good.name:
                    last_good_config = self._last_good
                last_good = await self._config_source(
                    plan, renewal.secrets.identity, last_good_config, allow_last_good=allow_last_good
                )
                new = await self._envoys.replace(old, plan, renewal.secrets, last_good)
            except AdsumError as error:
                self._is_unresponsive = not await old.admin.is_responsive()
                self._replace_delay = self._replace_backoff.next(self._rng)
                _log.error("not reloaded, the current Envoy keeps serving: %s", error)
                return old
            self._plan, self._current, self._last_good, self._renewal = plan, new, last_good_config, renewal
            self._is_unresponsive = False
        if last_good is None:
            self._replace_delay = 0.0
            self._replace_backoff.reset()
            _log.info("reloaded: a new Envoy serves; the old one finishes its requests")
        else:
            _log.warning("reloaded: no registry answers, so a new Envoy serves the last good configuration")
        return new

    async def _config_source(
        self,
        plan: GatewayPlan,
        identity: RegistryIdentity | None,
        last_good_config: LastGoodConfig,
        *,
        allow_last_good: bool,
    ) -> StaticResources | None:
        """Returns the configuration that a new Envoy serves; None is the registry's.

        Raises `CannotServe` if no registry answers and there is no last good configuration.
        """
        last_good = last_good_config.load() if allow_last_good else None
        if last_good is not None and self._is_unresponsive:  # The last attempt to follow the registry has failed.
            return last_good
        reason = await unreachable_reason(plan.registry_nodes, identity)
        if reason and last_good is None:
            raise CannotServe(f"no registry answers, so a new Envoy would have no configuration: {reason}")
        return last_good if reason else None

    async def _renew_certificates(self) -> None:
        """Installs new certificates soon after their files have changed."""
        while True:
            await asyncio.sleep(jittered(CERTIFICATE_POLL_INTERVAL, self._rng))
            if self._replacing.locked():
                continue
            async with self._replacing:
                renewed = await asyncio.to_thread(self._renewal.poll, self._plan, self._envoys.folder)
                if renewed:
                    await self._install_certificates(" and ".join(renewed))

    async def _install_certificates(self, names: str) -> None:
        try:
            for folder in self._envoys.folders:
                await asyncio.to_thread(self._renewal.secrets.install, folder)
        except OSError as error:
            _log.error("%s: the new one is not used before Envoy is started again: %s", names, error)
        else:
            _log.info("%s: the new one is used from now on", names)

    def _serving(self) -> EnvoyInstance | None:
        """Returns the Envoy that serves; None while another one takes over or none runs."""
        current = self._current
        if current is None or not current.process.running or self._replacing.locked():
            return None
        return current

    def _identity(self) -> RegistryIdentity | None:
        """Returns the newest identity of this gateway at its registry; None if it uses plain text."""
        return self._renewal.secrets.identity

    def _credentials_folder(self) -> Path | None:
        """Returns the credentials folder of this host, if the gateway's certificate is in one."""
        credentials = self._plan.xds_credentials
        return credentials.folder if credentials is not None else None

    def _certificate_lives(self) -> list[CertificateLife]:
        return self._renewal.secrets.lives(self._plan)


async def _cancel(task: asyncio.Task[None]) -> None:
    if not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
