"""One connection of a watch: its groups, and how long it has been silent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from adsum.client.consumer_identity import ConsumerIdentity
from adsum.client.errors import NodeUnreachable, ProtocolViolation
from adsum.client.native.acknowledgements import Acknowledgements
from adsum.client.native.api import API_PATH, RegistryApi
from adsum.client.native.event_batcher import EventBatcher
from adsum.client.native.sse import SseParser
from adsum.client.sources.source import ServiceUpdate, ViewPosition
from adsum.client.wakeup import Wakeup
from adsum.core.validation import without_credentials
from adsum.ports import Clock

FIRST_UPDATE_TIMEOUT: Final = 5.0
"""Seconds of silence, before the first group is complete, after which a connection is given up."""
IDLE_TIMEOUT: Final = 120.0
"""Seconds of silence after which a connection is closed. Long before, its watch has looked for another one."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """What a watch asks for. Without a consumer it looks on, and no drain waits for it."""

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
    """Reads one connection in a task of its own, at most one group ahead of whoever takes the groups."""

    def __init__(
        self,
        api: RegistryApi,
        node: str,
        request: WatchRequest,
        clock: Clock,
        rng: Random,
        on_change: Callable[[], None],
    ) -> None:
        """`changed` is called when bytes came, a group is there, or the connection ended."""
        self.node = node
        self.on_change = on_change
        self.heartbeat = 0.0
        """Seconds between heartbeats, as the node states them; 0.0 if it does not."""
        self.close_reason = ""
        """Why the connection ended, in a clause; "" while it is open."""
        self._api = api
        self._request = request
        self._clock = clock
        self._acknowledging = Acknowledgements(api, node, clock, rng) if request.consumer is not None else None
        self._watch = ""
        self._group: ServiceUpdate | None = None
        self._taken = asyncio.Event()
        self._heard_at = clock.now()
        self._task = asyncio.create_task(self._read(), name=f"adsum-watch-{request.service}")

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes, and all that came was taken."""
        return bool(self.close_reason) and self._group is None

    @property
    def silent_since(self) -> float | None:
        """The instant of the latest bytes; None while a group waits to be taken, since nothing is read then."""
        return None if self._group is not None else self._heard_at

    def take_update(self) -> ServiceUpdate | None:
        """The next group; None if there is none yet."""
        group, self._group = self._group, None
        if group is not None:
            self._heard_at = self._clock.now()
            self._taken.set()
        return group

    def acknowledge(self, update: ServiceUpdate) -> None:
        """The consumer routes by `group`, which came over this connection."""
        if self._acknowledging is not None and not self.close_reason:
            self._acknowledging.acknowledge(update, self._watch)

    async def close(self) -> None:
        """Idempotent."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._acknowledging is not None:
            await self._acknowledging.close()

    async def _read(self) -> None:
        try:
            await self._read_groups()
            self.close_reason = "the registry ended the watch"
        except (NodeUnreachable, ProtocolViolation) as error:
            self.close_reason = str(error)
        except Exception as error:
            _log.exception("%s: a watch at %s failed", self._request.service, without_credentials(self.node))
            self.close_reason = f"{type(error).__name__}: {error}"
        self.on_change()

    async def _read_groups(self) -> None:
        """Raises `Unreachable` and `ProtocolViolation`."""
        grouping, parser = EventBatcher(self._request.service, self._request.since), SseParser()
        url, headers = f"{self.node}{API_PATH}/watch", {**self._api.headers, **self._request.headers()}
        async with self._api.transport.stream(
            url, idle=IDLE_TIMEOUT, params=self._request.params(), headers=headers
        ) as (
            reply,
            chunks,
        ):
            if reply.status != 200:
                raise NodeUnreachable(f"it answered the watch with status {reply.status}")
            self._heard()
            async for chunk in chunks:
                self._heard()
                for event in parser.feed(chunk):
                    group = grouping.add(event)
                    if group is not None and grouping.opened is not None:
                        self._watch, self.heartbeat = grouping.opened.watch, grouping.opened.heartbeat
                        await self._offer(group)

    def _heard(self) -> None:
        self._heard_at = self._clock.now()
        self.on_change()

    async def _offer(self, group: ServiceUpdate) -> None:
        """Return when the group was taken; nothing is read meanwhile, so that the registry coalesces changes."""
        self._taken.clear()
        self._group = group
        self.on_change()
        await self._taken.wait()


async def open_watch_connection(
    api: RegistryApi, node: str, request: WatchRequest, clock: Clock, rng: Random, on_progress: Callable[[], None]
) -> WatchConnection:
    """A connection whose first group is there; `on_progress` is called whenever bytes come. Raises `Unreachable`."""
    alarm = Wakeup(clock)

    def changed() -> None:
        on_progress()
        alarm.wake()

    stream = WatchConnection(api, node, request, clock, rng, changed)
    try:
        while (silent_since := stream.silent_since) is not None:
            if stream.close_reason:
                raise NodeUnreachable(stream.close_reason)
            if clock.now() - silent_since >= FIRST_UPDATE_TIMEOUT:
                raise NodeUnreachable("it did not answer in time")
            await alarm.wait(silent_since + FIRST_UPDATE_TIMEOUT)
    except BaseException:
        await stream.close()
        raise
    return stream
