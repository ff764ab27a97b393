"""Resolver + selection + policy + outliers + slow start + retry budget for one service: `pick()` and `call()`.

The picker is built on the loop, when the view, an ejection or a ramp changes; picking only reads it, from any thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Set
from contextlib import suppress
from random import Random
from threading import Lock
from typing import Final

from adsum.balance.ejection import EjectionEvent
from adsum.balance.load_tracker import EndpointLoad, LoadTracker
from adsum.balance.outlier_detector import OutlierDetector
from adsum.balance.picker import EMPTY_PICKER, NoEndpoint, Picker
from adsum.balance.policies import policy
from adsum.balance.retry_budget import RetryBudget
from adsum.balance.slow_start import SlowStartTracker
from adsum.client.calls.call import Call
from adsum.client.calls.options import CallOptions, ChannelOptions
from adsum.client.calls.pick import Pick
from adsum.client.durations import format_duration
from adsum.client.views.resolver import Resolver
from adsum.client.views.view import View, ViewOrigin
from adsum.client.wakeup import Wakeup
from adsum.core.identity import ProcessIdentity
from adsum.core.selection import USABLE_STATUSES, Selection, select_endpoints
from adsum.ports import Clock

READY_TIMEOUT: Final = 5.0
"""Seconds that `ready` waits by default: longer than to ask nine nodes of which eight hang (see `native.hedging`)."""

TIMER_ERROR_PAUSE: Final = 1.0
"""Seconds before time is kept again after an error that nobody foresaw."""

_log = logging.getLogger(__name__)


class Channel:
    """Made by `Client.channel`, in a running loop. `pick`, `call` and what they return may be used from any thread."""

    def __init__(self, resolver: Resolver, options: ChannelOptions, *, clock: Clock, rng: Random) -> None:
        self.service = resolver.service
        self.resolver = resolver
        self.options = options
        self.selection = Selection()
        """What was chosen from, and why."""
        self._policy = policy(options.policy)
        self._selecting = options.selection
        self._clock = clock
        self._now = clock.now
        self.rng = rng
        self._loads = LoadTracker()
        self._processes: dict[str, ProcessIdentity] = {}
        """Which process has each id: what is counted belongs to it."""
        self._outliers = OutlierDetector(options.outliers) if options.outliers is not None else None
        self._ramps = None if self._policy.keyed else SlowStartTracker(options.slow_start)
        self._budget = RetryBudget(options.retry_ratio, options.retry_floor)
        self._lock = Lock()  # Outliers and budget are not for several threads.
        self._picker: Picker = EMPTY_PICKER
        self._loop = asyncio.get_running_loop()
        self._alarm = Wakeup(clock)
        self._deadline: float | None = None
        self._rebuilding = False
        self._usable = asyncio.Event()
        self.closed = False
        self._held = False
        self._missed_at = clock.now()
        """When somebody asked last and found nobody."""
        self._closing: asyncio.Task[None] | None = None
        self._unfollow = resolver.subscribe(self._view_changed)
        self._timer: asyncio.Task[None] | None = asyncio.create_task(
            self._keep_time(), name=f"adsum-channel-{self.service}"
        )

    def pick(self, hash_key: bytes | str | None = None, exclude: Set[str] | None = None) -> Pick:
        """Choose an endpoint, at once, and say by the pick how the call ended.

        `hash_key` is what hash policies choose by, `exclude` ids not to be picked. Raises `NoEndpoint`, whose words
        say why there is none.
        """
        try:
            endpoint = self._picker.pick(hash_key, exclude)
        except NoEndpoint:
            self._missed_at = self._now()
            raise NoEndpoint(self.explain_no_endpoint(exclude or frozenset())) from None
        return Pick(self, endpoint, self._loads.start(endpoint.instance.id), self._now())

    def call(
        self, *, idempotent: bool, hash_key: bytes | str | None = None, options: CallOptions | None = None
    ) -> Call:
        """A call that tries endpoints until one answers; see `adsum.client.calls.call`."""
        return Call(self, options or self.options.calls, idempotent=idempotent, hash_key=hash_key)

    async def ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Return once `pick` finds somebody. Raises `NoEndpoint` after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._usable.wait()
        except TimeoutError:
            raise NoEndpoint(self.explain_no_endpoint(frozenset())) from None

    def keep_open(self) -> None:
        """Have it stay open whether anybody is registered or not: its user closes it, or the client."""
        self._held = True

    @property
    def last_missed_at(self) -> float | None:
        """When somebody asked last and found nobody, or opened this; None if it is held or there are instances now."""
        return None if self._held or self.resolver.view.endpoints else self._missed_at

    def close_soon(self) -> None:
        """Close it without waiting, unless somebody holds it; from any thread."""
        self._from_any_thread(self._close_unless_held)

    def _close_unless_held(self) -> None:
        if not self._held:
            self.closed = True
            self._closing = self._loop.create_task(self.close())

    async def close(self) -> None:
        """Follow no more. Picks go on with what is known, and drains do not wait for them: if nobody else follows the
        service, the registry learns that we call it no more. Idempotent.
        """
        self.closed = True
        self._unfollow()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            await asyncio.gather(timer, return_exceptions=True)
        await self.resolver.close_if_unused()

    def record_result(self, pick: Pick, load: EndpointLoad, ok: bool, latency: float | None) -> None:
        """A pick ended: tell loads and outliers. Called by `Pick`, once, from any thread."""
        now = self._now()
        load.finish(ok, now - pick.started_at if latency is None else latency, now)
        endpoint = pick.endpoint
        if self._outliers is None or self._processes.get(endpoint.id, endpoint.identity) != endpoint.identity:
            return  # Another process has the id by now.
        with self._lock:
            event = self._outliers.record_call(endpoint.id, ok, now)
        if event is not None:
            self._tell([event])
            self._from_any_thread(self._rebuild_soon)
        elif self._deadline is None:
            self._deadline = now  # Ring once: the timer looks for itself.
            self._from_any_thread(self._alarm.wake)

    def begin_call(self) -> None:
        """A first try earns a share of a retry."""
        with self._lock:
            self._budget.deposit(self._now())

    def take_retry(self) -> bool:
        """Whether the budget allows one more retry; if so, it is spent."""
        with self._lock:
            return self._budget.withdraw(self._now())

    def now(self) -> float:
        """Monotonic seconds, as the channel counts them."""
        return self._now()

    @property
    def loads(self) -> LoadTracker:
        """The load of each endpoint, by its id."""
        return self._loads

    @property
    def ejected(self) -> Set[str]:
        """The ids of the endpoints that are ejected as outliers."""
        return self._outliers.ejected if self._outliers is not None else frozenset()

    @property
    def usable_count(self) -> int:
        """How many endpoints may be picked now."""
        return len(self._picker.choices)

    @property
    def view_warning(self) -> str:
        """What every error must say about the view, in a clause; "" if nothing."""
        return self.resolver.view_warning

    def explain_no_endpoint(self, exclude: Set[str]) -> str:
        """Why nobody can be picked, in a sentence for the log of a program that calls."""
        view, picked = self.resolver.view, self.usable_count
        registry = f"the registry is {'' if self.resolver.connected else 'not '}connected{self._trouble()}"
        if view.origin is ViewOrigin.NONE:
            return f"no endpoint of {self.service}: nothing is known of it yet; {registry}"
        known = self.resolver.view_warning or f"the view is {format_duration(view.age())} old"
        known = f"{known}; {registry}"
        if not view.endpoints:
            return f"no endpoint of {self.service}: none is registered; {known}"
        if picked:
            return f"no endpoint of {self.service}: each of {picked} usable is excluded ({len(exclude)} were); {known}"
        counts: dict[str, int] = {}
        for endpoint in view.endpoints:
            counts[endpoint.status] = counts.get(endpoint.status, 0) + 1
        stand = ", ".join(f"{count} {status}" for status, count in counts.items())
        return f"no endpoint of {self.service}: of {len(view.endpoints)} known none may be used ({stand}); {known}"

    def _trouble(self) -> str:
        return f" ({self.resolver.problem})" if self.resolver.problem else ""

    def _view_changed(self, view: View) -> None:
        now = self._now()
        ids = [endpoint.id for endpoint in view.endpoints]
        before, self._processes = self._processes, {each.id: each.identity for each in view.endpoints}
        replaced = {id for id, process in self._processes.items() if before.get(id, process) != process}
        self._loads.retain(ids, replaced)
        if self._outliers is not None:
            with self._lock:
                events = self._outliers.update_endpoints(ids, replaced)
            self._tell(events)
        if self._ramps is not None and view.origin is not ViewOrigin.NONE:
            usable = (endpoint.id for endpoint in view.endpoints if endpoint.status in USABLE_STATUSES)
            self._ramps.update_endpoints(usable, now, replaced)
        # At once: asking the source for more says that we route by this view.
        self._rebuild()

    def _rebuild_soon(self) -> None:
        """Once for all that happens in this turn of the loop."""
        if not self._rebuilding:
            self._rebuilding = True
            self._loop.call_soon(self._rebuild)

    def _rebuild(self) -> None:
        self._rebuilding = False
        now, view = self._now(), self.resolver.view
        self.selection = select_endpoints(
            view.endpoints,
            self._selecting,
            ejected=self.ejected,
            slow_start_factors=self._ramps.factors(now) if self._ramps is not None else {},
        )
        self._picker = self._policy.build(self.selection.endpoints, self._loads, self.rng, previous=self._picker)
        if self.selection.endpoints:
            self._usable.set()
        else:
            self._usable.clear()
        self._alarm.wake()

    async def _keep_time(self) -> None:
        """Sweep outliers and step ramps when it is time."""
        while True:
            self._deadline = self._next_deadline()
            await self._alarm.wait(self._deadline)
            if self._deadline is not None and self._now() >= self._deadline:
                try:
                    self._tick(self._now())
                except Exception:
                    # Ending here would leave who is ejected ejected for ever.
                    _log.exception("%s: keeping time goes on after an error", self.service)
                    await self._clock.sleep(TIMER_ERROR_PAUSE)

    def _tick(self, now: float) -> None:
        events: list[EjectionEvent] = []
        if self._outliers is not None:
            with self._lock:
                events = self._outliers.tick(now)
        self._tell(events)
        step = self._ramps.next_change() if self._ramps is not None else None
        if events or (step is not None and step <= now):
            self._rebuild()

    def _next_deadline(self) -> float | None:
        with self._lock:
            sweep = self._outliers.next_deadline() if self._outliers is not None else None
        step = self._ramps.next_change() if self._ramps is not None else None
        return min((instant for instant in (sweep, step) if instant is not None), default=None)

    def _tell(self, events: list[EjectionEvent]) -> None:
        for event in events:
            _log.info("%s: %s is %s (%s)", self.service, event.id, event.state, event.cause)

    def _from_any_thread(self, call: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # The loop is closed: nobody picks any more, or picks go on with what is known.
            self._loop.call_soon_threadsafe(call)
