"""One connection of a watch: it reads updates, and records since when it has been silent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from adsum.client.consumer_identity import ConsumerIdentity
from adsum.client.errors import NodeUnreachable, ProtocolViolation, RegistryRefused
from adsum.client.native.acknowledgements import Acknowledgements
from adsum.client.native.api import RegistryApi
from adsum.client.native.event_batcher import EventBatcher
from adsum.client.native.sse import SseParser
from adsum.client.sources.source import ServiceUpdate, ViewPosition
from adsum.client.wakeup import Wakeup
from adsum.core.validation import without_credentials
from adsum.ports import Clock

FIRST_UPDATE_TIMEOUT: Final = 5.0
"""Seconds of silence after which a connection that has not sent its first complete update is closed."""
IDLE_TIMEOUT: Final = 120.0
"""Seconds of silence after which a connection is closed. Its watch has opened another one long before."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """The request that opens a watch. Without a consumer the watch only observes, and no drain waits for it."""

    service: str
    since: ViewPosition | None
    consumer: ConsumerIdentity | None

    def params(self) -> list[tuple[str, str]]:
        params = [("service", self.service)]
        if self.consumer is not None:
            params += [("acks", "true"), ("consumer", self.consumer.id), ("name", self.consumer.name)]
        return params

    def headers(self) -> dict[str, str]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self.since is not None:
            headers["Last-Event-ID"] = f"{self.since.epoch}:{self.since.revision}"
        return headers


class WatchConnection:
    """Reads one connection in a task of its own, at most one update ahead of the consumer."""

    def __init__(
        self,
        api: RegistryApi,
        node: str,
        request: WatchRequest,
        clock: Clock,
        rng: Random,
        on_change: Callable[[], None],
    ) -> None:
        """`on_change` is called when bytes arrive, an update is ready, or the connection has ended."""
        self.node = node
        self.on_change = on_change
        self.heartbeat = 0.0
        """Seconds between heartbeats, as the node states them; 0.0 if it states none."""
        self.close_reason = ""
        """The reason why the connection ended, as a clause; "" while it is open."""
        self.refusal: RegistryRefused | None = None
        """The error by which the node refused the watch to this caller."""
        self._api = api
        self._request = request
        self._clock = clock
        self._acknowledgements = Acknowledgements(api, node, clock, rng) if request.consumer is not None else None
        self._watch = ""
        self._update: ServiceUpdate | None = None
        self._taken = asyncio.Event()
        self._progress_at = clock.now()
        self._task = asyncio.create_task(self._read(), name=f"adsum-watch-{request.service}")

    @property
    def has_ended(self) -> bool:
        """True if the connection has ended and every update was taken."""
        return bool(self.close_reason) and self._update is None

    @property
    def silent_since(self) -> float | None:
        """The time of the latest bytes; None while an update waits to be taken, since nothing is read then."""
        return None if self._update is not None else self._progress_at

    def take_update(self) -> ServiceUpdate | None:
        """Returns the next update; None if there is none yet."""
        update, self._update = self._update, None
        if update is not None:
            self._progress_at = self._clock.now()
            self._taken.set()
        return update

    def acknowledge(self, update: ServiceUpdate) -> None:
        """Acknowledges `update`, which came over this connection: the consumer routes by it."""
        if self._acknowledgements is not None and not self.close_reason:
            self._acknowledgements.acknowledge(update, self._watch)

    async def close(self) -> None:
        """Closes the connection and stops sending acknowledgements. Idempotent."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
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
            _log.exception("%s: a watch at %s failed", self._request.service, without_credentials(self.node))
            self.close_reason = f"{type(error).__name__}: {error}"
        self.on_change()

    async def _read_updates(self) -> None:
        """Reads until the connection ends. Raises `NodeUnreachable` and `ProtocolViolation`."""
        batcher, parser = EventBatcher(self._request.service, self._request.since), SseParser()
        stream = self._api.open_stream(
            self.node, "/watch", idle=IDLE_TIMEOUT, params=self._request.params(), headers=self._request.headers()
        )
        async with stream as chunks:
            self._note_progress()
            async for chunk in chunks:
                self._note_progress()
                for event in parser.feed(chunk):
                    update = batcher.add(event)
                    if update is not None and batcher.opened is not None:
                        self._watch, self.heartbeat = batcher.opened.watch, batcher.opened.heartbeat
                        await self._offer(update)

    def _note_progress(self) -> None:
        self._progress_at = self._clock.now()
        self.on_change()

    async def _offer(self, update: ServiceUpdate) -> None:
        """Waits until the update is taken. Nothing is read meanwhile, so that the registry coalesces changes."""
        self._taken.clear()
        self._update = update
        self.on_change()
        await self._taken.wait()


async def open_watch_connection(
    api: RegistryApi, node: str, request: WatchRequest, clock: Clock, rng: Random, on_progress: Callable[[], None]
) -> WatchConnection:
    """Returns a connection that has its first update ready. `on_progress` is called whenever bytes arrive.

    Raises `NodeUnreachable`, and `RegistryRefused` if this caller may not watch the service.
    """
    wakeup = Wakeup(clock)

    def on_change() -> None:
        on_progress()
        wakeup.wake()

    connection = WatchConnection(api, node, request, clock, rng, on_change)
    try:
        while (silent_since := connection.silent_since) is not None:
            if connection.refusal is not None:
                raise connection.refusal
            if connection.close_reason:
                raise NodeUnreachable(connection.close_reason)
            if clock.now() - silent_since >= FIRST_UPDATE_TIMEOUT:
                raise NodeUnreachable("it did not answer in time")
            await wakeup.wait(silent_since + FIRST_UPDATE_TIMEOUT)
    except BaseException:
        await connection.close()
        raise
    return connection
