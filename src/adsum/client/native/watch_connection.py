"""One connection of a watch: its groups, and how long it has been silent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from adsum.client.consumer_identity import Consumer
from adsum.client.errors import Garbled, Unreachable
from adsum.client.native.acknowledgements import Acknowledging
from adsum.client.native.api import BASE, Api
from adsum.client.native.event_batcher import Grouping
from adsum.client.native.sse import Parser
from adsum.client.sources.source import Group, Position
from adsum.client.wakeup import Alarm
from adsum.core.validation import public
from adsum.ports import Clock

FIRST_GROUP: Final = 5.0
"""Seconds of silence, before the first group is complete, after which a connection is given up."""
IDLE: Final = 120.0
"""Seconds of silence after which a connection is closed. Long before, its watch has looked for another one."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """What a watch asks for. Without a consumer it looks on, and no drain waits for it."""

    service: str
    since: Position | None
    consumer: Consumer | None

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


class Stream:
    """Reads one connection in a task of its own, at most one group ahead of whoever takes the groups."""

    def __init__(
        self, api: Api, node: str, request: Request, clock: Clock, rng: Random, changed: Callable[[], None]
    ) -> None:
        """`changed` is called when bytes came, a group is there, or the connection ended."""
        self.node = node
        self.changed = changed
        self.heartbeat = 0.0
        """Seconds between heartbeats, as the node states them; 0.0 if it does not."""
        self.why = ""
        """Why the connection ended, in a clause; "" while it is open."""
        self._api = api
        self._request = request
        self._clock = clock
        self._acknowledging = Acknowledging(api, node, clock, rng) if request.consumer is not None else None
        self._watch = ""
        self._group: Group | None = None
        self._taken = asyncio.Event()
        self._heard_at = clock.now()
        self._task = asyncio.create_task(self._read(), name=f"adsum-watch-{request.service}")

    @property
    def ended(self) -> bool:
        """Whether nothing more comes, and all that came was taken."""
        return bool(self.why) and self._group is None

    @property
    def silent_since(self) -> float | None:
        """The instant of the latest bytes; None while a group waits to be taken, since nothing is read then."""
        return None if self._group is not None else self._heard_at

    def take(self) -> Group | None:
        """The next group; None if there is none yet."""
        group, self._group = self._group, None
        if group is not None:
            self._heard_at = self._clock.now()
            self._taken.set()
        return group

    def applied(self, group: Group) -> None:
        """The consumer routes by `group`, which came over this connection."""
        if self._acknowledging is not None and not self.why:
            self._acknowledging.routed_by(group, self._watch)

    async def close(self) -> None:
        """Idempotent."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._acknowledging is not None:
            await self._acknowledging.close()

    async def _read(self) -> None:
        try:
            await self._read_groups()
            self.why = "the registry ended the watch"
        except (Unreachable, Garbled) as error:
            self.why = str(error)
        except Exception as error:
            _log.exception("%s: a watch at %s failed", self._request.service, public(self.node))
            self.why = f"{type(error).__name__}: {error}"
        self.changed()

    async def _read_groups(self) -> None:
        """Raises `Unreachable` and `Garbled`."""
        grouping, parser = Grouping(self._request.service, self._request.since), Parser()
        url, headers = f"{self.node}{BASE}/watch", {**self._api.headers, **self._request.headers()}
        async with self._api.transport.stream(url, idle=IDLE, params=self._request.params(), headers=headers) as (
            reply,
            chunks,
        ):
            if reply.status != 200:
                raise Unreachable(f"it answered the watch with status {reply.status}")
            self._heard()
            async for chunk in chunks:
                self._heard()
                for event in parser.feed(chunk):
                    group = grouping.take(event)
                    if group is not None and grouping.opened is not None:
                        self._watch, self.heartbeat = grouping.opened.watch, grouping.opened.heartbeat
                        await self._offer(group)

    def _heard(self) -> None:
        self._heard_at = self._clock.now()
        self.changed()

    async def _offer(self, group: Group) -> None:
        """Return when the group was taken; nothing is read meanwhile, so that the registry coalesces changes."""
        self._taken.clear()
        self._group = group
        self.changed()
        await self._taken.wait()


async def open_stream(
    api: Api, node: str, request: Request, clock: Clock, rng: Random, heard: Callable[[], None]
) -> Stream:
    """A connection whose first group is there; `heard` is called whenever bytes come. Raises `Unreachable`."""
    alarm = Alarm(clock)

    def changed() -> None:
        heard()
        alarm.ring()

    stream = Stream(api, node, request, clock, rng, changed)
    try:
        while (silent_since := stream.silent_since) is not None:
            if stream.why:
                raise Unreachable(stream.why)
            if clock.now() - silent_since >= FIRST_GROUP:
                raise Unreachable("it did not answer in time")
            await alarm.wait(silent_since + FIRST_GROUP)
    except BaseException:
        await stream.close()
        raise
    return stream
