"""A watch of several services over all its connections. The old connection stays until a new one works.

A connection is *suspect* when it was silent for two heartbeats, when its node does not answer a service that is to join
for as long as other requests wait for a node, or when its node can't reach the store. Then another
connection is opened beside it, at the next node first, and the suspect one goes on until the new one has sent the first
update of every service. So no view flaps, and the first acknowledgements at the new node cover what the old one still
had to acknowledge.

A service that can't share the watch moves to a watch of its own: one that this caller may not see, one that could not
join, and every service but one at a node of version 0.2, which lets no service join.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection
from math import inf
from typing import Final

from adsum import wire
from adsum.client.errors import NotAllowed, RegistryRefused, RegistryUnavailable
from adsum.client.native.hedged_requests import HEDGE_DELAY, OnProgress, first_answer
from adsum.client.native.watching.registry_access import RegistryAccess
from adsum.client.native.watching.subscription import ReceivedUpdate, ServiceSubscription
from adsum.client.native.watching.watch_connection import WatchConnection, open_watch_connection
from adsum.client.sources.source import ConnectionLost, ViewPosition
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

MAX_CONNECT_PAUSE: Final = 5.0
"""Seconds, the longest pause between two attempts to connect. A pause is drawn from 0 to its bound: all clients of a
node that dies notice at once, and must not arrive at the next node together."""
MAX_AWAITED_CONNECT_PAUSE: Final = 1.5
"""Seconds, the longest such pause while drains wait for this consumer to come back (`heartbeats.lost_after`)."""
CATCH_UP_TIME: Final = 0.1
"""Seconds to read what arrived while this program was suspended, before the node is judged by its silence."""
MAX_OPENING_SERVICES: Final = 64
"""Services in the request that opens a watch. Further ones join it afterwards, since the head of a request is
bounded."""

WatchSubscription = ServiceSubscription[WatchConnection]


class JointWatch:
    """The watch of some services. It connects while it has one, in a task of its own.

    Its services are taken out in turn by `on_moved` and `on_joinable`, which may add them to other watches.
    """

    def __init__(
        self,
        registry: RegistryAccess,
        first: WatchSubscription,
        *,
        is_exclusive: bool,
        takes_joins: bool,
        on_moved: Callable[[WatchSubscription, bool], None],
        on_joinable: Callable[[JointWatch], None],
    ) -> None:
        """`is_exclusive`: the watch keeps the one service that it has. `takes_joins` false: none joins it for now.

        `on_moved` is called with a service that was removed since it needs a watch of its own, and whether it always
        will. `on_joinable` is called when services may join the watch, though they could not before.
        """
        self.is_exclusive = is_exclusive
        self.takes_joins = takes_joins
        """False while the watch is at a node that lets no service join."""
        self._registry = registry
        self._subscriptions = {first.service: first}
        self._on_moved = on_moved
        self._on_joinable = on_joinable
        self._clock = registry.clock
        self._wakeup = Wakeup(registry.clock)
        self._backoff = Backoff(MAX_FIRST_RETRY_DELAY / 2, MAX_CONNECT_PAUSE)
        self._current: WatchConnection | None = None
        self._is_suspect = False
        self._opens_singly = False
        """True if a node refused the watch of several services, so that it is opened with one."""
        self._updated_at = -inf
        """The time of the latest update."""
        self._connecting: asyncio.Task[WatchConnection] | None = None
        self._connect_at: float | None = registry.clock.now()
        """The time of the next attempt to connect; None: none is needed, or one is under way."""
        self._task = asyncio.create_task(self._run(), name=f"adsum-watch-{first.service}")
        self._task.add_done_callback(self._report_failure)

    def may_add(self, service: str) -> bool:
        """Returns whether the service may be added."""
        return (
            self.takes_joins
            and not self.is_exclusive
            and not self._task.done()
            and 0 < len(self._subscriptions) < wire.MAX_SERVICES_PER_WATCH
            and service not in self._subscriptions
        )

    def add(self, subscription: WatchSubscription) -> None:
        """Adds a service. It joins the connection if there is one."""
        self._subscriptions[subscription.service] = subscription
        if self._current is not None:
            self._current.join(subscription)
        self._wakeup.wake()

    def remove(self, subscription: WatchSubscription) -> None:
        """Removes a service. A watch without a service closes; `close` waits for that."""
        if self._subscriptions.get(subscription.service) is not subscription:
            return
        del self._subscriptions[subscription.service]
        if self._current is not None and self._subscriptions:
            self._current.leave(subscription.service)
        elif self._current is not None:
            self._current.stop_requests()
        self._wakeup.wake()

    @property
    def is_empty(self) -> bool:
        """True if the watch has no service left."""
        return not self._subscriptions

    @property
    def subscriptions(self) -> list[WatchSubscription]:
        """The services of the watch."""
        return list(self._subscriptions.values())

    def note_taken(self) -> None:
        """Records that a consumer takes an update now."""
        self._updated_at = self._clock.now()

    async def close(self) -> None:
        """Closes every connection. Idempotent."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while self._subscriptions:
                await self._switch()
                await self._examine()
                self._connect_if_due()
                await self._sleep(self._deadline())
        finally:
            await self._close_connections()

    def _report_failure(self, task: asyncio.Task[None]) -> None:
        """Passes an unexpected error on to the consumers, which watch again."""
        error = task.exception() if not task.cancelled() else None
        if error is not None:
            for subscription in self.subscriptions:
                subscription.fail(error)

    async def _sleep(self, deadline: float | None) -> None:
        """Waits until something happens, at the latest until `deadline`."""
        await self._wakeup.wait(deadline)
        if deadline is not None and self._clock.now() - deadline > MAX_SLEEP_OVERRUN:
            # This program was suspended: read what has arrived meanwhile before the node is judged.
            await self._clock.sleep(CATCH_UP_TIME)

    async def _switch(self) -> None:
        """Switches to the new connection if it is ready."""
        if self._connecting is None or not self._connecting.done():
            return
        task, self._connecting = self._connecting, None
        try:
            connection = task.result()
        except RegistryUnavailable as error:
            self._connect_within(self._next_pause())
            self._lose(error.reason)
            return
        except RegistryRefused as error:
            self._refused(error)
            return
        if not connection.takes_joins and len(connection.services) > 1:
            await connection.close()
            self.takes_joins = False
            self._move_out(self.subscriptions[1:], always=False)
            self._connect_at = self._clock.now()
            return
        old, self._current, self._is_suspect = self._current, connection, False
        self._opens_singly = False
        self._backoff.reset()
        self._registry.heartbeat = max(MIN_HEARTBEAT, connection.heartbeat or DEFAULT_HEARTBEAT)
        connection.on_change = self._wakeup.wake
        became_joinable = connection.takes_joins and not self.takes_joins
        self.takes_joins = connection.takes_joins
        self._match_services(connection)
        connection.use()
        if old is not None:
            await old.close()
        if became_joinable and not self.is_exclusive:
            self._on_joinable(self)

    def _match_services(self, connection: WatchConnection) -> None:
        """Lets services join or leave that came or went while the connection was opened."""
        for service in connection.services - self._subscriptions.keys():
            connection.leave(service)
        missing = self._subscriptions.keys() - connection.services - connection.unjoinable
        if connection.takes_joins:
            for service in missing:
                connection.join(self._subscriptions[service])
        else:
            self._move_out([self._subscriptions[service] for service in missing], always=False)

    def _refused(self, error: RegistryRefused) -> None:
        """Handles the refusal of a watch: a service that is refused must not keep the others waiting."""
        others = self.subscriptions[1:]
        if isinstance(error, NotAllowed) and others and not self._opens_singly:
            self._opens_singly = True
            self._connect_at = self._clock.now()
        elif isinstance(error, NotAllowed) and others:
            self._move_out(self.subscriptions[:1], always=True)
            self._connect_at = self._clock.now()
        else:  # Every node would refuse this caller: no other one is tried at once.
            self._connect_within(self._next_pause())
            self._lose(str(error))

    def _move_out(self, subscriptions: list[WatchSubscription], *, always: bool) -> None:
        for subscription in subscriptions:
            self.remove(subscription)
            self._on_moved(subscription, always)

    def _lose(self, reason: str) -> None:
        """Reports that there is no connection, except to services that the old one still serves."""
        served = self._served()
        for subscription in self.subscriptions:
            if subscription.service not in served:
                subscription.add(ConnectionLost(reason))

    def _served(self) -> Collection[str]:
        """Returns the services of the connection, none if it is silent."""
        connection = self._current
        if connection is None or connection.close_reason:
            return ()
        silent_since, now = connection.silent_since, self._clock.now()
        is_silent = silent_since is not None and now - silent_since >= stale_after(self._registry.heartbeat)
        return () if is_silent else connection.ready_services

    async def _examine(self) -> None:
        """Schedules another connection if the current one has ended or has become suspect.

        An ended connection is closed; a suspect one stays open.
        """
        connection, nodes, now = self._current, self._registry.api.nodes, self._clock.now()
        if connection is None:
            return
        if connection.unjoinable and not connection.close_reason:
            unjoinable = [self._subscriptions[name] for name in connection.unjoinable & self._subscriptions.keys()]
            connection.unjoinable.clear()
            self._move_out(unjoinable, always=True)
        if connection.close_reason:
            nodes.mark_failed(connection.node)
            self._current, self._is_suspect = None, False
            self._connect_within(MAX_FIRST_RETRY_DELAY)
            await connection.close()
            self._lose(f"{without_credentials(connection.node)}: {connection.close_reason}")
            return
        suspect_at = self._suspect_at()
        if suspect_at is not None and now >= suspect_at:
            nodes.mark_hung(connection.node, now)
            await self._registry.api.transport.close_idle()
            self._is_suspect = True
            self._connect_within(MAX_FIRST_RETRY_DELAY)

    def _connect_if_due(self) -> None:
        """Starts to connect if it is time."""
        if not self._subscriptions or self._connecting is not None or self._connect_at is None:
            return
        if self._clock.now() >= self._connect_at:
            self._connect_at = None
            self._connecting = asyncio.create_task(self._open_connection(), name=f"adsum-connect-{self._first_name()}")
            self._connecting.add_done_callback(lambda _: self._wakeup.wake())

    async def _open_connection(self) -> WatchConnection:
        """Returns a connection to the node that sends its first updates first.

        Raises `RegistryUnavailable` and `RegistryRefused`.
        """
        registry, (opening, joining) = self._registry, self._opening_and_joining()

        async def connect(node: str, on_progress: OnProgress) -> WatchConnection:
            return await open_watch_connection(
                registry.api, node, opening, joining, self._clock, registry.rng, on_progress
            )

        return await first_answer(registry.api.nodes, connect, self._clock, discard=WatchConnection.close)

    def _opening_and_joining(self) -> tuple[list[WatchSubscription], list[WatchSubscription]]:
        """Returns the services in the request that opens the watch, and those that join it afterwards.

        Those in one request have one consumer and one position.
        """
        subscriptions = self.subscriptions
        if self._opens_singly:
            return subscriptions[:1], subscriptions[1:]
        groups = defaultdict[tuple[str, ViewPosition | None], list[WatchSubscription]](list)
        for subscription in subscriptions:
            groups[subscription.consumer_id, subscription.position()].append(subscription)
        opening = max(groups.values(), key=len)[:MAX_OPENING_SERVICES]
        return opening, [subscription for subscription in subscriptions if subscription not in opening]

    def fail_over_if_stale(self, received: ReceivedUpdate[WatchConnection]) -> None:
        """Schedules a connection to another node if this one has lost its store, and so sends an old state."""
        connection = received.connection
        if connection is self._current and self._registry.begin_failover(connection.node, received.update.age):
            self._connect_within(MAX_FIRST_RETRY_DELAY)
            self._wakeup.wake()

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

        None: there is no connection, it is suspect already, or a consumer has to take its updates first.
        """
        connection = self._current
        if connection is None or self._is_suspect:
            return None
        silent_since, join_waits_since = connection.silent_since, connection.join_waits_since
        times = [silent_since + stale_after(self._registry.heartbeat)] if silent_since is not None else []
        if join_waits_since is not None:
            times.append(join_waits_since + HEDGE_DELAY)
        return min(times, default=None)

    def _deadline(self) -> float | None:
        times = (self._connect_at, self._suspect_at())
        return min((time for time in times if time is not None), default=None)

    def _first_name(self) -> str:
        return next(iter(self._subscriptions), "")

    async def _close_connections(self) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
            for result in await asyncio.gather(connecting, return_exceptions=True):
                if isinstance(result, WatchConnection):
                    await result.close()
        if self._current is not None:
            await self._current.close()
