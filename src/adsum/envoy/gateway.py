"""A gateway: one Envoy that serves, whatever happens to it."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Final

from adsum.core.backoff import Backoff
from adsum.envoy.admin import NoAnswer
from adsum.envoy.bootstrap import bootstrap
from adsum.envoy.draining import KILL_AFTER, drain
from adsum.envoy.incarnation import Incarnation
from adsum.envoy.lineage import Lineage
from adsum.envoy.plan import Plan
from adsum.envoy.preflight import CannotServe, check

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before an Envoy that has ended by itself is started again."""
STEADY: Final = 30.0
"""Seconds that it has to run for its end not to count as one of a series."""
TAKEOVER: Final = 30.0
"""Seconds that one that is to take over has to come up; then the one that serves goes on."""
LATE: Final = 5.0
"""Seconds by which one that was replaced may end later than it should; then it is ended."""
LONGEST_FOLDER: Final = 80
"""Characters; the path of a socket has at most 107, and ours get names of up to 20 in there."""

_log = logging.getLogger("adsum.envoy")


class Gateway:
    """`start` it in a running loop, `reload` and `stop` it; in between it is kept up."""

    def __init__(self, plan: Plan, rng: Random) -> None:
        self._plan = plan
        self._rng = rng
        self._folder = _private_folder()
        self._begun = 0
        self._lineages = 0
        self._wanted: Plan | None = None
        self._asked = asyncio.Event()
        self._replacing = asyncio.Lock()
        self._running: set[Incarnation] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._keeping: asyncio.Task[None] | None = None
        self._lineage: Lineage
        self._current: Incarnation | None = None

    @property
    def pids(self) -> list[int]:
        """Its Envoys: one, or two while one takes over from the other."""
        return [each.process.pid for each in self._running]

    async def start(self) -> None:
        """Return once it takes requests. Raises `CannotServe`."""
        try:
            check(self._plan)
            await self._begin(strict=True)
        except BaseException:
            await self._clear()
            raise
        self._keeping = asyncio.create_task(self._keep())

    def reload(self, plan: Plan) -> None:
        """Have a new Envoy that follows `plan` take over without a gap; if it can't, the log says why."""
        self._wanted = plan
        self._asked.set()

    async def failed(self) -> None:
        """Never returns while it is kept up; raises what ended that."""
        if self._keeping is not None:
            await asyncio.shield(self._keeping)

    async def stop(self) -> None:
        """Accept nothing more, finish what runs within the drain's time, and end; idempotent."""
        self._asked.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(LATE), self._replacing:  # One that half took over can't be drained.
                pass
        await _cancelled(self._keeping)
        patience = self._plan.drain_timeout
        draining = [drain(self._current, patience)] if self._current is not None else []
        with suppress(TimeoutError):
            async with asyncio.timeout(patience + KILL_AFTER):
                await asyncio.gather(*draining, *self._leaving)
        await self._clear()

    def abort(self) -> None:
        """Cut everything off, now."""
        for each in self._running:
            each.process.signal(signal.SIGKILL)

    async def _begin(self, *, strict: bool) -> None:
        """Start an Envoy that follows none; return once it serves."""
        self._lineages += 1
        self._lineage = Lineage(self._folder, self._lineages)
        try:
            self._current = await self._come_up(self._plan, strict=strict)
        except BaseException:
            self._lineage.end()
            raise
        self._lineage.succeeded()

    async def _come_up(self, plan: Plan, *, strict: bool) -> Incarnation:
        self._begun += 1
        admin = self._folder / f"admin-{self._begun}.sock"
        one = await Incarnation.start(plan, bootstrap(plan, admin), admin, self._lineage.arguments())
        self._running.add(one)
        one.process.ended.add_done_callback(lambda _: self._running.discard(one))
        try:
            await one.until_serving(strict=strict)
        except BaseException:
            await one.process.end(KILL_AFTER)
            raise
        return one

    async def _keep(self) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        loop = asyncio.get_running_loop()
        since = loop.time()
        while self._current is not None:
            await self._next(self._current)
            if not self._current.process.running:
                if loop.time() - since >= STEADY:
                    backoff.reset()
                await self._begin_again(backoff, self._current)
                since = loop.time()
            elif self._asked.is_set() and self._wanted is not None and not self._leaving:
                self._asked.clear()
                await self._replace(self._current, self._wanted)

    async def _next(self, current: Incarnation) -> None:
        """Return when it has ended or a reload may begin: three Envoys at a time would not know one another."""
        asked = asyncio.create_task(self._asked.wait())
        news: list[asyncio.Task[Any]] = [current.process.ended, *(self._leaving or [asked])]
        try:
            await asyncio.wait(news, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancelled(asked)

    async def _begin_again(self, backoff: Backoff, ended: Incarnation) -> None:
        why = f"Envoy has ended by itself ({ended.process.story()})"
        self._lineage.end()
        while True:
            pause = backoff.next(self._rng)
            _log.error("%s; it is started again in %.1f s", why, pause)
            await asyncio.sleep(pause)
            try:
                await self._begin(strict=False)
            except CannotServe as error:
                why = str(error)
            else:
                _log.info("Envoy serves again")
                return

    async def _replace(self, old: Incarnation, plan: Plan) -> None:
        async with self._replacing:
            try:
                check(plan, held=_places(old.plan))
                if not await old.admin.connected():
                    raise CannotServe("the registry is out of reach, so that a new Envoy would have nothing to serve")
                async with asyncio.timeout(TAKEOVER):
                    new = await self._come_up(plan, strict=True)
            except (CannotServe, NoAnswer, TimeoutError) as error:
                self._lineage.failed()
                why = str(error) or f"the new Envoy took no requests within {TAKEOVER:g} s"
                _log.error("not reloaded, the Envoy that serves goes on: %s", why)
                return
            self._lineage.succeeded()
            self._plan, self._current = plan, new
        _log.info("reloaded: a new Envoy serves; the one before finishes what runs")
        leaving = asyncio.create_task(_see_off(old))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def _clear(self) -> None:
        for each in list(self._running):
            await each.process.end(KILL_AFTER)
        for leaving in list(self._leaving):
            await _cancelled(leaving)
        if self._lineages:
            self._lineage.end()
        shutil.rmtree(self._folder, ignore_errors=True)


async def _see_off(old: Incarnation) -> None:
    """The one that took over tells it to end; unless it can't."""
    with suppress(TimeoutError):
        async with asyncio.timeout(old.leaves_within + LATE):
            await asyncio.shield(old.process.ended)
            return
    await old.process.end(KILL_AFTER)


async def _cancelled(task: asyncio.Task[Any] | None) -> None:
    if task is not None and not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _places(plan: Plan) -> set[tuple[str, int]]:
    return {*plan.places, *([plan.monitor] if plan.monitor else [])}


def _private_folder() -> Path:
    folder = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="adsum-gateway-", dir=folder if len(folder) <= LONGEST_FOLDER else "/tmp"))  # noqa: S108
