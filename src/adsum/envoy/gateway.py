"""A gateway: one Envoy that serves, whatever happens to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any, Final

from adsum.core.backoff import Backoff, jittered
from adsum.core.errors import AdsumError
from adsum.envoy.admin import NoAnswer
from adsum.envoy.draining import KILL_AFTER, drain
from adsum.envoy.incarnation import Incarnation
from adsum.envoy.keepsake import Keepsake, Told, default_folder
from adsum.envoy.plan import Plan
from adsum.envoy.preflight import CannotServe, check
from adsum.envoy.reaching import reachable, until_reachable
from adsum.envoy.succession import LATE, Succession

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before an Envoy that has ended by itself is started again."""
STEADY: Final = 30.0
"""Seconds that it has to run for its end not to count as one of a series."""
REMEMBER: Final = 5.0
"""Seconds between two looks at what Envoy was told, at least."""
SHARE: Final = 0.01
"""The share of the time that they may take: a large catalog is looked at less often."""

_log = logging.getLogger("adsum.envoy")


class Gateway:
    """`start` it in a running loop, `reload` and `stop` it; in between it is kept up."""

    def __init__(self, plan: Plan, again: Callable[[], Plan], rng: Random) -> None:
        """`again` makes the plan from the settings as they are then; it may wait for the disk, and raise."""
        self._plan = plan
        self._again = again
        self._rng = rng
        self._envoys = Succession()
        self._keepsake = Keepsake(default_folder(), plan)
        self._asked = asyncio.Event()
        self._settled: Callable[[], None] = lambda: None
        self._replacing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._current: Incarnation | None = None

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
            check(self._plan)
            self._current = await self._begin(strict=True)
        except BaseException:
            await self._envoys.close()
            raise
        self._tasks = [asyncio.create_task(self._keep(self._current)), asyncio.create_task(self._remember())]

    def reload(self, settled: Callable[[], None] = lambda: None) -> None:
        """Have a new Envoy that follows the settings take over without a gap; if it can't, the log says why.

        `settled` is called when it is decided which one serves.
        """
        self._settled = settled
        self._asked.set()

    async def failed(self) -> None:
        """Never returns while it is kept up; raises what ended that."""
        await asyncio.gather(*map(asyncio.shield, self._tasks))

    async def stop(self) -> None:
        """Accept nothing more, finish what runs within the drain's time, and end; idempotent."""
        self._asked.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(LATE), self._replacing:  # One that half took over can't be drained.
                pass
        for task in self._tasks:
            await _cancelled(task)
        patience = self._plan.drain_timeout
        draining = [drain(self._current, patience)] if self._current is not None else []
        with suppress(TimeoutError):
            async with asyncio.timeout(patience + KILL_AFTER):
                await asyncio.gather(*draining, *self._envoys.leaving)
        await self._envoys.close()

    def abort(self) -> None:
        """Cut everything off, now."""
        self._envoys.kill()

    async def _begin(self, *, strict: bool) -> Incarnation:
        """An Envoy that follows none, once it serves."""
        told = None if await reachable(self._plan.registry) else self._keepsake.load()
        if told is not None:
            try:
                one = await self._envoys.begin(self._plan, told, strict=strict)
            except CannotServe as error:
                _log.warning("it can't serve what it was told last: %s", error)
            else:
                _log.warning("no registry answers, so it serves what it was told last")
                return one
        return await self._envoys.begin(self._plan, None, strict=strict)

    async def _keep(self, current: Incarnation) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        loop = asyncio.get_running_loop()
        since = loop.time()
        while True:
            await self._news_of(current)
            if not current.process.running:
                if loop.time() - since >= STEADY:
                    backoff.reset()
                current = await self._begin_again(backoff, current)
                since = loop.time()
            elif self._envoys.leaving:
                continue  # Three Envoys at a time would not know one another.
            elif self._asked.is_set():
                self._asked.clear()
                current = await self._replace(current, self._again)
                self._settled()
            elif current.remembers:
                current = await self._replace(current, lambda: self._plan)
            self._current = current

    async def _news_of(self, current: Incarnation) -> None:
        """Return when it has ended, the one before it has left, or another one is to take over."""
        waiting = [asyncio.create_task(self._wanting())]
        if current.remembers:
            waiting.append(asyncio.create_task(until_reachable(current.plan.registry, self._rng)))
        news: list[asyncio.Task[Any]] = [current.process.ended, *(self._envoys.leaving or waiting)]
        try:
            await asyncio.wait(news, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                await _cancelled(task)

    async def _wanting(self) -> None:
        await self._asked.wait()

    async def _begin_again(self, backoff: Backoff, ended: Incarnation) -> Incarnation:
        why = f"Envoy has ended by itself ({ended.process.story()})"
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

    async def _replace(self, old: Incarnation, wanted: Callable[[], Plan]) -> Incarnation:
        """Who serves afterwards: a new one that follows the plan, or, if that can't be, the old one."""
        async with self._replacing:
            try:
                plan = await asyncio.to_thread(wanted)
                check(plan, held=old.plan.all_places)
                if not await (reachable(plan.registry) if old.remembers else old.admin.connected()):
                    raise CannotServe("the registry is out of reach, so that a new Envoy would have nothing to serve")
                new = await self._envoys.follow(old, plan)
            except (AdsumError, TimeoutError) as error:
                why = str(error) or "the new one took no requests in time"
                _log.error("not reloaded, the Envoy that serves goes on: %s", why)
                return old
            self._plan, self._current = plan, new
            self._keepsake = Keepsake(default_folder(), plan)
        _log.info("reloaded: a new Envoy serves; the one before finishes what runs")
        return new

    async def _remember(self) -> None:
        """Keep what Envoy is told, as far as that costs next to nothing."""
        loop = asyncio.get_running_loop()
        pause = REMEMBER
        while True:
            await asyncio.sleep(jittered(pause, self._rng))
            current, began = self._current, loop.time()
            if current is None or current.remembers or not current.process.running:
                continue
            with suppress(NoAnswer):
                self._keepsake.save(Told.of(await current.admin.dump()))
            pause = max(REMEMBER, (loop.time() - began) / SHARE)


async def _cancelled(task: asyncio.Task[None]) -> None:
    if not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
