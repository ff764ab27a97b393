"""A gateway: one Envoy that serves, whatever happens to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Final

from adsum.cache_files import cache_folder
from adsum.core.backoff import Backoff, jittered
from adsum.core.errors import AdsumError
from adsum.envoy.admin import AdminClient, AdminUnavailable
from adsum.envoy.certificates import certificate, expiry
from adsum.envoy.certificates.renewal import CERTIFICATE_POLL_INTERVAL, CertificateRenewal
from adsum.envoy.metrics import monitor
from adsum.envoy.plan import GatewayPlan, SocketAddress
from adsum.envoy.preflight import CannotServe, check_plan
from adsum.envoy.process.envoy_instance import EnvoyInstance
from adsum.envoy.registry_health import registry_contact
from adsum.envoy.registry_health.last_good_config import LastGoodConfig, StaticResources
from adsum.envoy.registry_health.xds_health import is_reachable, unreachable_reason, wait_until_reachable
from adsum.envoy.restart.draining import KILL_AFTER, drain
from adsum.envoy.restart.rollout import EXIT_MARGIN, TAKEOVER_TIMEOUT, EnvoyRollout

FIRST_RESTART_DELAY, MAX_RESTART_DELAY = 0.1, 5.0
"""Seconds before an Envoy that has ended by itself is started again."""
FIRST_REPLACE_DELAY, MAX_REPLACE_DELAY = 1.0, 60.0
"""Seconds before another Envoy is tried of ourselves when one could not take over."""
STABLE_AFTER: Final = 30.0
"""Seconds that it has to run for its end not to count as one of a series."""
SAVE_INTERVAL: Final = 5.0
"""Seconds between two looks at what Envoy was told, at least."""
MAX_SAVE_TIME_SHARE: Final = 0.01
"""The share of the time that they may take: a large catalog is looked at less often."""

_log = logging.getLogger("adsum.envoy")


class Gateway:
    """`start` it in a running loop, `reload` and `stop` it; in between it is kept up."""

    def __init__(self, plan: GatewayPlan, reread_plan: Callable[[], GatewayPlan], rng: Random) -> None:
        """`again` makes the plan from the settings as they are then; it may wait for the disk, and raise."""
        self._plan = plan
        self._again = reread_plan
        self._rng = rng
        self._envoys = EnvoyRollout()
        self._keepsake = LastGoodConfig(cache_folder("gateways"), plan)
        self._renewal = CertificateRenewal(b"")
        self._retry = Backoff(FIRST_REPLACE_DELAY, MAX_REPLACE_DELAY)
        self._pause = 0.0
        """Seconds until another one may be tried of ourselves."""
        self._deaf = False
        """Whether the one that serves can't be asked anything any more, since one that was to follow it failed."""
        self._asked = asyncio.Event()
        self._settled: Callable[[], None] = lambda: None
        self._replacing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._current: EnvoyInstance | None = None

    @property
    def pids(self) -> list[int]:
        """Its Envoys: one, or two while one takes over from the other."""
        return self._envoys.pids

    @property
    def urls(self) -> list[str]:
        """Where it takes requests."""
        return self._plan.urls

    async def start(self) -> None:
        """Return once it takes requests. Raises `CannotServe`."""
        try:
            self._renewal = await self._checked(self._plan, ())
            self._current = await self._begin(strict=True)
        except BaseException:
            await self._envoys.close()
            raise
        keeping = (self._keep(self._current), self._remember(), self._renew(), self._hear())
        watching = expiry.watch_expiry(self._serving, self._rng)
        self._tasks = [asyncio.create_task(each) for each in (*keeping, watching)]

    def reload(self, on_done: Callable[[], None] = lambda: None) -> None:
        """Have a new Envoy that follows the settings take over without a gap; if it can't, the log says why.

        `on_done` is called when it is decided which one serves.
        """
        self._settled = on_done
        self._asked.set()

    async def wait_until_failed(self) -> None:
        """Never returns while it is kept up; raises what ended that."""
        await asyncio.gather(*map(asyncio.shield, self._tasks))

    async def stop(self) -> None:
        """Accept nothing more, finish what runs within the drain's time, and end; idempotent."""
        self._asked.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(EXIT_MARGIN), self._replacing:  # One that half took over can't be drained.
                pass
        for task in self._tasks:
            await _cancelled(task)
        patience = self._plan.drain_timeout
        draining = [drain(self._current, patience)] if self._current is not None else []
        with suppress(TimeoutError):
            async with asyncio.timeout(patience + KILL_AFTER):
                await asyncio.gather(*draining, *self._envoys.draining)
        await self._envoys.close()

    def abort(self) -> None:
        """Cut everything off, now."""
        self._envoys.kill_all()

    async def _begin(self, *, strict: bool) -> EnvoyInstance:
        """An Envoy that follows none, once it serves."""
        told = self._keepsake.load()
        if told is None:
            return await self._begin_with(None, strict=strict)
        if await is_reachable(self._plan.registry_nodes):
            with suppress(TimeoutError):
                async with asyncio.timeout(TAKEOVER_TIMEOUT):
                    return await self._begin_with(None, strict=strict)
        try:
            one = await self._begin_with(told, strict=strict)
        except CannotServe as error:
            _log.warning("it can't serve what it was told last: %s", error)
            return await self._begin_with(None, strict=strict)
        _log.warning("no registry answers, so it serves what it was told last")
        return one

    async def _begin_with(self, told: StaticResources | None, *, strict: bool) -> EnvoyInstance:
        return await self._envoys.start(self._plan, self._renewal.pair, told, strict=strict)

    async def _checked(self, plan: GatewayPlan, held: Sequence[SocketAddress]) -> CertificateRenewal:
        """What begins with its certificate. Raises `CannotServe` if it can be known that the plan can't be served."""

        def pair() -> bytes:
            check_plan(plan, held)
            found = certificate.read_pair(plan.profile)
            certificate.validate_pair(found, plan, self._envoys.folder)
            return found

        renewal = CertificateRenewal(await asyncio.to_thread(pair))
        if plan.connection_limit < plan.max_connections:
            _log.info(
                "it takes at most %d connections, not the %d of --max-connections: the system lets it open %d files, "
                "two for each; raise the hard limit (ulimit -Hn; LimitNOFILE= of systemd; --ulimit nofile= of docker)",
                plan.connection_limit,
                plan.max_connections,
                plan.max_open_files,
            )
        return renewal

    async def _keep(self, current: EnvoyInstance) -> None:
        backoff = Backoff(FIRST_RESTART_DELAY, MAX_RESTART_DELAY)
        loop = asyncio.get_running_loop()
        since = loop.time()
        while True:
            await self._news_of(current)
            if not current.process.running:
                if loop.time() - since >= STABLE_AFTER:
                    backoff.reset()
                current = await self._begin_again(backoff, current)
                since = loop.time()
                self._deaf = False
            elif self._asked.is_set():
                self._asked.clear()
                current = await self._replace(current, self._again, recall=True)
                self._settled()
            else:
                current = await self._replace(current, lambda: self._plan, recall=self._deaf)
            self._current = current

    async def _news_of(self, current: EnvoyInstance) -> None:
        """Return when it has ended or another one is to take over."""
        while self._envoys.draining and current.process.running:  # Three at a time would not know one another.
            await asyncio.wait([current.process.exited, *self._envoys.draining], return_when=asyncio.FIRST_COMPLETED)
        waiting = [asyncio.create_task(self._wanting())]
        if self._deaf or current.uses_last_good_config:
            waiting.append(asyncio.create_task(self._time_for_another(current)))
        try:
            await asyncio.wait([current.process.exited, *waiting], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                await _cancelled(task)

    async def _time_for_another(self, current: EnvoyInstance) -> None:
        await asyncio.sleep(self._pause)
        if not self._deaf:
            await wait_until_reachable(current.plan.registry_nodes, self._rng)

    async def _wanting(self) -> None:
        await self._asked.wait()

    async def _begin_again(self, backoff: Backoff, ended: EnvoyInstance) -> EnvoyInstance:
        why = f"Envoy has ended by itself ({ended.process.exit_summary()})"
        while True:
            pause = backoff.next(self._rng)
            _log.error("%s; it is started again in %.1f s", why, pause)
            await asyncio.sleep(pause)
            try:
                one = await self._begin(strict=False)
            except CannotServe as error:
                why = str(error)
            else:
                _log.info("Envoy serves again")
                return one

    async def _replace(self, old: EnvoyInstance, wanted: Callable[[], GatewayPlan], *, recall: bool) -> EnvoyInstance:
        """Who serves afterwards: a new one that follows the plan, or, if that can't be, the old one.

        `recall`: whether what was told last will do, should no registry answer.
        """
        async with self._replacing:
            try:
                plan = await asyncio.to_thread(wanted)
                renewal = await self._checked(plan, old.plan.all_addresses)
                await self._memorize(old)
                keepsake = LastGoodConfig(cache_folder("gateways"), plan)
                if keepsake.name == self._keepsake.name:
                    keepsake = self._keepsake
                told = await self._source(plan, keepsake, recall=recall)
                new = await self._envoys.replace(old, plan, renewal.pair, told)
            except AdsumError as error:
                self._deaf = not await old.admin.is_responsive()
                self._pause = self._retry.next(self._rng)
                _log.error("not reloaded, the Envoy that serves goes on: %s", error)
                return old
            self._plan, self._current, self._keepsake, self._renewal = plan, new, keepsake, renewal
            self._deaf = False
        if told is None:
            self._pause = 0.0
            self._retry.reset()
            _log.info("reloaded: a new Envoy serves; the one before finishes what runs")
        else:
            _log.warning("reloaded: for want of a registry, a new Envoy serves what the one before was told last")
        return new

    async def _source(self, plan: GatewayPlan, keepsake: LastGoodConfig, *, recall: bool) -> StaticResources | None:
        """What a new one is to serve; None is what the registry says. Raises `CannotServe` if there is nothing."""
        told = keepsake.load() if recall else None
        if told is not None and self._deaf:  # The registry has let us down once.
            return told
        why = await unreachable_reason(plan.registry_nodes)
        if why and told is None:
            raise CannotServe(f"no registry answers, so that a new Envoy would have nothing to serve: {why}")
        return told if why else None

    async def _hear(self) -> None:
        """Say at /readyz and in the log when no registry is heard any more, and when one is heard again."""
        loop = asyncio.get_running_loop()
        state = registry_contact.RegistryContact(loop.time())
        shown: tuple[EnvoyInstance | None, bool] = (None, False)
        while True:
            await asyncio.sleep(jittered(registry_contact.CONTACT_POLL_INTERVAL, self._rng))
            current = self._current
            if current is None or not current.process.running or self._replacing.locked():
                continue
            with suppress(AdminUnavailable):
                connected, received = (
                    await current.admin.is_registry_connected(),
                    await current.admin.registry_bytes_received(),
                )
                refused_at = current.process.refused_at
                if state.update(loop.time(), connected=connected, received=received, refused_at=refused_at):
                    _tell_hearing(current, loop.time(), lost=state.is_lost)
                if shown != (current, state.is_lost):
                    await current.admin.set_runtime(
                        monitor.REGISTRY_LOST_KEY, monitor.ALWAYS_PERCENT if state.is_lost else 0
                    )
                    shown = current, state.is_lost

    async def _renew(self) -> None:
        """Show another certificate soon after there is one."""
        while True:
            await asyncio.sleep(jittered(CERTIFICATE_POLL_INTERVAL, self._rng))
            current = self._current
            if self._replacing.locked() or current is None or not self._plan.profile.tls_certificate:
                continue
            async with self._replacing:
                if await asyncio.to_thread(self._renewal.poll, self._plan, self._envoys.folder):
                    await self._show(current)

    def _serving(self) -> AdminClient | None:
        """Whom to ask what is shown; None: nobody, for a moment or since there is no certificate."""
        current = self._current
        if current is None or self._replacing.locked() or not self._plan.profile.tls_certificate:
            return None
        return current.admin

    async def _show(self, current: EnvoyInstance) -> None:
        try:
            await asyncio.to_thread(certificate.install_pair, self._renewal.pair, current.folder)
        except OSError as error:
            _log.error("another certificate is not shown before an Envoy is started again: %s", error)
        else:
            _log.info("another certificate is shown from now on")

    async def _remember(self) -> None:
        """Keep what Envoy is told, as far as that costs next to nothing."""
        loop = asyncio.get_running_loop()
        pause = SAVE_INTERVAL
        while True:
            await asyncio.sleep(jittered(pause, self._rng))
            current, began = self._current, loop.time()
            if current is None or not current.process.running or self._replacing.locked():
                continue
            await self._memorize(current)
            pause = max(SAVE_INTERVAL, (loop.time() - began) / MAX_SAVE_TIME_SHARE)

    async def _memorize(self, current: EnvoyInstance) -> None:
        if not current.uses_last_good_config:
            with suppress(AdminUnavailable):
                self._keepsake.save(StaticResources.from_config_dump(await current.admin.config_dump()))


async def _cancelled(task: asyncio.Task[None]) -> None:
    if not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _tell_hearing(current: EnvoyInstance, now: float, *, lost: bool) -> None:
    if not lost:
        _log.info("a registry is heard again")
        return
    process, why = current.process, ""
    if now - process.refused_at < registry_contact.LOST_AFTER:
        why = f"; the registry refuses this gateway: {process.refusal}"
    _log.warning(
        "no registry has been heard for %g s; it goes on with what it knows%s", registry_contact.LOST_AFTER, why
    )
