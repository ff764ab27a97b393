"""A service → its live view. On error it ages, it never forgets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, closing
from random import Random
from typing import Final

from adsum.client.durations import format_duration
from adsum.client.sources.source import ConnectionLost, ServiceUpdate, Source, ViewPosition
from adsum.client.views.cache_writer import CacheWriter
from adsum.client.views.view import DEFAULT_CACHE_MAX_AGE, View, ViewOrigin
from adsum.client.views.view_cache import CachedView, ViewCache
from adsum.client.views.view_state import SETTLING_TIME, RevisionGap, UpdateEffect, ViewState
from adsum.core.backoff import Backoff
from adsum.core.validation import service_name
from adsum.ports import Clock

PUBLISH_PAUSE_FACTOR: Final = 9.0
"""The pause after a change, in lengths of what it cost to take over: pickers take a tenth of the time at most. Changes
meanwhile wait at the registry, which coalesces them."""
MAX_PUBLISH_PAUSE: Final = 1.0
"""Seconds of that pause at most."""
MIN_REWATCH_PAUSE, MAX_REWATCH_PAUSE = 0.5, 10.0
"""Bounds of the pause after an error that nobody foresaw; then the watch begins anew."""
MAX_SLEEP_OVERRUN: Final = 0.5
"""Seconds by which a sleep ends too late that show that this program was held up, and not the registry."""

ViewListener = Callable[[View], None]

_log = logging.getLogger(__name__)


class Resolver:
    """Follows one service from `start` to `close`. Made by `Client.resolver`."""

    def __init__(
        self,
        service: str,
        source: Source,
        *,
        cache: ViewCache | None,
        cache_max_age: float = DEFAULT_CACHE_MAX_AGE,
        clock: Clock,
        rng: Random,
    ) -> None:
        """`cache_max_age`: seconds; a kept view that is older is used with a word in each error. Raises `Invalid`."""
        service_name("service", service)
        self._kept_max_age = cache_max_age
        self.service = service
        self.connected = False
        """Whether the registry tells us of changes now."""
        self.problem = ""
        """Why it does not, in a clause."""
        self._source = source
        self._clock = clock
        self._rng = rng
        self._fold = ViewState()
        self._followers: list[ViewListener] = []
        self._watchers: set[asyncio.Event] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._settling: asyncio.Task[None] | None = None
        self._closed = False
        self._held = False
        self._next_at = clock.now()
        self._keeping = CacheWriter(service, cache, clock) if cache is not None else None
        self._view = View(service)
        self._kept = cache.load(service) if cache is not None else None
        """A view of earlier, which is shown only if no registry answers."""
        self._kept_at: float | None = None
        """When that was fresh, on the wall clock; None once the registry answered or was lost."""
        if self._kept is not None:
            self._fold, self._kept_at = ViewState(self._kept.position, self._kept.endpoints), self._kept.fresh_at

    @property
    def view(self) -> View:
        """The latest view; its age goes on while the registry is out of reach."""
        return self._view

    @property
    def view_warning(self) -> str:
        """A clause for errors if the view is from the disk and older than it may be; else ""."""
        view = self._view
        if view.origin is not ViewOrigin.DISK or view.age() <= self._kept_max_age:
            return ""
        age, bound = format_duration(view.age()), format_duration(self._kept_max_age)
        return f"the view was kept on this host {age} ago, which is past the bound of {bound} (cache_max_age)"

    def start(self) -> None:
        """Begin to follow; idempotent."""
        if self._tasks or self._closed:
            return
        self._tasks.append(asyncio.create_task(self._run(), name=f"adsum-resolve-{self.service}"))
        if self._keeping is not None:
            self._tasks.append(asyncio.create_task(self._keeping.run(), name=f"adsum-keep-{self.service}"))
        if self._kept is not None:
            self._tasks.append(asyncio.create_task(self._wait_for_answer(), name=f"adsum-kept-{self.service}"))

    @property
    def closed(self) -> bool:
        return self._closed

    def keep_open(self) -> None:
        """Have it stay open when its last channel closes: somebody looks at the view itself."""
        self._held = True

    async def close_if_unused(self) -> None:
        """Close it if nobody follows, watches or holds it any more."""
        if not (self._held or self._followers or self._watchers):
            await self.close()

    def use_cached_view(self) -> None:
        """Show the view that was kept on disk, since no registry answers. Nothing happens if there is none."""
        kept, self._kept = self._kept, None
        if kept is None:
            return
        now, age = self._clock.now(), max(0.0, self._clock.wall() - kept.fresh_at)
        self._view = View(
            self.service, self._fold.endpoints, *kept.position, ViewOrigin.DISK, now - age, self._clock.now
        )
        _log.warning(
            "%s: using the view that was kept on this host %s ago, since no registry tells a newer one: %s%s",
            self.service,
            format_duration(age),
            self.problem,
            f"; {self.view_warning}" if self.view_warning else "",
        )
        self._publish()

    async def close(self, *, goodbye: bool = True) -> None:
        """Follow no more: watchers end, the view stays as it is, and the registry learns that drains of this service
        need not wait for us (not without `goodbye`: then the caller says so). Idempotent.
        """
        followed, self._closed, self.connected = bool(self._tasks) and not self._closed, True, False
        if not (followed and goodbye):
            await self._end()
            return
        with closing(
            self._source.send_goodbye([self.service])
        ) as leaving:  # Whoever follows it from now on is not meant.
            await self._end()
            await leaving

    async def _end(self) -> None:
        tasks = [*self._tasks, *([self._settling] if self._settling else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._wake()

    def subscribe(self, listener: ViewListener) -> Callable[[], None]:
        """Call `follower` with the view there is, and at once with each new one; returns how to stop that."""
        self._followers.append(listener)
        listener(self._view)
        return lambda: self._followers.remove(listener) if listener in self._followers else None

    async def watch(self) -> AsyncGenerator[View, None]:
        """The view there is, if any, then each new one until `close`. A slow watcher is shown the latest only."""
        woken, shown = asyncio.Event(), None
        self._watchers.add(woken)
        try:
            while not self._closed:
                view = self._view
                if view.origin is not ViewOrigin.NONE and (shown is None or _differs(shown, view)):
                    shown = view
                    yield view
                    continue
                await woken.wait()
                woken.clear()
        finally:
            self._watchers.discard(woken)

    async def _run(self) -> None:
        try:
            await self._follow()
        except asyncio.CancelledError:
            if not self._closed:  # The loop ends, and the client was not closed.
                await self._source.send_goodbye([self.service])
            raise

    async def _follow(self) -> None:
        backoff = Backoff(MIN_REWATCH_PAUSE, MAX_REWATCH_PAUSE)
        while True:
            try:
                async with aclosing(self._source.watch(self.service, lambda: self._fold.resume_from)) as events:
                    async for event in events:
                        if isinstance(event, ConnectionLost):
                            self._lost(event.reason)
                        else:
                            await self._pace()
                            self._take(event)
                            backoff.reset()
                self._lost("the source ended the watch")
            except RevisionGap as gap:
                _log.warning("%s: %s; asking for the whole", self.service, gap)
                self._lost(str(gap))
            except Exception as error:
                # A resolver that ends on one error would be frozen for ever.
                _log.exception("%s: following goes on after an error", self.service)
                self._lost(f"{type(error).__name__}: {error}")
            await self._clock.sleep(backoff.next(self._rng))

    async def _pace(self) -> None:
        pause = self._next_at - self._clock.now()
        if pause > 0:
            await self._clock.sleep(pause)

    def _take(self, group: ServiceUpdate) -> None:
        if self._is_outlived_by(group):
            self._fold = ViewState()
        taken = self._fold.apply(group, self._clock.now())
        if not self.connected:
            _log.info("%s: following at revision %d of epoch %s", self.service, *reversed(group.position))
        self.connected, self.problem = True, ""
        if taken is UpdateEffect.BEHIND:
            self.problem = f"the registry node is behind, at revision {group.position.revision}"
            self.use_cached_view()
            return
        self._kept = None
        self._show(taken is UpdateEffect.CHANGED, self._clock.now() - group.age)

    def _is_outlived_by(self, group: ServiceUpdate) -> bool:
        """Whether what is known was kept on disk in another epoch, so long ago that its instances are not on their way.

        Not if the registry was lost meanwhile: it may have come back empty just now.
        """
        kept_at, self._kept_at = self._kept_at, None
        position = self._fold.position
        if kept_at is None or position is None or position.epoch == group.position.epoch:
            return False
        return self._clock.wall() - kept_at > SETTLING_TIME

    def _show(self, changed: bool, fresh_at: float) -> None:
        before, position = self._view, self._fold.position
        if position is None:
            return
        changed = changed or before.origin is not ViewOrigin.LIVE
        self._view = View(
            self.service,
            self._fold.endpoints if changed else before.endpoints,
            position.epoch,
            position.revision,
            ViewOrigin.LIVE,
            fresh_at,
            self._clock.now,
        )
        if changed:
            self._publish()
        self._settle()
        if self._keeping is not None and not self._fold.is_settling:
            # While settling, what is shown is not what is true at the position: nobody could resume from it.
            self._keeping.schedule(self._shelved(position), changed=changed)

    def _publish(self) -> None:
        begun = self._clock.now()
        for follower in list(self._followers):
            try:
                follower(self._view)
            except Exception:
                _log.exception("%s: a follower failed", self.service)
        self._wake()
        ended = self._clock.now()
        self._next_at = ended + min(MAX_PUBLISH_PAUSE, PUBLISH_PAUSE_FACTOR * (ended - begun))

    def _wake(self) -> None:
        for woken in self._watchers:
            woken.set()

    def _settle(self) -> None:
        """Have the settling time end on time."""
        deadline = self._fold.next_deadline()
        if deadline is None or (self._settling is not None and not self._settling.done()):
            return
        _log.warning("%s: the registry began a new epoch; what it misses stays shown until it settles", self.service)
        self._settling = asyncio.create_task(self._end_settling(), name=f"adsum-settle-{self.service}")

    async def _end_settling(self) -> None:
        while (deadline := self._fold.next_deadline()) is not None:
            await self._clock.sleep(max(0.0, deadline - self._clock.now()))
            if self._fold.tick(self._clock.now()):
                self._show(True, self._view.fresh_at)

    def _lost(self, why: str) -> None:
        if self.connected or not self.problem:
            _log.warning("%s: the view ages from now on: %s", self.service, why)
        self.connected, self.problem, self._kept_at = False, why, None
        self.use_cached_view()

    async def _wait_for_answer(self) -> None:
        """Show the kept view if the source is silent for as long as it may be."""
        while self._kept is not None:
            due = self._clock.now() + self._source.cache_fallback_delay
            await self._clock.sleep(self._source.cache_fallback_delay)
            if (
                self._clock.now() - due <= MAX_SLEEP_OVERRUN
            ):  # Else this program was held up, and no answer could be read.
                self.problem = self.problem or f"no answer within {self._source.cache_fallback_delay:g} s"
                self.use_cached_view()

    def _shelved(self, position: ViewPosition) -> CachedView:
        return CachedView(position, self._view.endpoints, self._clock.wall() - self._view.age())


def _differs(a: View, b: View) -> bool:
    return a.endpoints is not b.endpoints or a.origin is not b.origin
