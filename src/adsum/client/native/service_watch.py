"""A watch of one service over all its connections: the old one is kept until a new one stands.

A connection is *suspect* when it was silent for two heartbeats, or when its node can't reach the store. Then another
one is opened beside it, at the next node first, and the suspect one goes on until the new one has shown its first
group. So the view does not flap, and the first acknowledgement at the new node clears what the old one waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from math import inf
from random import Random
from typing import Final

from adsum.client.consumer_identity import ConsumerIdentity
from adsum.client.errors import RegistryUnavailable
from adsum.client.native.api import RegistryApi
from adsum.client.native.hedged_requests import OnProgress, first_answer
from adsum.client.native.watch_connection import WatchConnection, WatchRequest, open_watch_connection
from adsum.client.sources.source import ConnectionLost, ServiceUpdate, ViewPosition
from adsum.client.wakeup import Wakeup
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
"""Seconds since a node reached its store after which another node is tried: with a heartbeat more, that is sooner than
the other nodes call one lost that is cut off from them and from the store."""
MIN_FAILOVER_INTERVAL: Final = 60.0
"""Seconds between two such tries: if no node reaches the store, one is as good as another."""
MAX_CONNECT_PAUSE: Final = 5.0
"""Seconds; the longest pause between two attempts to connect. A pause is any part of its bound: all clients of a node
that dies notice at once, and must not arrive at the next one together."""
MAX_AWAITED_CONNECT_PAUSE: Final = 1.5
"""Seconds; the longest such pause for as long as drains wait for us to come back (`heartbeats.lost_after`)."""

MAX_SLEEP_OVERRUN: Final = 0.5
"""Seconds by which a sleep ends too late that show that this program was held up, and not its node."""
CATCH_UP_TIME: Final = 0.1
"""Seconds to read what came while this program was held up, before the node is judged by its silence."""


class RegistryAccess:
    """What the watches of one client share: the nodes, and what they said of themselves."""

    def __init__(self, api: RegistryApi, clock: Clock, rng: Random) -> None:
        self.api = api
        self.clock = clock
        self.rng = rng
        self.heartbeat = DEFAULT_HEARTBEAT
        """Seconds between two heartbeats, as a node stated it last."""
        self.next_failover_at = clock.now()


class ServiceWatch:
    """One service, followed for as long as `updates` is iterated."""

    def __init__(
        self,
        registry: RegistryAccess,
        service: str,
        position: Callable[[], ViewPosition | None],
        consumer: ConsumerIdentity | None,
    ) -> None:
        """Without a `consumer` it looks on, and no drain waits for it."""
        self._registry = registry
        self._consumer = consumer
        self._service = service
        self._position = position
        self._clock = registry.clock
        self._alarm = Wakeup(registry.clock)
        self._backoff = Backoff(MAX_FIRST_RETRY_DELAY / 2, MAX_CONNECT_PAUSE)
        self._current: WatchConnection | None = None
        self._suspect = False
        self._heard_at = -inf
        """The instant of the latest group."""
        self._connecting: asyncio.Task[WatchConnection] | None = None
        self._connect_at: float | None = registry.clock.now()
        """The instant of the next attempt; None: there is no need, or one is under way."""

    async def updates(self) -> AsyncGenerator[ServiceUpdate | ConnectionLost, None]:
        """See `ports.Source.watch`."""
        try:
            while True:
                for lost in (await self._replace(), await self._examine()):
                    if lost is not None:
                        yield lost
                self._connect()
                stream = self._current
                group = stream.take_update() if stream is not None else None
                if stream is None or group is None:
                    await self._sleep(self._deadline())
                    continue
                self._heard_at = self._clock.now()
                yield group
                stream.acknowledge(group)
                self._judge(stream, group)
        finally:
            await self._close()

    async def _sleep(self, deadline: float | None) -> None:
        """Until something happens, at latest until `deadline`."""
        await self._alarm.wait(deadline)
        if deadline is not None and self._clock.now() - deadline > MAX_SLEEP_OVERRUN:
            # This program did not run for a while: what came meanwhile is still to be read.
            await self._clock.sleep(CATCH_UP_TIME)

    async def _replace(self) -> ConnectionLost | None:
        """Go over to the new connection if it stands."""
        if self._connecting is None or not self._connecting.done():
            return None
        task, self._connecting = self._connecting, None
        try:
            stream = task.result()
        except RegistryUnavailable as error:
            self._connect_in(self._pause_max())
            return ConnectionLost(error.reason)
        old, self._current, self._suspect = self._current, stream, False
        self._backoff.reset()
        self._registry.heartbeat = max(MIN_HEARTBEAT, stream.heartbeat or DEFAULT_HEARTBEAT)
        stream.on_change = self._alarm.wake
        if old is not None:
            await old.close()
        return None

    async def _examine(self) -> ConnectionLost | None:
        """Whether the connection there is has ended, or is suspect because of its silence."""
        stream, nodes, now = self._current, self._registry.api.nodes, self._clock.now()
        if stream is None:
            return None
        if stream.has_ended:
            nodes.mark_failed(stream.node)
            self._current, self._suspect = None, False
            self._connect_in(MAX_FIRST_RETRY_DELAY)
            await stream.close()
            return ConnectionLost(f"{without_credentials(stream.node)}: {stream.close_reason}")
        stale_at = self._stale_at()
        if stale_at is not None and now >= stale_at:
            nodes.mark_hung(stream.node, now)
            await self._registry.api.transport.close_idle()
            self._suspect = True
            self._connect_in(MAX_FIRST_RETRY_DELAY)
        return None

    def _connect(self) -> None:
        """Begin to connect if it is time."""
        if self._connecting is None and self._connect_at is not None and self._clock.now() >= self._connect_at:
            self._connect_at = None
            self._connecting = asyncio.create_task(self._connected(), name=f"adsum-connect-{self._service}")
            self._connecting.add_done_callback(lambda _: self._alarm.wake())

    async def _connected(self) -> WatchConnection:
        """A connection at whichever node shows the service first. Raises `RegistryUnavailable`."""
        registry, request = self._registry, WatchRequest(self._service, self._position(), self._consumer)

        async def ask(node: str, heard: OnProgress) -> WatchConnection:
            return await open_watch_connection(registry.api, node, request, self._clock, registry.rng, heard)

        return await first_answer(registry.api.nodes, ask, self._clock, discard=WatchConnection.close)

    def _judge(self, stream: WatchConnection, group: ServiceUpdate) -> None:
        """A node that lost its store tells what it knew: another one may know more."""
        registry, now = self._registry, self._clock.now()
        if stream is not self._current:
            return
        if group.age < MAX_STORE_AGE or len(registry.api.nodes) < 2 or now < registry.next_failover_at:
            return
        registry.next_failover_at = now + MIN_FAILOVER_INTERVAL
        registry.api.nodes.mark_failed(stream.node)
        self._connect_in(MAX_FIRST_RETRY_DELAY)

    def _pause_max(self) -> float:
        """The bound of the pause after an attempt that failed."""
        pause = self._backoff.next(self._registry.rng)
        awaited = self._clock.now() - self._heard_at < lost_after(self._registry.heartbeat)
        return min(pause, MAX_AWAITED_CONNECT_PAUSE) if awaited else pause

    def _connect_in(self, longest: float) -> None:
        """Have the next attempt begin within `longest` seconds, unless one is under way."""
        if self._connecting is None:
            self._connect_at = self._clock.now() + self._registry.rng.uniform(0.0, longest)

    def _stale_at(self) -> float | None:
        """The instant at which the connection becomes suspect; None: it is suspect already, or speaks."""
        silent_since = self._current.silent_since if self._current is not None else None
        if silent_since is None or self._suspect:
            return None
        return silent_since + stale_after(self._registry.heartbeat)

    def _deadline(self) -> float | None:
        instants = (self._connect_at, self._stale_at())
        return min((instant for instant in instants if instant is not None), default=None)

    async def _close(self) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
            for late in await asyncio.gather(connecting, return_exceptions=True):
                if isinstance(late, WatchConnection):
                    await late.close()
        if self._current is not None:
            await self._current.close()
