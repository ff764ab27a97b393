"""Who is told that something changed.

Watches are level-triggered: a watch is only ever told to look again. What it then shows is the difference between
what it last showed and the newest snapshot, so a slow one skips what lay between and no queue can grow.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Final

from adsum.consumers import AckRecord, Consumer, Consumers
from adsum.core.errors import Overloaded
from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT, lost_after
from adsum.ports import Clock, Observer

MIN_WAKE_INTERVAL: Final = 0.02
"""Seconds between two wakings of one service's watches: the first change wakes at once, later ones together."""
WAKE_INTERVAL_PER_WATCH: Final = 50e-6
"""Seconds of quiet that a service's watches add to `MIN_WAKE_INTERVAL`, each: ten thousand are told at most twice a second, so
that telling them of a burst leaves time for everything else."""
MAX_WAKES_PER_TURN: Final = 256
"""How many watches of one service are told before others have their turn: telling ten thousand takes a while."""
MAX_WATCHES: Final = 50_000
"""How many watches one node holds; past it a new one is refused."""
MAX_WATCHED_SERVICES: Final = 500_000
"""How many services all watches of one node name, a service counted for each of them; past it a new watch is refused.
Each takes some 500 bytes: 250 MB in all."""

_log = logging.getLogger("adsum.watches")


class Watch:
    """An endless series of "look again" about some services (None: about all of them).

    The watch of a consumer promises to say with `acknowledge` when that one routes by what it was shown. A watch that
    is not `told` hears of changes in another way, and is only waited for.
    """

    __slots__ = (
        "_hub",
        "_look",
        "_waiter",
        "_wave",
        "ack_records",
        "is_closed",
        "is_notified",
        "is_peer_lost",
        "push",
        "services",
    )

    def __init__(
        self, hub: Watches, services: frozenset[str] | None, duties: tuple[AckRecord, ...], told: bool
    ) -> None:
        self._hub = hub
        self._look = False
        self._waiter: asyncio.Future[None] | None = None
        self._wave: _Wave | None = None
        self.services = services
        self.ack_records = duties
        """What its consumer owes; empty if it promised nothing."""
        self.is_notified = told
        self.is_closed = False
        self.is_peer_lost = False
        """Whether it is known that nothing was heard of the peer for so long that its consumer is lost."""
        self.push: Callable[[], bool] | None = None
        """Shows what changed without waking who waits in `changed`; False if it can't just now."""

    @property
    def acknowledged(self) -> int:
        """The revision that the consumer routes by, as far as it said."""
        return min((duty.acknowledged for duty in self.ack_records), default=0)

    async def changed(self, timeout: float | None = None) -> bool:
        """Wait until something changed since the last call; False after `timeout` seconds without, or `interrupt`."""
        self._shown()
        if not self._look:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(timeout, self._release) if timeout is not None else None
            try:
                await self._waiter
            finally:
                if timer is not None:
                    timer.cancel()
                self._waiter = None
        looked, self._look = self._look, False
        return looked

    def wake(self) -> bool:
        """Tell it to look; whether it has shown at once what there was to see."""
        if self.push is not None and self.can_push() and self._shows(self.push):
            return True
        self._look = True
        self._release()
        return False

    def _shows(self, show: Callable[[], bool]) -> bool:
        try:
            return show()
        except Exception:
            # Whoever waits in `changed` meets it too, and fails alone.
            _log.exception("a watch could not show at once what changed")
            return False

    def can_push(self) -> bool:
        """Whether something can be shown now by `show`: somebody waits in `changed`."""
        return self.push is not None and self._waiter is not None and not self._waiter.done()

    def interrupt(self) -> None:
        """End a wait in `changed` now, as if its time were out."""
        self._release()

    def _release(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def join(self, wave: _Wave) -> None:
        """Be counted among those that a publication woke, unless still busy with an earlier one."""
        if self._wave is None:
            self._wave = wave
            wave.left += 1

    def _shown(self) -> None:
        if self._wave is not None:
            self._wave.one_done()
            self._wave = None

    def acknowledge(self, revision: int) -> None:
        """The consumer routes by `revision` or later from now on."""
        self._hub.consumers.acknowledge(self.ack_records, revision)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.is_closed = True
        self._shown()
        self._hub.remove(self)


class _Wave:
    """The watches that one publication woke, until all are told and the last of them has shown it."""

    __slots__ = ("_done", "left")

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done
        self.left = 1

    def one_done(self) -> None:
        self.left -= 1
        if self.left == 0:
            self._done()


class Watches:
    """Every watch of this node, by service."""

    def __init__(self, clock: Clock, observer: Observer, heartbeat: float = DEFAULT_HEARTBEAT) -> None:
        self._clock = clock
        self._observer = observer
        self.consumers = Consumers(clock, lost_after(heartbeat))
        """Those that promise to acknowledge, and whom drains wait for."""
        self._of: dict[str | None, set[Watch]] = {}
        self._woken: dict[str | None, float] = {}
        self._late: dict[str | None, asyncio.TimerHandle] = {}
        self.count = 0
        self.watched_services = 0
        """How many services the watches name, a service counted for each of them."""
        self._end = asyncio.Event()

    def open(
        self, services: frozenset[str] | None, *, consumer: Consumer | None = None, is_notified: bool = True
    ) -> Watch:
        """A new watch, to be closed by leaving its `with`. Raises `Overloaded` at `MAX_WATCHES` and `MAX_WATCHED_SERVICES`.

        `consumer`: who promises to acknowledge what it is shown; None: an onlooker, whom nobody waits for.
        """
        if self.count >= MAX_WATCHES:
            raise Overloaded("the number of watches", retry_after=10.0)
        named = len(services) if services is not None else 0
        if self.watched_services + named > MAX_WATCHED_SERVICES:
            raise Overloaded("the number of services that watches name", retry_after=10.0)
        duties = self.consumers.connect(consumer, services) if consumer is not None else ()
        watch = Watch(self, services, duties, is_notified)
        if is_notified:
            for name in _names(services):
                self._of.setdefault(name, set()).add(watch)
        self.count += 1
        self.watched_services += named
        return watch

    def is_watched(self, service: str) -> bool:
        """Whether some watch is told of that service by its name."""
        return service in self._of

    def remove(self, watch: Watch) -> None:
        self.count -= 1
        self.watched_services -= len(watch.services) if watch.services is not None else 0
        for name in _names(watch.services) if watch.is_notified else ():
            members = self._of.get(name, set())
            members.discard(watch)
            if not members:
                self._of.pop(name, None)
                self._woken.pop(name, None)
        self.consumers.disconnect(watch.ack_records, silent=watch.is_peer_lost)

    def publish(self, services: Iterable[str] | None) -> int:
        """Wake the watches of the touched services (None: of all); how many were told at once.

        Those of a service woken only just before are told together when they have had their rest.
        """
        now = self._clock.now()
        names = list(self._of) if services is None else [*(name for name in services if name in self._of), None]
        woken = 0
        for name in names:
            if name in self._late:
                continue
            rest = self._rest(name, now)
            if rest <= 0:
                woken += self._wake(name, now, now)
            else:
                loop = asyncio.get_running_loop()
                self._late[name] = loop.call_later(rest, self._wake_late, name, now)
        return woken

    def _rest(self, name: str | None, now: float) -> float:
        """For how many seconds the watches of a service are not to be woken again."""
        woken = self._woken.get(name)
        return 0.0 if woken is None else woken + MIN_WAKE_INTERVAL + WAKE_INTERVAL_PER_WATCH * len(self._of[name]) - now

    def _wake_late(self, name: str | None, since: float) -> None:
        del self._late[name]
        self._wake(name, since, self._clock.now())

    def _wake(self, name: str | None, since: float, now: float) -> int:
        """Wake the watches of one service; `since` is when what they are to show was published."""
        members = tuple(self._of.get(name, ()))
        if members:
            self._woken[name] = now
            self._tell(members, _Wave(lambda: self._observer.delivered(self._clock.now() - since)))
        return len(members)

    def _tell(self, members: Sequence[Watch], wave: _Wave) -> None:
        """Wake some, and the others when whoever else has something to do has had a turn."""
        for watch in members[:MAX_WAKES_PER_TURN]:
            if not watch.is_closed and not watch.wake():
                watch.join(wave)
        if len(members) > MAX_WAKES_PER_TURN:
            asyncio.get_running_loop().call_soon(self._tell, members[MAX_WAKES_PER_TURN:], wave)
        else:
            wave.one_done()

    def end(self) -> None:
        """The node stops: every watch is told to look, and finds `is_ended`."""
        self._end.set()
        for timer in self._late.values():
            timer.cancel()
        for members in list(self._of.values()):
            for watch in list(members):
                watch.wake()

    @property
    def is_ended(self) -> bool:
        """Whether the node stops."""
        return self._end.is_set()

    async def wait_until_ended(self) -> None:
        """Return when the node stops."""
        await self._end.wait()


def _names(services: frozenset[str] | None) -> Iterable[str | None]:
    return (None,) if services is None else services
