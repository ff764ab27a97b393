"""Telling a registry node what we route by, so that a drain knows when nobody calls the instance any more."""

from __future__ import annotations

import asyncio
import logging

from adsum.client.api import Api
from adsum.client.errors import Unreachable
from adsum.client.ports import Group
from adsum.core.selection import DECLARED

_log = logging.getLogger(__name__)


class Acknowledging:
    """One connection's acknowledgements: one on its way at a time, the latest revision wins."""

    def __init__(self, api: Api, node: str) -> None:
        self._api = api
        self._node = node
        self._first = True
        self._due: tuple[str, int] | None = None
        self._task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Stop; idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def routed_by(self, group: Group, watch: str) -> None:
        """We route by `group`: say so if somebody may wait for it, and after connecting, when nobody knows us yet."""
        matters = group.gone or any(endpoint.status in DECLARED for endpoint in group.changed.values())
        if not (matters or self._first):
            return
        self._first = False
        self._due = (watch, group.position.revision)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._say(), name="adsum-acknowledge")

    async def _say(self) -> None:
        while self._due is not None:
            (watch, revision), self._due = self._due, None
            try:
                await self._api.applied(self._node, watch, revision)
            except Unreachable as error:
                # The drain that waits for us says that we were unaware: that is the truth as it knows it.
                _log.info("could not tell %s that revision %d is applied: %s", self._node, revision, error)
