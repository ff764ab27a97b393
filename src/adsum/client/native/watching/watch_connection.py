"""One connection of a watch: it reads updates for its services, and records since when it has been silent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from adsum import wire
from adsum.client.consumer_identity import ConsumerIdentity
from adsum.client.errors import NodeUnreachable, ProtocolViolation, RegistryRefused
from adsum.client.native.api import RegistryApi
from adsum.client.native.sse import SseParser
from adsum.client.native.watching.acknowledgements import Acknowledgements
from adsum.client.native.watching.event_batcher import EventBatcher
from adsum.client.native.watching.join_requests import JoinRequests
from adsum.client.native.watching.subscription import Inbox, ReceivedUpdate, ServiceSubscription
from adsum.client.sources.source import ConnectionLost, ServiceUpdate, ViewPosition
from adsum.client.wakeup import Wakeup
from adsum.core.validation import without_credentials
from adsum.ports import Clock

FIRST_UPDATE_TIMEOUT: Final = 5.0
"""Seconds of silence after which a connection that has not sent its first complete updates is closed."""
IDLE_TIMEOUT: Final = 120.0
"""Seconds of silence after which a connection is closed. Its watch has opened another one long before."""

_log = logging.getLogger("adsum.client.native.watching")


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """The request that opens a watch. Without a consumer the watch only observes, and no drain waits for it."""

    services: tuple[str, ...]
    since: ViewPosition | None
    consumer: ConsumerIdentity | None

    def params(self) -> list[tuple[str, str]]:
        params = [("service", service) for service in self.services]
        if self.consumer is not None:
            params += [("acks", "true"), ("consumer", self.consumer.id), ("name", self.consumer.name)]
        return params

    def headers(self) -> dict[str, str]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self.since is not None:
            headers["Last-Event-ID"] = _position_text(self.since)
        return headers


class _Feed:
    """One service of a connection. Its updates go to the subscription once the connection is in use."""

    __slots__ = ("inbox", "is_ready", "subscription")

    def __init__(self, subscription: ServiceSubscription[WatchConnection]) -> None:
        self.subscription = subscription
        self.inbox = Inbox[WatchConnection]()
        """The updates from before the connection was in use."""
        self.is_ready = False
        """True once the first update has come."""


class WatchConnection:
    """Reads one connection in a task of its own, at most a few updates ahead of its consumers."""

    def __init__(
        self,
        api: RegistryApi,
        node: str,
        opening: Sequence[ServiceSubscription[WatchConnection]],
        joining: Sequence[ServiceSubscription[WatchConnection]],
        clock: Clock,
        rng: Random,
        on_change: Callable[[], None],
    ) -> None:
        """The watch is opened with the services `opening`, which have one consumer and one position; `joining` follow.

        `on_change` is called when bytes arrive, an update has come, a service can't join, or the connection has ended.
        """
        first = opening[0]
        self._request = WatchRequest(
            tuple(subscription.service for subscription in opening), first.position(), first.consumer
        )
        self.node = node
        self.on_change = on_change
        self.heartbeat = 0.0
        """Seconds between heartbeats, as the node states them; 0.0 if it states none."""
        self.close_reason = ""
        """The reason why the connection ended, as a clause; "" while it is open."""
        self.refusal: RegistryRefused | None = None
        """The error by which the node refused the watch to this caller."""
        self.takes_joins = False
        """True if the node lets services join and leave this watch. Nodes of version 0.2 do not."""
        self.unjoinable: set[str] = set()
        """The services that could not join."""
        self._api = api
        self._clock = clock
        self._batcher = EventBatcher(self._request.services, self._request.since)
        self._feeds = {subscription.service: _Feed(subscription) for subscription in opening}
        has_consumer = self._request.consumer is not None
        self._acknowledgements = Acknowledgements(api, node, clock, rng) if has_consumer else None
        self._joins = JoinRequests(api, node, clock, rng, self._join_sent, self._join_failed, self._join_refused)
        self._watch = ""
        self._is_in_use = False
        self._is_blocked = False
        """True while nothing is read, because a consumer has to take its updates first."""
        self._taken = asyncio.Event()
        self._progress_at = clock.now()
        for subscription in joining:
            self.join(subscription)
        self._task = asyncio.create_task(self._read(), name=f"adsum-watch-{first.service}")

    @property
    def services(self) -> Collection[str]:
        """The services of the watch, and those that are to join it."""
        return self._feeds.keys()

    @property
    def is_ready(self) -> bool:
        """True once the first update of every service has come. Services that can't join don't count."""
        if not self.takes_joins:
            return all(self._feeds[service].is_ready for service in self._request.services if service in self._feeds)
        return all(feed.is_ready for feed in self._feeds.values())

    @property
    def ready_services(self) -> Collection[str]:
        """The services whose first update has come."""
        return {service for service, feed in self._feeds.items() if feed.is_ready}

    @property
    def silent_since(self) -> float | None:
        """The time of the latest bytes; None while nothing is read."""
        return None if self._is_blocked else self._progress_at

    @property
    def join_waits_since(self) -> float | None:
        """The time since which services wait for the answer to their request to join; None if none waits."""
        return self._joins.waiting_since

    def use(self) -> None:
        """Passes updates to the subscriptions from now on."""
        self._is_in_use = True
        for feed in self._feeds.values():
            feed.subscription.on_taken = self._taken.set
            feed.subscription.add_all(feed.inbox)
        self._taken.set()

    def join(self, subscription: ServiceSubscription[WatchConnection]) -> None:
        """Lets a service join. Its first update has its full state, or follows the position of the subscription."""
        service, since, consumer = subscription.service, subscription.position(), subscription.consumer
        self._feeds[service] = _Feed(subscription)
        if self._is_in_use:
            subscription.on_taken = self._taken.set
        self._forget(service)
        self._batcher.join(service, since)
        own_consumer = consumer is not None and consumer is not self._request.consumer
        self._joins.join(
            wire.JoiningService(
                service,
                _position_text(since) if since is not None else None,
                subscription.consumer_id if own_consumer else None,
            )
        )

    def leave(self, service: str) -> None:
        """Lets a service leave: no update of it follows."""
        if self._feeds.pop(service, None) is not None:
            self._forget(service)
            self._batcher.leave(service)
            self._joins.leave(service)
            self._taken.set()

    def stop_requests(self) -> None:
        """Lets no further service join or leave, since the connection will be closed."""
        self._joins.stop()

    def acknowledge(self, service: str, received: ReceivedUpdate[WatchConnection]) -> None:
        """Acknowledges an update that came over this connection: the consumer of the service routes by it."""
        if self._acknowledgements is not None and service in self._feeds and not self.close_reason:
            revision = received.update.position.revision
            self._acknowledgements.acknowledge(
                service, revision, self._watch, by_service=self.takes_joins, is_awaited=received.is_awaited
            )

    async def close(self) -> None:
        """Closes the connection and stops sending requests. Idempotent."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._joins.close()
        if self._acknowledgements is not None:
            await self._acknowledgements.close()

    async def _read(self) -> None:
        try:
            await self._read_updates()
            self.close_reason = "the registry ended the watch"
        except (NodeUnreachable, ProtocolViolation) as error:
            self.close_reason = str(error)
        except RegistryRefused as error:
            self.refusal, self.close_reason = error, str(error)
        except Exception as error:
            _log.exception("%s: a watch at %s failed", ", ".join(self._feeds), without_credentials(self.node))
            self.close_reason = f"{type(error).__name__}: {error}"
        self.on_change()

    async def _read_updates(self) -> None:
        """Reads until the connection ends. Raises `NodeUnreachable` and `ProtocolViolation`."""
        parser = SseParser()
        stream = self._api.open_stream(
            self.node, "/watch", idle=IDLE_TIMEOUT, params=self._request.params(), headers=self._request.headers()
        )
        async with stream as chunks:
            self._note_progress()
            async for chunk in chunks:
                self._note_progress()
                for event in parser.feed(chunk):
                    updates = self._batcher.add(event)
                    if event.name == "synced":
                        self._note_opened()
                        self._pass_on(updates)
                        self.on_change()
                        await self._wait_for_room()

    def _note_progress(self) -> None:
        self._progress_at = self._clock.now()
        self.on_change()

    def _note_opened(self) -> None:
        """Takes over what the node states about the watch, when the first group is complete."""
        opened = self._batcher.opened
        if opened is not None and not self._watch:
            self._watch, self.heartbeat, self.takes_joins = opened.watch, opened.heartbeat, opened.joins
            if opened.joins:
                self._joins.start(opened.watch)

    def _pass_on(self, updates: Sequence[tuple[str, ServiceUpdate]]) -> None:
        for service, update in updates:
            feed = self._feeds[service]
            feed.is_ready = True
            received = ReceivedUpdate.create(update, self)
            if self._is_in_use:
                feed.subscription.add(received)
            else:
                feed.inbox.add(received)

    async def _wait_for_room(self) -> None:
        """Waits until consumers have taken their updates. Nothing is read meanwhile: the registry coalesces changes."""
        while not all(self._inbox(feed).has_room for feed in self._feeds.values()):
            if not (self._is_in_use or self.is_ready):
                raise NodeUnreachable("its history changed while the watch was opened")
            self._is_blocked = True
            self._taken.clear()
            await self._taken.wait()
        if self._is_blocked:
            self._is_blocked, self._progress_at = False, self._clock.now()
            self.on_change()

    def _inbox(self, feed: _Feed) -> Inbox[WatchConnection]:
        return feed.subscription.inbox if self._is_in_use else feed.inbox

    def _forget(self, service: str) -> None:
        if self._acknowledgements is not None:
            self._acknowledgements.forget(service)

    def _join_sent(self) -> None:
        self.on_change()

    def _join_failed(self, services: Collection[str], reason: str) -> None:
        for service in services:
            if self._is_in_use and service in self._feeds:
                self._feeds[service].subscription.add(ConnectionLost(reason))

    def _join_refused(self, service: str) -> None:
        self.unjoinable.add(service)
        self._feeds.pop(service, None)
        self._batcher.leave(service)
        self.on_change()


async def open_watch_connection(
    api: RegistryApi,
    node: str,
    opening: Sequence[ServiceSubscription[WatchConnection]],
    joining: Sequence[ServiceSubscription[WatchConnection]],
    clock: Clock,
    rng: Random,
    on_progress: Callable[[], None],
) -> WatchConnection:
    """Returns a connection that has the first update of its services ready. See `WatchConnection`.

    `on_progress` is called whenever bytes arrive. Raises `NodeUnreachable`, and `RegistryRefused` if this caller may
    not watch the services `opening`.
    """
    wakeup = Wakeup(clock)

    def on_change() -> None:
        on_progress()
        wakeup.wake()

    connection = WatchConnection(api, node, opening, joining, clock, rng, on_change)
    try:
        while not connection.is_ready:
            silent_since = connection.silent_since
            if connection.refusal is not None:
                raise connection.refusal
            if connection.close_reason:
                raise NodeUnreachable(connection.close_reason)
            if silent_since is not None and clock.now() - silent_since >= FIRST_UPDATE_TIMEOUT:
                raise NodeUnreachable("it did not answer in time")
            await wakeup.wait(silent_since + FIRST_UPDATE_TIMEOUT if silent_since is not None else None)
    except BaseException:
        await connection.close()
        raise
    return connection


def _position_text(position: ViewPosition) -> str:
    return f"{position.epoch}:{position.revision}"
