"""The channel to one service: `pick()` chooses an endpoint, `call()` makes a call with retries.

A channel combines a resolver, selection, a policy, outlier detection, slow start and a retry budget. It rebuilds the
picker on the event loop when the view, an ejection or a slow-start factor changes. Picking only reads the picker, from
any thread.
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
from adsum.client.calls.view_changes import view_changes
from adsum.client.views.resolver import Resolver
from adsum.client.views.view import View, ViewOrigin
from adsum.client.wakeup import Wakeup
from adsum.core.durations import format_duration
from adsum.core.model import Endpoint
from adsum.core.selection import EndpointSelector, Selection
from adsum.ports import Clock

READY_TIMEOUT: Final = 5.0
"""Seconds that `ready` waits by default: longer than it takes to try nine nodes of which eight hang
(see `native.hedged_requests`)."""
TIMER_ERROR_PAUSE: Final = 1.0
"""Seconds before the timer runs again after an unexpected error."""

_log = logging.getLogger(__name__)


class Channel:
    """A channel to one service, made by `Client.channel` in a running event loop.

    `pick`, `call` and what they return may be used from any thread.
    """

    def __init__(self, resolver: Resolver, options: ChannelOptions, *, clock: Clock, rng: Random) -> None:
        self.service = resolver.service
        self.resolver = resolver
        self.options = options
        self.selection = Selection()
        """The latest selection: the endpoints that can be picked, with their weights."""
        self._policy = policy(options.policy)
        self._selector = EndpointSelector(options.selection)
        self._clock = clock
        self._now = clock.now
        self.rng = rng
        self._loads = LoadTracker()
        self._endpoints: tuple[Endpoint, ...] = ()
        """The endpoints of the latest view that was processed."""
        self._listed: dict[str, Endpoint] = {}
        """The same by id. Loads and ejections belong to the process behind an id, not to the id."""
        self._outliers = OutlierDetector(options.outliers) if options.outliers is not None else None
        self._slow_start = None if self._policy.keyed else SlowStartTracker(options.slow_start)
        self._budget = RetryBudget(options.retry_ratio, options.retry_floor)
        self._lock = Lock()  # The outlier detector and the budget are not thread-safe.
        self._picker: Picker = EMPTY_PICKER
        self._loop = asyncio.get_running_loop()
        self._wakeup = Wakeup(clock)
        self._deadline: float | None = None
        self._rebuilding = False
        self._usable = asyncio.Event()
        self.closed = False
        self._is_kept_open = False
        self._last_miss = clock.now()
        """The time of the latest `pick` that found no endpoint; at first, when the channel was opened."""
        self._close_task: asyncio.Task[None] | None = None
        self._unsubscribe = resolver.subscribe(self._view_changed)
        self._timer: asyncio.Task[None] | None = asyncio.create_task(
            self._run_timer(), name=f"adsum-channel-{self.service}"
        )

    def pick(self, hash_key: bytes | str | None = None, exclude: Set[str] | None = None) -> Pick:
        """Chooses an endpoint at once. End the pick with `done` or `cancel`, or use it as a context manager.

        `hash_key` is the key for hash policies; the ids in `exclude` are not picked. Raises `NoEndpoint`, whose message
        gives the reason.
        """
        try:
            endpoint = self._picker.pick(hash_key, exclude)
        except NoEndpoint:
            self._last_miss = self._now()
            raise NoEndpoint(self.explain_no_endpoint(exclude or frozenset())) from None
        return Pick(self, endpoint, self._loads.start(endpoint.instance.id), self._now())

    def call(
        self, *, idempotent: bool, hash_key: bytes | str | None = None, options: CallOptions | None = None
    ) -> Call:
        """Returns a call that tries endpoints until one answers; see `adsum.client.calls.call`."""
        return Call(self, options or self.options.calls, idempotent=idempotent, hash_key=hash_key)

    async def ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Waits until `pick` finds an endpoint. Raises `NoEndpoint` after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._usable.wait()
        except TimeoutError:
            raise NoEndpoint(self.explain_no_endpoint(frozenset())) from None

    def keep_open(self) -> None:
        """Keeps the channel open even if the service has no instance, until its user or the client closes it."""
        self._is_kept_open = True

    @property
    def last_missed_at(self) -> float | None:
        """The time of the latest `pick` that found no endpoint, or when the channel was opened.

        None if the channel is kept open or the service has instances now.
        """
        return None if self._is_kept_open or self.resolver.view.endpoints else self._last_miss

    def close_soon(self) -> None:
        """Closes the channel without waiting, unless it is kept open. Works from any thread."""
        self._call_on_loop(self._close_unless_kept_open)

    def _close_unless_kept_open(self) -> None:
        if not self._is_kept_open:
            self.closed = True
            self._close_task = self._loop.create_task(self.close())

    async def close(self) -> None:
        """Stops following the view. Picks go on with the last view, and drains do not wait for them.

        If nothing else follows the service, the client sends a good-bye for it to the registry. Idempotent.
        """
        self.closed = True
        self._unsubscribe()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            await asyncio.gather(timer, return_exceptions=True)
        await self.resolver.close_if_unused()

    def record_result(self, pick: Pick, load: EndpointLoad, ok: bool, latency: float | None) -> None:
        """Records how a pick ended in the load and the outlier detector. `Pick` calls this once, from any thread."""
        now = self._now()
        load.finish(ok, now - pick.started_at if latency is None else latency, now)
        endpoint = pick.endpoint
        if self._outliers is None:
            return
        listed = self._listed.get(endpoint.id)
        if listed is not None and listed is not endpoint and listed.identity != endpoint.identity:
            return  # Another process has the id now.
        with self._lock:
            event = self._outliers.record_call(endpoint.id, ok, now)
        if event is not None:
            self._log_ejections([event])
            self._call_on_loop(self._rebuild_soon)
        elif self._deadline is None:
            self._deadline = now  # One wake-up is enough: the timer computes its next deadline itself.
            self._call_on_loop(self._wakeup.wake)

    def begin_call(self) -> None:
        """Adds a call to the retry budget."""
        with self._lock:
            self._budget.deposit(self._now())

    def take_retry(self) -> bool:
        """Returns whether the retry budget allows one more retry, and takes it from the budget if so."""
        with self._lock:
            return self._budget.withdraw(self._now())

    def now(self) -> float:
        """Returns the monotonic time of the channel's clock, in seconds."""
        return self._now()

    @property
    def loads(self) -> LoadTracker:
        """The load of each endpoint by its id."""
        return self._loads

    @property
    def ejected(self) -> Set[str]:
        """The ids of the endpoints that are ejected."""
        return self._outliers.ejected if self._outliers is not None else frozenset()

    @property
    def usable_count(self) -> int:
        """The number of endpoints that can be picked now."""
        return len(self._picker.choices)

    @property
    def view_warning(self) -> str:
        """A clause about the view that belongs in every error; "" if there is none."""
        return self.resolver.view_warning

    def explain_no_endpoint(self, exclude: Set[str]) -> str:
        """Returns a sentence with the reason why no endpoint can be picked, for the log of the calling program."""
        view, usable = self.resolver.view, self.usable_count
        registry = f"the registry is {'' if self.resolver.connected else 'not '}connected{self._problem()}"
        if view.origin is ViewOrigin.NONE:
            return f"no endpoint of {self.service}: no view has arrived yet; {registry}"
        state = self.resolver.view_warning or f"the view is {format_duration(view.age())} old"
        state = f"{state}; {registry}"
        if not view.endpoints:
            return f"no endpoint of {self.service}: none is registered; {state}"
        if usable:
            excluded = f"every usable endpoint is excluded ({usable} usable, {len(exclude)} excluded)"
            return f"no endpoint of {self.service}: {excluded}; {state}"
        counts: dict[str, int] = {}
        for endpoint in view.endpoints:
            counts[endpoint.status] = counts.get(endpoint.status, 0) + 1
        statuses = ", ".join(f"{count} {status}" for status, count in counts.items())
        return f"no endpoint of {self.service}: none of {len(view.endpoints)} is usable ({statuses}); {state}"

    def _problem(self) -> str:
        return f" ({self.resolver.problem})" if self.resolver.problem else ""

    def _view_changed(self, view: View) -> None:
        changes = view_changes(self._endpoints, view.endpoints)
        for id in changes.gone:
            self._listed.pop(id, None)
        for endpoint in changes.new:
            self._listed[endpoint.id] = endpoint
        self._loads.update_endpoints(changes.came, changes.gone, changes.replaced)
        if self._outliers is not None:
            with self._lock:
                events = self._outliers.update_endpoints(changes.came, changes.gone, changes.replaced)
            self._log_ejections(events)
        if self._slow_start is not None and view.origin is not ViewOrigin.NONE:
            self._slow_start.update_endpoints(changes.usable, changes.unusable, self._now())
        self._endpoints = view.endpoints
        # Rebuild at once: when the resolver requests the next update, the source acknowledges this one.
        self._rebuild()

    def _rebuild_soon(self) -> None:
        """Rebuilds once for everything that happens in this turn of the loop."""
        if not self._rebuilding:
            self._rebuilding = True
            self._loop.call_soon(self._rebuild)

    def _rebuild(self) -> None:
        self._rebuilding = False
        now, view = self._now(), self.resolver.view
        self.selection = self._selector.select(
            view.endpoints,
            ejected=self.ejected,
            slow_start_factors=self._slow_start.factors(now) if self._slow_start is not None else {},
        )
        self._picker = self._policy.build(self.selection.endpoints, self._loads, self.rng, previous=self._picker)
        if self.selection.endpoints:
            self._usable.set()
        else:
            self._usable.clear()
        self._wakeup.wake()

    async def _run_timer(self) -> None:
        """Runs the outlier sweeps and the slow-start steps when they are due."""
        while True:
            self._deadline = self._next_deadline()
            await self._wakeup.wait(self._deadline)
            if self._deadline is not None and self._now() >= self._deadline:
                try:
                    self._tick(self._now())
                except Exception:
                    # If the timer ended here, ejected endpoints would stay ejected for ever.
                    _log.exception("%s: the timer goes on after an unexpected error", self.service)
                    await self._clock.sleep(TIMER_ERROR_PAUSE)

    def _tick(self, now: float) -> None:
        events: list[EjectionEvent] = []
        if self._outliers is not None:
            with self._lock:
                events = self._outliers.tick(now)
        self._log_ejections(events)
        step = self._slow_start.next_change() if self._slow_start is not None else None
        if events or (step is not None and step <= now):
            self._rebuild()

    def _next_deadline(self) -> float | None:
        with self._lock:
            sweep = self._outliers.next_deadline() if self._outliers is not None else None
        step = self._slow_start.next_change() if self._slow_start is not None else None
        return min((instant for instant in (sweep, step) if instant is not None), default=None)

    def _log_ejections(self, events: list[EjectionEvent]) -> None:
        for event in events:
            _log.info("%s: %s is %s (%s)", self.service, event.id, event.state, event.cause)

    def _call_on_loop(self, call: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # The loop is closed: nothing is rebuilt any more.
            self._loop.call_soon_threadsafe(call)
