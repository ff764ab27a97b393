"""The Envoys of one gateway, one after the other; at most two run at a time, while one takes over."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from adsum.envoy.draining import KILL_AFTER
from adsum.envoy.incarnation import Incarnation
from adsum.envoy.keepsake import Told
from adsum.envoy.lineage import POSSIBLE, Lineage
from adsum.envoy.plan import Plan
from adsum.envoy.preflight import CannotServe

TAKEOVER: Final = 30.0
"""Seconds that one that is to take over has to come up; then it is given up."""
LATE: Final = 5.0
"""Seconds by which one that was replaced may end later than it should; then it is ended."""
LONGEST_FOLDER: Final = 60
"""Characters; the path of a socket has at most 107, and a folder of ours and a name in it take up to 45 of them."""


class Succession:
    """`begin` a line of Envoys, have others `follow`; `close` leaves none."""

    def __init__(self) -> None:
        parent = tempfile.gettempdir()
        self._folder = Path(
            tempfile.mkdtemp(prefix="adsum-gateway-", dir=parent if len(parent) <= LONGEST_FOLDER else "/tmp")  # noqa: S108
        )
        self._begun = 0
        self._lineages = 0
        self._lineage: Lineage | None = None
        self._running: set[Incarnation] = set()
        self.leaving: set[asyncio.Task[None]] = set()
        """Done when those that were replaced have ended."""

    @property
    def pids(self) -> list[int]:
        """Of those that run."""
        return [each.process.pid for each in self._running]

    async def begin(self, plan: Plan, told: Told | None, *, strict: bool) -> Incarnation:
        """One that follows none, once it serves; it gets what there is to serve from `told`, else from the registry.

        Raises `CannotServe`; see `Incarnation.until_serving` for `strict`.
        """
        self._end_lineage()
        self._lineages += 1
        self._lineage = Lineage(self._folder, self._lineages)
        one = await self._come_up(plan, self._lineage, told, strict=strict)
        self._lineage.succeeded()
        return one

    async def follow(self, old: Incarnation, plan: Plan) -> Incarnation:
        """One that has taken over from `old`, which finishes what runs and leaves.

        Raises `CannotServe` and `TimeoutError`: then `old` goes on, but nobody can ask it anything any more.
        """
        if self._lineage is None or not POSSIBLE:
            raise CannotServe("Envoy can take over from another on Linux alone; restart the gateway instead")
        try:
            async with asyncio.timeout(TAKEOVER):
                new = await self._come_up(plan, self._lineage, None, strict=True)
        except BaseException:
            self._lineage.failed()
            raise
        self._lineage.succeeded()
        leaving = asyncio.create_task(_see_off(old))
        self.leaving.add(leaving)
        leaving.add_done_callback(self.leaving.discard)
        return new

    def kill(self) -> None:
        """All of them, now."""
        for each in self._running:
            each.process.signal(signal.SIGKILL)

    async def close(self) -> None:
        """End what still runs, and leave nothing behind; idempotent."""
        for leaving in list(self.leaving):
            leaving.cancel()
        for each in list(self._running):
            await each.process.end(KILL_AFTER)
        self._end_lineage()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _come_up(self, plan: Plan, lineage: Lineage, told: Told | None, *, strict: bool) -> Incarnation:
        self._begun += 1
        one = Incarnation.start(plan, self._folder / f"admin-{self._begun}.sock", lineage.arguments(), told)
        self._running.add(one)
        one.process.ended.add_done_callback(lambda _: self._running.discard(one))
        try:
            await one.until_serving(strict=strict)
        except BaseException:
            await one.process.end(KILL_AFTER)
            raise
        return one

    def _end_lineage(self) -> None:
        if self._lineage is not None:
            self._lineage.end()


async def _see_off(old: Incarnation) -> None:
    """The one that took over tells it to end; unless it can't."""
    with suppress(TimeoutError):
        async with asyncio.timeout(old.leaves_within + LATE):
            await asyncio.shield(old.process.ended)
            return
    await old.process.end(KILL_AFTER)
