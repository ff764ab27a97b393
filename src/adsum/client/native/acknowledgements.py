"""Telling a registry node what we route by, so that a drain knows when nobody calls the instance any more."""

from __future__ import annotations

import asyncio
import logging
from random import Random

from adsum.client.errors import NodeUnreachable
from adsum.client.native.api import RegistryApi
from adsum.client.sources.source import ServiceUpdate
from adsum.core.backoff import Backoff
from adsum.core.selection import DECLARED_STATUSES
from adsum.ports import Clock

MIN_RESEND_PAUSE, MAX_RESEND_PAUSE = 0.25, 5.0
"""Bounds of the pause before an acknowledgement is sent again that did not arrive."""

_log = logging.getLogger(__name__)


class Acknowledgements:
    """One connection's acknowledgements: one on its way at a time, the latest revision wins.

    One that does not arrive is sent again for as long as the connection lasts: drains wait for it.
    """

    def __init__(self, api: RegistryApi, node: str, clock: Clock, rng: Random) -> None:
        self._api = api
        self._node = node
        self._clock = clock
        self._rng = rng
        self._first = True
        self._due: tuple[str, int] | None = None
        self._task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Stop; idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def acknowledge(self, update: ServiceUpdate, watch: str) -> None:
        """We route by `update`: say so if somebody may wait for it, and after connecting, when nobody knows us yet."""
        matters = update.removed or any(endpoint.status in DECLARED_STATUSES for endpoint in update.changed.values())
        if not (matters or self._first):
            return
        self._first = False
        self._due = (watch, update.position.revision)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._say(), name="adsum-acknowledge")

    async def _say(self) -> None:
        backoff = Backoff(MIN_RESEND_PAUSE, MAX_RESEND_PAUSE)
        while self._due is not None:
            watch, revision = due = self._due
            try:
                await self._api.acknowledge(self._node, watch, revision)
            except NodeUnreachable as error:
                _log.info("could not tell %s yet that revision %d is applied: %s", self._node, revision, error)
                await self._clock.sleep(backoff.next(self._rng))
                continue
            if self._due == due:
                self._due = None
