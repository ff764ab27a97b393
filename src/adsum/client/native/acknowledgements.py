"""Acknowledges revisions to a registry node: the consumer routes by them. Drains wait for that."""

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
"""Seconds, bounds of the pause before an acknowledgement that did not arrive is sent again."""

_log = logging.getLogger(__name__)


class Acknowledgements:
    """The acknowledgements of one connection: one is sent at a time, and the latest revision replaces earlier ones.

    An acknowledgement that does not arrive is sent again for as long as the connection lasts, since drains wait for it.
    """

    def __init__(self, api: RegistryApi, node: str, clock: Clock, rng: Random) -> None:
        self._api = api
        self._node = node
        self._clock = clock
        self._rng = rng
        self._is_first = True
        self._due: tuple[str, int] | None = None
        self._task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Stops sending. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def acknowledge(self, update: ServiceUpdate, watch: str) -> None:
        """Acknowledges `update`: the consumer routes by it. `watch` is the id of the watch at the node.

        Sent only if a drain may wait for it, and once after connecting, when the node does not know the consumer yet.
        """
        statuses = {endpoint.status for endpoint in update.changed.values()}
        may_be_awaited = bool(update.removed) or not DECLARED_STATUSES.isdisjoint(statuses)
        if not (may_be_awaited or self._is_first):
            return
        self._is_first = False
        self._due = (watch, update.position.revision)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._send(), name="adsum-acknowledge")

    async def _send(self) -> None:
        backoff = Backoff(MIN_RESEND_PAUSE, MAX_RESEND_PAUSE)
        while self._due is not None:
            watch, revision = due = self._due
            try:
                await self._api.acknowledge(self._node, watch, revision)
            except NodeUnreachable as error:
                _log.info("revision %d could not be acknowledged at %s yet: %s", revision, self._node, error)
                await self._clock.sleep(backoff.next(self._rng))
                continue
            if self._due == due:
                self._due = None
