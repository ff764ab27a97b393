"""The upkeep of tokens: records the day on which each was used last, and removes those that expired long ago."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from adsum.access.control import AccessControl
from adsum.access.token_declarations import mark_used, remove_expired
from adsum.core.catalog.declarations import Declaration
from adsum.core.errors import AdsumError
from adsum.ports import Clock
from adsum.registry import Registry

UPKEEP_INTERVAL: Final = 60.0
"""Seconds between two rounds."""
DAY: Final = 86_400.0
"""Seconds of a day: the precision of the recorded last use, so that a token is written at most once a day."""

_log = logging.getLogger("adsum.access")


class TokenUpkeep:
    """Runs on every node. Nodes that do the same work find it done: each round writes only what is still missing."""

    def __init__(self, registry: Registry, access: AccessControl, clock: Clock) -> None:
        self._registry = registry
        self._access = access
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts the rounds. The catalog is loaded."""
        self._task = asyncio.create_task(self._run(), name="adsum-token-upkeep")

    async def stop(self) -> None:
        """Stops the rounds. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(UPKEEP_INTERVAL)
            try:
                await self.run_once()
            except AdsumError as error:  # The next round tries again.
                _log.info("the upkeep of tokens is late: %s", error)
            except Exception:
                # Nobody awaits the task: without it, expired tokens would stay for ever, unnoticed.
                _log.exception("a round of the upkeep of tokens failed")

    async def run_once(self) -> None:
        """Writes what has changed since the last round. Raises what `Registry.write` raises."""
        access = self._access
        access.refresh()
        now = self._clock.wall()
        access.last_used |= dict.fromkeys(access.sessions.token_ids, now)  # A stream is opened once and used for weeks.
        for id in [id for id in access.last_used if access.tokens.find(id) is None]:
            del access.last_used[id]
        days = {id: used // DAY * DAY for id, used in access.last_used.items()}
        await self._write(mark_used(days))
        await self._write(remove_expired(now))

    async def _write(self, declaration: Declaration) -> None:
        if declaration(self._registry.snapshot):  # A round without work does not wait for the store.
            await self._registry.write(declaration)
