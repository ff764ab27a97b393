"""The resolver of one service: it follows the service and keeps a live view. On errors the view ages and stays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, closing
from random import Random
from typing import Final

from adsum.client.sources.source import ConnectionLost, ServiceUpdate, Source, ViewPosition
from adsum.client.views.cache_writer import CacheWriter
from adsum.client.views.view import DEFAULT_CACHE_MAX_AGE, View, ViewOrigin
from adsum.client.views.view_cache import CachedView, ViewCache
from adsum.client.views.view_state import SETTLING_TIME, RevisionGap, UpdateEffect, ViewState
from adsum.client.wakeup import MAX_SLEEP_OVERRUN
from adsum.core.backoff import Backoff
from adsum.core.durations import format_duration
from adsum.core.validation import service_name
from adsum.ports import Clock

PUBLISH_PAUSE_FACTOR: Final = 9.0
"""The pause after a change, as a multiple of the time that its listeners took: they run a tenth of the time at most.
Meanwhile the registry coalesces further changes."""
MAX_PUBLISH_PAUSE: Final = 1.0
"""Seconds, the longest such pause."""
MIN_REWATCH_PAUSE, MAX_REWATCH_PAUSE = 0.5, 10.0
"""Seconds, bounds of the pause before a new watch after an error or the end of a watch."""

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
        """`cache_max_age`: seconds; an older cached view is still used, and errors state its age. Raises `Invalid`."""
        service_name("service", service)
        self._cache_max_age = cache_max_age
        self.service = service
        self.connected = False
        """True if the registry sends changes now."""
        self.problem = ""
        """The reason why the view is not fresh, as a clause; "" if it is, or if no reason is known yet."""
        self._source = source
        self._clock = clock
        self._rng = rng
        self._state = ViewState()
        self._listeners: list[ViewListener] = []
        self._watch_events: set[asyncio.Event] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._settle_task: asyncio.Task[None] | None = None
        self._closed = False
        self._is_kept_open = False
        self._next_at = clock.now()
        self._cache_writer = CacheWriter(service, cache, clock) if cache is not None else None
        self._view = View(service)
        self._cached = cache.load(service) if cache is not None else None
        """The view from disk, which is used only if no registry answers; None once it is used or not needed."""
        self._cached_at: float | None = None
        """The wall time at which the cached view was fresh; None once the registry has answered or was lost."""
        if self._cached is not None:
            self._state = ViewState(self._cached.position, self._cached.endpoints)
            self._cached_at = self._cached.fresh_at

    @property
    def view(self) -> View:
        """The latest view. It stays, and its age grows, while the registry is unreachable."""
        return self._view

    @property
    def view_warning(self) -> str:
        """A clause for errors if the view comes from disk and is older than `cache_max_age`; else ""."""
        view = self._view
        if view.origin is not ViewOrigin.DISK or view.age() <= self._cache_max_age:
            return ""
        age, limit = format_duration(view.age()), format_duration(self._cache_max_age)
        return f"the view was cached on this host {age} ago and is older than cache_max_age ({limit})"

    def start(self) -> None:
        """Begins to follow the service. Idempotent."""
        if self._tasks or self._closed:
            return
        self._tasks.append(asyncio.create_task(self._run(), name=f"adsum-resolve-{self.service}"))
        if self._cache_writer is not None:
            self._tasks.append(asyncio.create_task(self._cache_writer.run(), name=f"adsum-cache-{self.service}"))
        if self._cached is not None:
            self._tasks.append(asyncio.create_task(self._await_silence(), name=f"adsum-silence-{self.service}"))

    @property
    def closed(self) -> bool:
        return self._closed

    def keep_open(self) -> None:
        """Keeps the resolver open when its last channel closes: its user reads the view directly."""
        self._is_kept_open = True

    async def close_if_unused(self) -> None:
        """Closes the resolver if no channel, watcher or user needs it any more."""
        if not (self._is_kept_open or self._listeners or self._watch_events):
            await self.close()

    def use_cached_view(self) -> None:
        """Shows the view from disk, since no registry answers. Without a cached view nothing happens."""
        cached, self._cached = self._cached, None
        if cached is None:
            return
        now, age = self._clock.now(), max(0.0, self._clock.wall() - cached.fresh_at)
        self._view = View(
            self.service, self._state.endpoints, *cached.position, ViewOrigin.DISK, now - age, self._clock.now
        )
        _log.warning(
            "%s: using the view that was cached on this host %s ago, since no registry sends a newer one: %s%s",
            self.service,
            format_duration(age),
            self.problem,
            f"; {self.view_warning}" if self.view_warning else "",
        )
        self._publish()

    async def close(self, *, goodbye: bool = True) -> None:
        """Stops following: watches end, and the view stays as it is. Idempotent.

        With `goodbye` the registry receives a good-bye, so that drains of this service do not wait for this program;
        without it the caller sends one.
        """
        was_following, self._closed, self.connected = bool(self._tasks) and not self._closed, True, False
        if not (was_following and goodbye):
            await self._end_tasks()
            return
        # Created first: the good-bye must not cover a watch that begins from now on.
        with closing(self._source.send_goodbye([self.service])) as sending:
            await self._end_tasks()
            await sending

    async def _end_tasks(self) -> None:
        tasks = [*self._tasks, *([self._settle_task] if self._settle_task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._wake()

    def subscribe(self, listener: ViewListener) -> Callable[[], None]:
        """Calls `listener` now with the current view, later with every new one. Returns a function that ends this."""
        self._listeners.append(listener)
        listener(self._view)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    async def watch(self) -> AsyncGenerator[View, None]:
        """Yields the current view, if there is one, then every new one until `close`.

        A reader that is slow skips to the latest view.
        """
        woken, shown = asyncio.Event(), None
        self._watch_events.add(woken)
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
            self._watch_events.discard(woken)

    async def _run(self) -> None:
        try:
            await self._follow()
        except asyncio.CancelledError:
            if not self._closed:  # The event loop ends, and the client was not closed.
                await self._source.send_goodbye([self.service])
            raise

    async def _follow(self) -> None:
        backoff = Backoff(MIN_REWATCH_PAUSE, MAX_REWATCH_PAUSE)
        while True:
            try:
                async with aclosing(self._source.watch(self.service, lambda: self._state.resume_from)) as events:
                    async for event in events:
                        if isinstance(event, ConnectionLost):
                            self._mark_lost(event.reason)
                        else:
                            await self._wait_between_changes()
                            self._apply(event)
                            backoff.reset()
                self._mark_lost("the source ended the watch")
            except RevisionGap as gap:
                _log.warning("%s: %s; requesting the full view", self.service, gap)
                self._mark_lost(str(gap))
            except Exception as error:
                # A resolver that ended here would keep its view frozen for ever.
                _log.exception("%s: following goes on after an unexpected error", self.service)
                self._mark_lost(f"{type(error).__name__}: {error}")
            await self._clock.sleep(backoff.next(self._rng))

    async def _wait_between_changes(self) -> None:
        pause = self._next_at - self._clock.now()
        if pause > 0:
            await self._clock.sleep(pause)

    def _apply(self, update: ServiceUpdate) -> None:
        if self._cache_is_obsolete(update):
            self._state = ViewState()
        effect = self._state.apply(update, self._clock.now())
        if not self.connected:
            _log.info("%s: following at revision %d of epoch %s", self.service, *reversed(update.position))
        self.connected, self.problem = True, ""
        if effect is UpdateEffect.BEHIND:
            self.problem = f"the registry node is behind, at revision {update.position.revision}"
            self.use_cached_view()
            return
        self._cached = None
        self._show(effect is UpdateEffect.CHANGED, self._clock.now() - update.age)

    def _cache_is_obsolete(self, update: ServiceUpdate) -> bool:
        """Returns whether the state comes from a cached view of another epoch that is older than the settling time.

        Its instances would have registered again by now. After the registry was lost this does not hold: it may have
        come back empty just now.
        """
        cached_at, self._cached_at = self._cached_at, None
        position = self._state.position
        if cached_at is None or position is None or position.epoch == update.position.epoch:
            return False
        return self._clock.wall() - cached_at > SETTLING_TIME

    def _show(self, changed: bool, fresh_at: float) -> None:
        before, position = self._view, self._state.position
        if position is None:
            return
        changed = changed or before.origin is not ViewOrigin.LIVE
        self._view = View(
            self.service,
            self._state.endpoints if changed else before.endpoints,
            position.epoch,
            position.revision,
            ViewOrigin.LIVE,
            fresh_at,
            self._clock.now,
        )
        if changed:
            self._publish()
        self._settle()
        if self._cache_writer is not None and not self._state.is_settling:
            # While settling, the view is not the registry's state at this position, so it can't be resumed from.
            self._cache_writer.schedule(self._to_cached(position), changed=changed)

    def _publish(self) -> None:
        started = self._clock.now()
        for listener in list(self._listeners):
            try:
                listener(self._view)
            except Exception:
                _log.exception("%s: a listener failed", self.service)
        self._wake()
        ended = self._clock.now()
        self._next_at = ended + min(MAX_PUBLISH_PAUSE, PUBLISH_PAUSE_FACTOR * (ended - started))

    def _wake(self) -> None:
        for event in self._watch_events:
            event.set()

    def _settle(self) -> None:
        """Starts the task that ends the settling time, if the view is settling."""
        deadline = self._state.next_deadline()
        if deadline is None or (self._settle_task is not None and not self._settle_task.done()):
            return
        _log.warning(
            "%s: the registry began a new epoch; instances that it does not list yet stay in the view for up to %g s",
            self.service,
            SETTLING_TIME,
        )
        self._settle_task = asyncio.create_task(self._end_settling(), name=f"adsum-settle-{self.service}")

    async def _end_settling(self) -> None:
        while (deadline := self._state.next_deadline()) is not None:
            await self._clock.sleep(max(0.0, deadline - self._clock.now()))
            if self._state.tick(self._clock.now()):
                self._show(True, self._view.fresh_at)

    def _mark_lost(self, reason: str) -> None:
        if self.connected or not self.problem:
            _log.warning("%s: the view ages from now on: %s", self.service, reason)
        self.connected, self.problem, self._cached_at = False, reason, None
        self.use_cached_view()

    async def _await_silence(self) -> None:
        """Shows the cached view if the source has not answered within its `cache_fallback_delay`."""
        delay = self._source.cache_fallback_delay
        while self._cached is not None:
            due = self._clock.now() + delay
            await self._clock.sleep(delay)
            was_suspended = self._clock.now() - due > MAX_SLEEP_OVERRUN  # Then no answer could be read.
            if not was_suspended:
                self.problem = self.problem or f"no answer within {delay:g} s"
                self.use_cached_view()

    def _to_cached(self, position: ViewPosition) -> CachedView:
        return CachedView(position, self._view.endpoints, self._clock.wall() - self._view.age())


def _differs(a: View, b: View) -> bool:
    return a.endpoints is not b.endpoints or a.origin is not b.origin
