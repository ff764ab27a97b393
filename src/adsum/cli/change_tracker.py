"""From the registry's watch to one line a change: remembers how each instance stood."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import msgspec

from adsum import wire
from adsum.client.errors import RegistryUnavailable, Unreachable
from adsum.client.native.api import BASE, Api
from adsum.client.native.sse import Event, Parser
from adsum.core.backoff import Backoff
from adsum.core.liveness.heartbeats import HEARTBEAT, HEARTBEAT_MIN, staleness
from adsum.core.validation import public

GONE: Final = "gone"
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""Bounds of the pause before connecting again."""


class Told(msgspec.Struct, frozen=True):
    """A change, as `adsum watch --json` prints it. `at` is seconds since 1970."""

    at: float
    service: str
    id: str
    address: str
    port: int
    status: str
    was: str
    cause: str
    actor: str
    reason: str
    revision: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A change; `first`: not one, but how things stand when the watch begins."""

    told: Told
    first: bool = False


class Following:
    """The services of one watch as they stood last."""

    def __init__(self) -> None:
        self.position = ""
        """EPOCH:REVISION up to which everything was seen."""
        self.heartbeat = HEARTBEAT
        """Seconds between two heartbeats, as the registry states them."""
        self._epoch = ""
        self._first = True
        self._whole = False
        self._known: dict[str, dict[str, wire.InstanceView]] = {}
        self._missing: set[str] = set()

    def take(self, event: Event) -> Iterator[Seen]:
        """What an event says. Raises `Invalid` if it is none of the protocol's."""
        if event.name == "open":
            opened = wire.decode(event.data, wire.Opened)
            self._epoch, self._whole = opened.epoch, opened.whole
            self.heartbeat = max(HEARTBEAT_MIN, opened.heartbeat or HEARTBEAT)
            self._missing = set(self._known) if opened.whole else set()
        elif event.name == "service":
            yield from self._replace(wire.decode(event.data, wire.ServiceView))
        elif event.name == "change":
            change = wire.decode(event.data, wire.ServiceChange)
            for view in change.changed:
                yield from self._changed(change.service, view, change.revision)
            for gone in change.gone:
                yield from self._gone(change.service, gone, change.revision)
        elif event.name == "synced":
            synced = wire.decode(event.data, wire.Synced)
            for service in sorted(self._missing):
                yield from self._replace(wire.ServiceView(self._epoch, service, synced.revision, []))
            self._missing.clear()
            self._first = False
            self.position = event.id

    def _replace(self, view: wire.ServiceView) -> Iterator[Seen]:
        self._missing.discard(view.service)
        for id in sorted(set(self._known.get(view.service, ())) - {each.id for each in view.instances}):
            unseen = wire.Gone(id, "unknown", "", "it left while we were away", round(time.time(), 3))
            yield from self._gone(view.service, unseen, view.revision)
        for each in view.instances:
            yield from self._changed(view.service, each, view.revision)

    def _changed(self, service: str, view: wire.InstanceView, revision: int) -> Iterator[Seen]:
        known = self._known.setdefault(service, {})
        before = known.get(view.id)
        known[view.id] = view
        if before == view:
            return
        was = before.status if before is not None else ""
        told = Told(
            at=view.since if before is None or was != view.status else round(time.time(), 3),
            service=service,
            id=view.id,
            address=view.address,
            port=view.port,
            status=view.status,
            was=was,
            cause=view.cause,
            actor=view.actor,
            reason=view.reason,
            revision=revision,
        )
        yield Seen(told, self._first)

    def _gone(self, service: str, gone: wire.Gone, revision: int) -> Iterator[Seen]:
        before = self._known.get(service, {}).pop(gone.id, None)
        if before is None:
            return
        yield Seen(
            Told(
                at=gone.at,
                service=service,
                id=gone.id,
                address=before.address,
                port=before.port,
                status=GONE,
                was=before.status,
                cause=gone.cause,
                actor=gone.actor,
                reason=gone.reason,
                revision=revision,
            )
        )


async def follow(
    api: Api, services: Sequence[str], rng: Random, say: Callable[[str], None]
) -> AsyncGenerator[Seen, None]:
    """Everything that happens, over connections that break; `say` is told when one does and when it is back.

    Raises `RegistryUnavailable` if no node answers at first, and `RegistryRefused`.
    """
    await api.status()  # Says well who is not there; the watch itself would go on trying.
    following, backoff, lost = Following(), Backoff(FIRST_PAUSE, LONGEST_PAUSE), False
    while True:
        node = "the registry"
        try:
            node = await api.look()
            async for event in _events(api, node, services, following):
                if lost:
                    say(f"{public(node)} is back")
                lost = False
                backoff.reset()
                for seen in following.take(event):
                    yield seen
            why = "it ended the watch"
            api.nodes.failed(node)
        except Unreachable as error:
            why = str(error)
            api.nodes.failed(node)
        except RegistryUnavailable as error:
            why = error.why
        if not lost:
            say(f"lost {public(node)}: {why}; trying again")
        lost = True
        await asyncio.sleep(rng.uniform(0.0, backoff.next(rng)))


async def _events(api: Api, node: str, services: Sequence[str], following: Following) -> AsyncGenerator[Event, None]:
    """The events of one connection. It looks on: no drain waits for it. Raises `Unreachable`."""
    headers = {**api.headers, "Accept": "text/event-stream", "Cache-Control": "no-store"}
    if following.position:
        headers["Last-Event-ID"] = following.position
    params, idle = [("service", service) for service in services], staleness(following.heartbeat)
    parser = Parser()
    async with api.transport.stream(f"{node}{BASE}/watch", idle=idle, params=params, headers=headers) as (
        reply,
        chunks,
    ):
        if reply.status != 200:
            raise Unreachable(f"it answered the watch with status {reply.status}")
        async for chunk in chunks:
            for event in parser.feed(chunk):
                yield event
