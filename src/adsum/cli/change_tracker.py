"""Turns the events of a registry's watch into single changes. It remembers the last state of every instance."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import msgspec

from adsum import wire
from adsum.client.errors import NodeUnreachable, RegistryUnavailable
from adsum.client.native.api import RegistryApi
from adsum.client.native.sse import SseEvent, SseParser
from adsum.core.backoff import Backoff
from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT, MIN_HEARTBEAT, stale_after
from adsum.core.validation import without_credentials

GONE: Final = "gone"
MIN_RECONNECT_PAUSE, MAX_RECONNECT_PAUSE = 0.25, 5.0
"""Seconds; the bounds of the pause before the watch connects again."""


class WatchedChange(msgspec.Struct, frozen=True):
    """A change, as `adsum watch --json` prints it. `at` is in seconds since 1970."""

    at: float
    service: str
    id: str
    address: str
    port: int
    status: str
    previous_status: str
    cause: str
    actor: str
    reason: str
    revision: int
    claimed: str = ""


@dataclass(frozen=True, slots=True)
class ObservedChange:
    """A change; with `initial` it is the state of an instance when the watch begins."""

    change: WatchedChange
    initial: bool = False


class ChangeTracker:
    """The last known state of the services of one watch."""

    def __init__(self) -> None:
        self.position = ""
        """EPOCH:REVISION up to which all events were received."""
        self.heartbeat = DEFAULT_HEARTBEAT
        """Seconds between two heartbeats, as the registry states them."""
        self._epoch = ""
        self._initial = True
        self._instances: dict[str, dict[str, wire.InstanceView]] = {}
        self._missing: set[str] = set()

    def feed(self, event: SseEvent) -> Iterator[ObservedChange]:
        """Yields the changes in an event. Raises `Invalid` if the event is not one of the protocol."""
        if event.name == "open":
            opened = wire.decode(event.data, wire.WatchOpened)
            self._epoch = opened.epoch
            self.heartbeat = max(MIN_HEARTBEAT, opened.heartbeat or DEFAULT_HEARTBEAT)
            self._missing = set(self._instances) if opened.full else set()
        elif event.name == "service":
            yield from self._replace(wire.decode(event.data, wire.ServiceView))
        elif event.name == "change":
            change = wire.decode(event.data, wire.ServiceChange)
            for view in change.changed:
                yield from self._update(change.service, view, change.revision)
            for removed in change.removed:
                yield from self._remove(change.service, removed, change.revision)
        elif event.name == "synced":
            synced = wire.decode(event.data, wire.WatchSynced)
            for service in sorted(self._missing):
                yield from self._replace(wire.ServiceView(self._epoch, service, synced.revision, []))
            self._missing.clear()
            self._initial = False
            self.position = event.id

    def _replace(self, view: wire.ServiceView) -> Iterator[ObservedChange]:
        self._missing.discard(view.service)
        for id in sorted(set(self._instances.get(view.service, ())) - {instance.id for instance in view.instances}):
            reason = "it left while the watch was interrupted"
            removed = wire.RemovedInstance(id, "unknown", "", reason, round(time.time(), 3))
            yield from self._remove(view.service, removed, view.revision)
        for instance in view.instances:
            yield from self._update(view.service, instance, view.revision)

    def _update(self, service: str, view: wire.InstanceView, revision: int) -> Iterator[ObservedChange]:
        instances = self._instances.setdefault(service, {})
        before = instances.get(view.id)
        instances[view.id] = view
        if before == view:
            return
        previous_status = before.status if before is not None else ""
        change = WatchedChange(
            at=view.since if before is None or previous_status != view.status else round(time.time(), 3),
            service=service,
            id=view.id,
            address=view.address,
            port=view.port,
            status=view.status,
            previous_status=previous_status,
            cause=view.cause,
            actor=view.actor,
            reason=view.reason,
            revision=revision,
            claimed=view.claimed,
        )
        yield ObservedChange(change, self._initial)

    def _remove(self, service: str, removed: wire.RemovedInstance, revision: int) -> Iterator[ObservedChange]:
        before = self._instances.get(service, {}).pop(removed.id, None)
        if before is None:
            return
        yield ObservedChange(
            WatchedChange(
                at=removed.at,
                service=service,
                id=removed.id,
                address=before.address,
                port=before.port,
                status=GONE,
                previous_status=before.status,
                cause=removed.cause,
                actor=removed.actor,
                reason=removed.reason,
                revision=revision,
                claimed=removed.claimed,
            )
        )


async def follow_changes(
    api: RegistryApi, services: Sequence[str], rng: Random, report: Callable[[str], None]
) -> AsyncGenerator[ObservedChange, None]:
    """Yields every change of the services, and reconnects when a connection breaks.

    `report` receives a message when a connection breaks and when it is back. Raises `RegistryUnavailable` if no node
    answers at first, and `RegistryRefused`.
    """
    await api.find_responsive_node()  # Fails at once if no node answers; the watch itself would keep trying.
    tracker, backoff, lost = ChangeTracker(), Backoff(MIN_RECONNECT_PAUSE, MAX_RECONNECT_PAUSE), False
    while True:
        node = "the registry"
        try:
            node = await api.find_responsive_node()
            async for event in _events(api, node, services, tracker):
                if lost:
                    report(f"{without_credentials(node)} is back")
                lost = False
                backoff.reset()
                for change in tracker.feed(event):
                    yield change
            reason = "it ended the watch"
            api.nodes.mark_failed(node)
        except NodeUnreachable as error:
            reason = str(error)
            api.nodes.mark_failed(node)
        except RegistryUnavailable as error:
            reason = error.reason
        if not lost:
            report(f"lost {without_credentials(node)}: {reason}; trying again")
        lost = True
        await asyncio.sleep(rng.uniform(0.0, backoff.next(rng)))


async def _events(
    api: RegistryApi, node: str, services: Sequence[str], tracker: ChangeTracker
) -> AsyncGenerator[SseEvent, None]:
    """Yields the events of one connection. It sends no ACKs, so no drain waits for it. Raises `NodeUnreachable`."""
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if tracker.position:
        headers["Last-Event-ID"] = tracker.position
    params, idle = [("service", service) for service in services], stale_after(tracker.heartbeat)
    parser = SseParser()
    async with api.open_stream(node, "/watch", idle=idle, params=params, headers=headers) as chunks:
        async for chunk in chunks:
            for event in parser.feed(chunk):
                yield event
