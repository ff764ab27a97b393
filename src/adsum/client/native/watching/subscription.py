"""The subscription of a consumer to one service: what has arrived for it, and what it has not taken yet.

Consumers that share a watch take their updates at their own pace. An update that comes before the consumer has taken
the one before is merged with it, so that a slow consumer skips to the latest state and delays no other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from adsum.client.consumer_identity import ConsumerIdentity
from adsum.client.sources.source import ConnectionLost, ServiceUpdate, ViewPosition
from adsum.core.selection import DECLARED_STATUSES

MAX_WAITING_EVENTS: Final = 3
"""Events that wait for a consumer and can't be merged, such as updates of two epochs. Past it the watch reads nothing
until one is taken."""
MAX_WAITING_CHANGES: Final = 100_000
"""Changes that wait for a consumer. Past it the watch reads nothing until they are taken, and the registry coalesces
further ones."""

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class ReceivedUpdate(Generic[C]):
    """An update, and the connection that it came over.

    `is_awaited`: a drain may wait until the consumer routes by it.
    """

    update: ServiceUpdate
    connection: C
    is_awaited: bool

    @staticmethod
    def create(update: ServiceUpdate, connection: C) -> ReceivedUpdate[C]:
        statuses = {endpoint.status for endpoint in update.changed.values()}
        return ReceivedUpdate(
            update, connection, is_awaited=bool(update.removed) or not DECLARED_STATUSES.isdisjoint(statuses)
        )


class Inbox(Generic[C]):
    """The events that wait for one consumer, in order."""

    __slots__ = ("_events",)

    def __init__(self) -> None:
        self._events: deque[ReceivedUpdate[C] | ConnectionLost] = deque()

    @property
    def has_room(self) -> bool:
        """False if nothing more may be added until something is taken."""
        if not self._events:
            return True
        last = self._events[-1]
        changes = 0 if isinstance(last, ConnectionLost) else len(last.update.changed) + len(last.update.removed)
        return len(self._events) <= MAX_WAITING_EVENTS and changes <= MAX_WAITING_CHANGES

    def add(self, event: ReceivedUpdate[C] | ConnectionLost) -> None:
        """Adds an event, merged with the last one if they can be merged."""
        last = self._events[-1] if self._events else None
        if isinstance(event, ConnectionLost):
            if isinstance(last, ConnectionLost):
                self._events.pop()
        elif last is not None and not isinstance(last, ConnectionLost):
            merged = merge_updates(last.update, event.update)
            if merged is not None:
                self._events.pop()
                event = ReceivedUpdate(merged, event.connection, last.is_awaited or event.is_awaited)
        self._events.append(event)

    def move_to(self, other: Inbox[C]) -> None:
        """Adds every event to another inbox, and keeps none."""
        while self._events:
            other.add(self._events.popleft())

    def take(self) -> ReceivedUpdate[C] | ConnectionLost | None:
        """Returns the first event, None if there is none."""
        return self._events.popleft() if self._events else None


class ServiceSubscription(Generic[C]):
    """One service that a program follows."""

    def __init__(
        self, service: str, position: Callable[[], ViewPosition | None], consumer: ConsumerIdentity | None
    ) -> None:
        """`position` returns the position that the consumer has. Without a `consumer` no drain waits for it."""
        self.service = service
        self.position = position
        self.consumer = consumer
        self.inbox = Inbox[C]()
        self._arrived = asyncio.Event()
        self._error: BaseException | None = None
        self.on_taken: Callable[[], None] | None = None
        """Called when the consumer has taken an event."""

    @property
    def consumer_id(self) -> str:
        """The id of the consumer; "" without one."""
        return self.consumer.id if self.consumer is not None else ""

    def add(self, event: ReceivedUpdate[C] | ConnectionLost) -> None:
        """Adds an event, and wakes the consumer."""
        self.inbox.add(event)
        self._arrived.set()

    def add_all(self, events: Inbox[C]) -> None:
        """Adds all events of an inbox."""
        events.move_to(self.inbox)
        self._arrived.set()

    def fail(self, error: BaseException) -> None:
        """Raises the error in `next`, after the events that have arrived."""
        self._error = error
        self._arrived.set()

    async def next(self) -> ReceivedUpdate[C] | ConnectionLost:
        """Returns the next event, once there is one. Raises the error of `fail`."""
        while True:
            event = self.inbox.take()
            if event is not None:
                if self.on_taken is not None:
                    self.on_taken()
                return event
            if self._error is not None:
                raise self._error
            self._arrived.clear()
            await self._arrived.wait()


def merge_updates(earlier: ServiceUpdate, later: ServiceUpdate) -> ServiceUpdate | None:
    """Returns the update that has the effect of both, one after the other; None if there is none."""
    ours, theirs = earlier.position, later.position
    if ours.epoch != theirs.epoch or theirs.revision < ours.revision:
        return None
    if later.full:
        return later
    if later.since > ours.revision:
        return None
    if not (later.changed or later.removed):
        return replace(earlier, position=theirs, age=later.age)
    changed = {id: endpoint for id, endpoint in earlier.changed.items() if id not in later.removed}
    changed.update(later.changed)
    removed = frozenset() if earlier.full else earlier.removed.difference(later.changed).union(later.removed)
    return ServiceUpdate(theirs, earlier.full, changed, removed, earlier.since, later.age)
