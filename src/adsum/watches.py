"""The watches of one node.

Watches are level-triggered: a watch is only notified that something changed. Its owner then sends the difference
between what it sent last and the newest snapshot. So a slow watch skips what lay between, and no queue can grow.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Final

from adsum.consumers import AckRecord, Consumer, Consumers
from adsum.core.errors import Overloaded
from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT, lost_after
from adsum.ports import Clock, Observer

MIN_WAKE_INTERVAL: Final = 0.02
"""Seconds between two wakeups of one service's watches. The first change wakes them at once, later ones together."""
WAKE_INTERVAL_PER_WATCH: Final = 30e-6
"""Seconds that each watch of a service adds to `MIN_WAKE_INTERVAL`, about twice the time that its event takes. Ten
thousand watches are woken at most three times a second, so that a burst of changes leaves time for other work."""
MAX_WAKES_PER_TURN: Final = 256
"""Watches that are woken before other tasks run: ten thousand take a while."""
MAX_WATCHES: Final = 50_000
"""Watches of one node. Past it a new one is refused."""
MAX_WATCHED_SERVICES: Final = 500_000
"""Services that all watches of one node name; a service counts once for each watch. Past it a new watch is refused.
Each takes about 500 bytes: 250 MB in all."""

_log = logging.getLogger("adsum.watches")


class Watch:
    """A watch of some services (None: all of them). It is notified of changes, not of what changed.

    The watch of a consumer reports with `acknowledge` which revision the consumer routes by. A watch that is not
    `is_notified` learns of changes in another way; drains still wait for its consumer.
    """

    __slots__ = (
        "_has_changed",
        "_publication",
        "_waiter",
        "_watches",
        "ack_records",
        "is_closed",
        "is_notified",
        "is_peer_lost",
        "push",
        "services",
    )

    def __init__(
        self, watches: Watches, services: frozenset[str] | None, ack_records: tuple[AckRecord, ...], is_notified: bool
    ) -> None:
        self._watches = watches
        self._has_changed = False
        self._waiter: asyncio.Future[None] | None = None
        self._publication: _Publication | None = None
        self.services = services
        self.ack_records = ack_records
        """The acknowledgements of its consumer; empty for a watch without a consumer."""
        self.is_notified = is_notified
        self.is_closed = False
        self.is_peer_lost = False
        """True if the peer was silent for so long that its consumer is lost."""
        self.push: Callable[[], bool] | None = None
        """Sends what changed without waking the waiter in `changed`. Returns False if it can't do so now."""

    @property
    def acknowledged(self) -> int:
        """The revision that the consumer has acknowledged."""
        return min((record.acknowledged for record in self.ack_records), default=0)

    async def changed(self, timeout: float | None = None) -> bool:
        """Waits for a change since the last call. Returns False after `timeout` seconds without one, or `interrupt`."""
        self._delivered()
        if not self._has_changed:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(timeout, self._release) if timeout is not None else None
            try:
                await self._waiter
            finally:
                if timer is not None:
                    timer.cancel()
                self._waiter = None
        has_changed, self._has_changed = self._has_changed, False
        return has_changed

    def wake(self) -> bool:
        """Notifies the watch of a change. Returns whether `push` has sent it already."""
        push, waiter = self.push, self._waiter
        if push is not None and waiter is not None and not waiter.done():  # As `can_push`, without its call.
            try:
                if push():
                    return True
            except Exception:
                # The waiter in `changed` meets the same error, and fails alone.
                _log.exception("a watch could not push a change")
        self._has_changed = True
        self._release()
        return False

    def can_push(self) -> bool:
        """Returns whether `push` can send something now: its owner waits in `changed`."""
        return self.push is not None and self._waiter is not None and not self._waiter.done()

    def interrupt(self) -> None:
        """Ends a wait in `changed` now, as its timeout would."""
        self._release()

    def _release(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def join(self, publication: _Publication) -> None:
        """Counts the watch as one that the publication woke, unless it still handles an earlier one."""
        if self._publication is None:
            self._publication = publication
            publication.pending += 1

    def _delivered(self) -> None:
        if self._publication is not None:
            self._publication.delivered()
            self._publication = None

    def acknowledge(self, revision: int, services: Collection[str] = ()) -> None:
        """Records that the consumer routes by `revision` or a later one of these services (none: of all)."""
        records = self.ack_records
        if services:
            records = tuple(record for record in records if record.scope in services)
        self._watches.consumers.acknowledge(records, revision)

    def update(self, joining: Mapping[str, Consumer | None], leaving: Collection[str]) -> None:
        """Lets services leave this watch of named services, and others join, each with its consumer.

        A service that joins again gets a new acknowledgement record. Raises `Overloaded`, and changes nothing then.
        """
        self._watches.update(self, joining, leaving)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.is_closed = True
        self._delivered()
        self._watches.remove(self)


class _Publication:
    """Counts the watches that one publication woke. Calls `on_done` when the last of them has sent it."""

    __slots__ = ("_on_done", "pending")

    def __init__(self, on_done: Callable[[], None]) -> None:
        self._on_done = on_done
        self.pending = 1
        """The watches that have yet to send it, and one while watches are still being woken."""

    def delivered(self) -> None:
        self.pending -= 1
        if self.pending == 0:
            self._on_done()


class Watches:
    """The watches of this node, by service."""

    def __init__(self, clock: Clock, observer: Observer, heartbeat: float = DEFAULT_HEARTBEAT) -> None:
        self._clock = clock
        self._observer = observer
        self.consumers = Consumers(clock, lost_after(heartbeat))
        """The consumers that acknowledge, and that drains wait for."""
        self._by_service: dict[str | None, set[Watch]] = {}
        self._woken_at: dict[str | None, float] = {}
        self._delayed: dict[str | None, asyncio.TimerHandle] = {}
        self.count = 0
        self.watched_services = 0
        """The number of services that the watches name; a service counts once for each watch."""
        self._end = asyncio.Event()

    def open(
        self, services: frozenset[str] | None, *, consumer: Consumer | None = None, is_notified: bool = True
    ) -> Watch:
        """Opens a watch, which is a context manager. Raises `Overloaded` at `MAX_WATCHES` and `MAX_WATCHED_SERVICES`.

        `consumer` acknowledges the revisions that it routes by. None: drains don't wait for this watch.
        """
        if self.count >= MAX_WATCHES:
            raise Overloaded("the table of watches", retry_after=10.0)
        name_count = len(services) if services is not None else 0
        if self.watched_services + name_count > MAX_WATCHED_SERVICES:
            raise Overloaded("the table of watched services", retry_after=10.0)
        ack_records = self.consumers.connect(consumer, services) if consumer is not None else ()
        watch = Watch(self, services, ack_records, is_notified)
        if is_notified:
            for name in _names(services):
                self._by_service.setdefault(name, set()).add(watch)
        self.count += 1
        self.watched_services += name_count
        return watch

    def update(self, watch: Watch, joining: Mapping[str, Consumer | None], leaving: Collection[str]) -> None:
        """See `Watch.update`."""
        before = watch.services
        if before is None:
            raise TypeError("a watch of all services has no service that could join or leave")
        after = before.difference(leaving).union(joining)
        if self.watched_services - len(before) + len(after) > MAX_WATCHED_SERVICES:
            raise Overloaded("the table of watched services", retry_after=10.0)
        # Connected before the old records are disconnected: a consumer that joins again never counts as gone.
        joined = tuple(
            record
            for service, consumer in joining.items()
            if consumer is not None
            for record in self.consumers.connect(consumer, (service,))
        )
        ended = before.difference(after).union(joining)
        self.consumers.disconnect([record for record in watch.ack_records if record.scope in ended], silent=False)
        watch.ack_records = (*(record for record in watch.ack_records if record.scope not in ended), *joined)
        if watch.is_notified:
            self._forget(watch, before - after)
            for name in after - before:
                self._by_service.setdefault(name, set()).add(watch)
        self.watched_services += len(after) - len(before)
        watch.services = after

    def is_watched(self, service: str) -> bool:
        """Returns whether a notified watch names the service."""
        return service in self._by_service

    def remove(self, watch: Watch) -> None:
        self.count -= 1
        self.watched_services -= len(watch.services) if watch.services is not None else 0
        if watch.is_notified:
            self._forget(watch, _names(watch.services))
        self.consumers.disconnect(watch.ack_records, silent=watch.is_peer_lost)

    def _forget(self, watch: Watch, names: Iterable[str | None]) -> None:
        for name in names:
            members = self._by_service.get(name, set())
            members.discard(watch)
            if not members:
                self._by_service.pop(name, None)
                self._woken_at.pop(name, None)

    def publish(self, services: Iterable[str] | None) -> int:
        """Wakes the watches of the changed services (None: of all services). Returns how many it woke at once.

        The watches of a service that was woken shortly before are woken together, after their wake interval.
        """
        now = self._clock.now()
        if services is None:
            names: list[str | None] = list(self._by_service)
        else:
            names = [*(name for name in services if name in self._by_service), None]
        woken = 0
        for name in names:
            if name in self._delayed:
                continue
            delay = self._wake_delay(name, now)
            if delay <= 0:
                woken += self._wake(name, now, now)
            else:
                loop = asyncio.get_running_loop()
                self._delayed[name] = loop.call_later(delay, self._wake_delayed, name, now)
        return woken

    def _wake_delay(self, name: str | None, now: float) -> float:
        """Returns the seconds until the watches of a service may be woken again."""
        woken_at = self._woken_at.get(name)
        if woken_at is None:
            return 0.0
        return woken_at + MIN_WAKE_INTERVAL + WAKE_INTERVAL_PER_WATCH * len(self._by_service[name]) - now

    def _wake_delayed(self, name: str | None, published_at: float) -> None:
        del self._delayed[name]
        self._wake(name, published_at, self._clock.now())

    def _wake(self, name: str | None, published_at: float, now: float) -> int:
        """Wakes the watches of one service. The observer learns when the last of them has sent the change."""
        members = tuple(self._by_service.get(name, ()))
        if members:
            self._woken_at[name] = now
            publication = _Publication(lambda: self._observer.delivered(self._clock.now() - published_at))
            self._wake_some(members, publication)
        return len(members)

    def _wake_some(self, members: Sequence[Watch], publication: _Publication) -> None:
        """Wakes the first watches now, and the others after other tasks have run."""
        for watch in members[:MAX_WAKES_PER_TURN]:
            if not watch.is_closed and not watch.wake():
                watch.join(publication)
        if len(members) > MAX_WAKES_PER_TURN:
            asyncio.get_running_loop().call_soon(self._wake_some, members[MAX_WAKES_PER_TURN:], publication)
        else:
            publication.delivered()

    def end(self) -> None:
        """Ends all watches, because the node stops: wakes each of them, and sets `is_ended`."""
        self._end.set()
        for timer in self._delayed.values():
            timer.cancel()
        for members in list(self._by_service.values()):
            for watch in list(members):
                watch.push = None  # Its owner has to end it.
                watch.wake()

    @property
    def is_ended(self) -> bool:
        """True once the node stops."""
        return self._end.is_set()

    async def wait_until_ended(self) -> None:
        """Returns when the node stops."""
        await self._end.wait()


def _names(services: frozenset[str] | None) -> Iterable[str | None]:
    return (None,) if services is None else services
