"""A watch of one service over all its connections. The old connection stays until a new one has sent its first update.

A connection is *suspect* when it was silent for two heartbeats, or when its node can't reach the store. Then another
connection is opened beside it, at the next node first, and the suspect one goes on until the new one has sent its first
update. So the view does not flap, and the first acknowledgement at the new node covers what the old one still had to
acknowledge.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from math import inf
from random import Random
from typing import Final

from adsum.client.consumer_identity import ConsumerIdentity
from adsum.client.errors import RegistryRefused, RegistryUnavailable
from adsum.client.native.api import RegistryApi
from adsum.client.native.hedged_requests import OnProgress, first_answer
from adsum.client.native.watch_connection import WatchConnection, WatchRequest, open_watch_connection
from adsum.client.sources.source import ConnectionLost, ServiceUpdate, ViewPosition
from adsum.client.wakeup import MAX_SLEEP_OVERRUN, Wakeup
from adsum.core.backoff import Backoff
from adsum.core.liveness.heartbeats import (
    DEFAULT_HEARTBEAT,
    MAX_FIRST_RETRY_DELAY,
    MIN_HEARTBEAT,
    lost_after,
    stale_after,
)
from adsum.core.validation import without_credentials
from adsum.ports import Clock

MAX_STORE_AGE: Final = 6.0
"""Seconds; if a node has not reached its store for so long, another node is tried. Even one heartbeat later, the other
nodes do not yet count a node as lost that is cut off from them and from the store."""
MIN_FAILOVER_INTERVAL: Final = 60.0
"""Seconds between two such tries: if no node reaches the store, another node is no better."""
MAX_CONNECT_PAUSE: Final = 5.0
"""Seconds, the longest pause between two attempts to connect. A pause is drawn from 0 to its bound: all clients of a
node that dies notice at once, and must not arrive at the next node together."""
MAX_AWAITED_CONNECT_PAUSE: Final = 1.5
"""Seconds, the longest such pause while drains wait for this consumer to come back (`heartbeats.lost_after`)."""
CATCH_UP_TIME: Final = 0.1
"""Seconds to read what arrived while this program was suspended, before the node is judged by its silence."""


class RegistryAccess:
    """The state that the watches of one client share: the nodes, their heartbeat, and the time of the next failover."""

    def __init__(self, api: RegistryApi, clock: Clock, rng: Random) -> None:
        self.api = api
        self.clock = clock
        self.rng = rng
        self.heartbeat = DEFAULT_HEARTBEAT
        """Seconds between two heartbeats, as a node stated them last."""
        self.next_failover_at = clock.now()


class ServiceWatch:
    """The watch of one service, which lasts while `updates` is iterated."""

    def __init__(
        self,
        registry: RegistryAccess,
        service: str,
        position: Callable[[], ViewPosition | None],
        consumer: ConsumerIdentity | None,
    ) -> None:
        """Without a `consumer` the watch only observes, and no drain waits for it."""
        self._registry = registry
        self._consumer = consumer
        self._service = service
        self._position = position
        self._clock = registry.clock
        self._wakeup = Wakeup(registry.clock)
        self._backoff = Backoff(MAX_FIRST_RETRY_DELAY / 2, MAX_CONNECT_PAUSE)
        self._current: WatchConnection | None = None
        self._is_suspect = False
        self._updated_at = -inf
        """The time of the latest update."""
        self._connecting: asyncio.Task[WatchConnection] | None = None
        self._connect_at: float | None = registry.clock.now()
        """The time of the next attempt to connect; None: none is needed, or one is under way."""

    async def updates(self) -> AsyncGenerator[ServiceUpdate | ConnectionLost, None]:
        """See `Source.watch`."""
        try:
            while True:
                for lost in (await self._switch(), await self._examine()):
                    if lost is not None:
                        yield lost
                self._connect_if_due()
                connection = self._current
                update = connection.take_update() if connection is not None else None
                if connection is None or update is None:
                    await self._sleep(self._deadline())
                    continue
                self._updated_at = self._clock.now()
                yield update
                connection.acknowledge(update)
                self._fail_over_if_stale(connection, update)
        finally:
            await self._close()

    async def _sleep(self, deadline: float | None) -> None:
        """Waits until something happens, at the latest until `deadline`."""
        await self._wakeup.wait(deadline)
        if deadline is not None and self._clock.now() - deadline > MAX_SLEEP_OVERRUN:
            # This program was suspended: read what has arrived meanwhile before the node is judged.
            await self._clock.sleep(CATCH_UP_TIME)

    async def _switch(self) -> ConnectionLost | None:
        """Switches to the new connection if it is ready."""
        if self._connecting is None or not self._connecting.done():
            return None
        task, self._connecting = self._connecting, None
        try:
            connection = task.result()
        except RegistryUnavailable as error:
            self._connect_within(self._next_pause())
            return ConnectionLost(error.reason)
        except RegistryRefused as error:  # Every node would refuse this caller: no other one is tried at once.
            self._connect_within(self._next_pause())
            return ConnectionLost(str(error))
        old, self._current, self._is_suspect = self._current, connection, False
        self._backoff.reset()
        self._registry.heartbeat = max(MIN_HEARTBEAT, connection.heartbeat or DEFAULT_HEARTBEAT)
        connection.on_change = self._wakeup.wake
        if old is not None:
            await old.close()
        return None

    async def _examine(self) -> ConnectionLost | None:
        """Schedules another connection if the current one has ended or has become suspect.

        An ended connection is closed; a suspect one stays open.
        """
        connection, nodes, now = self._current, self._registry.api.nodes, self._clock.now()
        if connection is None:
            return None
        if connection.has_ended:
            nodes.mark_failed(connection.node)
            self._current, self._is_suspect = None, False
            self._connect_within(MAX_FIRST_RETRY_DELAY)
            await connection.close()
            return ConnectionLost(f"{without_credentials(connection.node)}: {connection.close_reason}")
        suspect_at = self._suspect_at()
        if suspect_at is not None and now >= suspect_at:
            nodes.mark_hung(connection.node, now)
            await self._registry.api.transport.close_idle()
            self._is_suspect = True
            self._connect_within(MAX_FIRST_RETRY_DELAY)
        return None

    def _connect_if_due(self) -> None:
        """Starts to connect if it is time."""
        if self._connecting is None and self._connect_at is not None and self._clock.now() >= self._connect_at:
            self._connect_at = None
            self._connecting = asyncio.create_task(self._open_connection(), name=f"adsum-connect-{self._service}")
            self._connecting.add_done_callback(lambda _: self._wakeup.wake())

    async def _open_connection(self) -> WatchConnection:
        """Returns a connection to the node that sends its first update first.

        Raises `RegistryUnavailable` and `RegistryRefused`.
        """
        registry, request = self._registry, WatchRequest(self._service, self._position(), self._consumer)

        async def connect(node: str, on_progress: OnProgress) -> WatchConnection:
            return await open_watch_connection(registry.api, node, request, self._clock, registry.rng, on_progress)

        return await first_answer(registry.api.nodes, connect, self._clock, discard=WatchConnection.close)

    def _fail_over_if_stale(self, connection: WatchConnection, update: ServiceUpdate) -> None:
        """Schedules a connection to another node if this one has lost its store, and so sends an old state."""
        registry, now = self._registry, self._clock.now()
        if connection is not self._current:
            return
        if update.age < MAX_STORE_AGE or len(registry.api.nodes) < 2 or now < registry.next_failover_at:
            return
        registry.next_failover_at = now + MIN_FAILOVER_INTERVAL
        registry.api.nodes.mark_failed(connection.node)
        self._connect_within(MAX_FIRST_RETRY_DELAY)

    def _next_pause(self) -> float:
        """Returns the longest pause after an attempt that failed, in seconds."""
        pause = self._backoff.next(self._registry.rng)
        is_awaited = self._clock.now() - self._updated_at < lost_after(self._registry.heartbeat)
        return min(pause, MAX_AWAITED_CONNECT_PAUSE) if is_awaited else pause

    def _connect_within(self, max_pause: float) -> None:
        """Schedules the next attempt at a random time within `max_pause` seconds, unless one is under way."""
        if self._connecting is None:
            self._connect_at = self._clock.now() + self._registry.rng.uniform(0.0, max_pause)

    def _suspect_at(self) -> float | None:
        """Returns the time at which the connection becomes suspect.

        None: there is no connection, it is suspect already, or it has an update ready.
        """
        silent_since = self._current.silent_since if self._current is not None else None
        if silent_since is None or self._is_suspect:
            return None
        return silent_since + stale_after(self._registry.heartbeat)

    def _deadline(self) -> float | None:
        times = (self._connect_at, self._suspect_at())
        return min((time for time in times if time is not None), default=None)

    async def _close(self) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
            for result in await asyncio.gather(connecting, return_exceptions=True):
                if isinstance(result, WatchConnection):
                    await result.close()
        if self._current is not None:
            await self._current.close()
