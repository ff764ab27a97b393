"""The requests by which services join and leave the watch of one connection, one at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from itertools import islice
from random import Random
from typing import Final

from adsum import wire
from adsum.client.errors import NodeUnreachable, NotAuthenticated, RegistryRefused
from adsum.client.native.api import RegistryApi
from adsum.core.backoff import Backoff
from adsum.core.validation import without_credentials
from adsum.ports import Clock

MIN_RETRY_PAUSE, MAX_RETRY_PAUSE = 0.25, 2.0
"""Seconds, bounds of the pause before a request that failed is sent again."""
MAX_JOIN_ATTEMPTS: Final = 3
"""Requests for a service to join that may fail one after the other. Then it does not join."""

_log = logging.getLogger("adsum.client.native.watching")


class JoinRequests:
    """Sends what has to join and leave, all that has come together in one request."""

    def __init__(
        self,
        api: RegistryApi,
        node: str,
        clock: Clock,
        rng: Random,
        on_sending: Callable[[], None],
        on_failed: Callable[[Collection[str], str], None],
        on_refused: Callable[[str], None],
    ) -> None:
        """`on_sending` is called when services begin to wait for an answer.

        `on_failed` is called with services whose request will be sent again, and the reason as a clause, and
        `on_refused` with a service that can't join.
        """
        self.waiting_since: float | None = None
        """The time at which the request was sent that is not answered yet; None if no service waits for an answer."""
        self._api = api
        self._node = node
        self._clock = clock
        self._rng = rng
        self._on_sending = on_sending
        self._on_failed = on_failed
        self._on_refused = on_refused
        self._watch = ""
        self._joining: dict[str, wire.JoiningService] = {}
        self._leaving: dict[str, None] = {}
        self._wanted: set[str] = set()
        """The services that have to join, or have joined."""
        self._services_per_request = wire.MAX_WATCH_UPDATE
        self._failures = 0
        """Requests that failed since the last one that succeeded."""
        self._task: asyncio.Task[None] | None = None

    def start(self, watch: str) -> None:
        """Begins to send. `watch` is the id of the watch at the node."""
        self._watch = watch
        self._wake()

    def join(self, joining: wire.JoiningService) -> None:
        """Lets a service join; it leaves first if it is on the watch."""
        self._wanted.add(joining.service)
        self._joining[joining.service] = joining
        self._wake()

    def leave(self, service: str) -> None:
        """Lets a service leave."""
        self._wanted.discard(service)
        self._joining.pop(service, None)
        self._leaving[service] = None
        self._wake()

    def stop(self) -> None:
        """Sends no further request."""
        self._joining, self._leaving, self._watch = {}, {}, ""

    async def close(self) -> None:
        """Stops sending. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _wake(self) -> None:
        if self._watch and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._send(), name="adsum-join")

    async def _send(self) -> None:
        backoff = Backoff(MIN_RETRY_PAUSE, MAX_RETRY_PAUSE)
        while self._watch and (self._joining or self._leaving):
            joining = dict(islice(self._joining.items(), self._services_per_request))
            leaving = list(islice(self._leaving, wire.MAX_WATCH_UPDATE))
            # Taken out now: what has to join or leave during the request is sent after it.
            self._joining = {name: body for name, body in self._joining.items() if name not in joining}
            self._leaving = dict.fromkeys(name for name in self._leaving if name not in leaving)
            body = wire.WatchServicesBody(list(joining.values()), leaving)
            if joining:
                self.waiting_since = self._clock.now()
                self._on_sending()
            try:
                try:
                    await self._api.update_watch(self._node, self._watch, body, fresh=self._failures > 0)
                finally:
                    self.waiting_since = None
            except (NodeUnreachable, NotAuthenticated) as error:
                # Without valid credentials the stream itself ends soon.
                gives_up = not isinstance(error, NotAuthenticated) and self._failures + 1 >= MAX_JOIN_ATTEMPTS
                self._failures += 1
                _log.info("services could not join the watch at %s: %s", without_credentials(self._node), error)
                self._leaving |= dict.fromkeys(leaving)
                if gives_up:
                    self._failures = 0
                    self._refuse(joining)
                else:
                    self._put_back(joining)
                    self._on_failed(joining, f"{without_credentials(self._node)}: {error}")
                await self._clock.sleep(backoff.next(self._rng))
            except RegistryRefused as error:
                if joining:
                    self._leaving |= dict.fromkeys(leaving)
                if len(joining) > 1:  # Each is sent by itself, to find which of them is refused.
                    self._put_back(joining)
                    self._services_per_request = 1
                else:
                    _log.info("%s may not join the watch: %s", ", ".join(joining) or "no service", error)
                    self._refuse(joining)
            else:
                self._failures = 0
        self._services_per_request = wire.MAX_WATCH_UPDATE

    def _put_back(self, joining: dict[str, wire.JoiningService]) -> None:
        """Sends these services again, except those that have left or were to join anew meanwhile."""
        self._joining = {name: body for name, body in joining.items() if name in self._wanted} | self._joining

    def _refuse(self, joining: Collection[str]) -> None:
        for service in joining:
            if service in self._wanted and service not in self._joining:
                self._wanted.discard(service)
                self._on_refused(service)
