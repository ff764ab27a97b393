"""Acknowledges revisions to a registry node: the consumer routes by them. Drains wait for that."""

from __future__ import annotations

import asyncio
import logging
from random import Random

from adsum.client.errors import NodeUnreachable
from adsum.client.native.api import RegistryApi
from adsum.core.backoff import Backoff
from adsum.ports import Clock

MIN_RESEND_PAUSE, MAX_RESEND_PAUSE = 0.25, 5.0
"""Seconds, bounds of the pause before an acknowledgement that did not arrive is sent again."""

_log = logging.getLogger("adsum.client.native.watching")


class Acknowledgements:
    """The acknowledgements of one connection: one is sent at a time, for all services that have reached its revision.

    The latest revision of a service replaces earlier ones. An acknowledgement that does not arrive is sent again for as
    long as the connection lasts, since drains wait for it.
    """

    def __init__(self, api: RegistryApi, node: str, clock: Clock, rng: Random) -> None:
        self._api = api
        self._node = node
        self._clock = clock
        self._rng = rng
        self._known: set[str] = set()
        """The services for which the node knows the consumer, or learns it soon."""
        self._due: dict[str, int] = {}
        """The revisions to acknowledge, by service."""
        self._task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Stops sending. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def acknowledge(self, service: str, revision: int, watch: str, *, by_service: bool, is_awaited: bool) -> None:
        """Acknowledges a revision of a service. `watch` is the id of the watch at the node.

        Sent only if a drain may wait for it (`is_awaited`), and once after the service was connected, when the node
        does not know the consumer yet. `by_service` false: the node knows acknowledgements of whole watches only.
        """
        if not (is_awaited or service not in self._known):
            return
        self._known.add(service)
        self._due[service] = revision
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._send(watch, by_service=by_service), name="adsum-acknowledge")

    def forget(self, service: str) -> None:
        """Forgets a service that leaves the watch or joins it again."""
        self._known.discard(service)
        self._due.pop(service, None)

    async def _send(self, watch: str, *, by_service: bool) -> None:
        backoff = Backoff(MIN_RESEND_PAUSE, MAX_RESEND_PAUSE)
        while self._due:
            revision = min(self._due.values())
            services = [service for service, due in self._due.items() if due == revision]
            try:
                await self._api.acknowledge(self._node, watch, revision, services if by_service else ())
            except NodeUnreachable as error:
                _log.info("revision %d could not be acknowledged at %s yet: %s", revision, self._node, error)
                await self._clock.sleep(backoff.next(self._rng))
                continue
            for service in services:
                if self._due.get(service) == revision:
                    del self._due[service]
