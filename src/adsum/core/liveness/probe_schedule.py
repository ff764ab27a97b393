"""The schedule of probes: each check starts at a fixed rate with jitter, one probe at a time.

The driver calls `start_due` for the checks to start, and `finish` when a probe has ended. If the driver can't keep up,
checks start late, the oldest first, and `lag` returns by how much. Missed starts are not made up for, so nothing queues
up and there is no burst.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from random import Random
from typing import Final

from adsum.core.backoff import jittered
from adsum.core.model import Check, Key

MAX_FIRST_DELAY: Final = 1.0
"""Seconds until the first start of a newly listed check, at most; less if its interval is shorter."""
PROBE_JITTER: Final = 0.05
"""The share of the interval by which a start varies, up and down."""
SCATTER_JITTER: Final = 0.5
"""The same for the start after one that was off schedule. It covers a whole interval, so that checks that started
together, because they were listed or had to wait together, don't stay together."""
LATE_SHARE: Final = 0.1
"""The share of the interval after which a late start counts as off schedule."""
MAX_STALE_CHECK_ENTRIES: Final = 1_000
"""Heap entries of removed checks, in addition to one for each check. Past it the heap is rebuilt."""
MAX_COUNTED_OVERDUE: Final = 10_000
"""Overdue checks that are counted. Past it this number is reported."""


class ScheduledCheck:
    """One check in the schedule. It is compared by identity: a check that replaces another is never equal to it."""

    __slots__ = ("check", "due", "is_planned", "is_running", "key", "on_schedule")

    def __init__(self, key: Key, check: Check, due: float, *, on_schedule: bool) -> None:
        self.key = key
        self.check = check
        self.due = due
        self.on_schedule = on_schedule
        self.is_planned = True
        self.is_running = False


class ProbeSchedule:
    """The checks of all instances, in the order of their next starts.

    Starting or planning one costs O(log n). Instants are monotonic seconds.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._checks: dict[Key, dict[str, ScheduledCheck]] = {}
        self._heap: list[tuple[float, int, ScheduledCheck]] = []
        self._order = count()
        self._count = 0
        self._stale = 0
        self._worst_delay = 0.0

    def __len__(self) -> int:
        """The number of checks that are planned or running."""
        return self._count

    def add(self, key: Key, check: Check, now: float, *, soon: bool) -> ScheduledCheck:
        """Plans a check, in place of one of the same name.

        With `soon` it starts within `MAX_FIRST_DELAY`, so that a new instance soon has a status. Without, it starts at
        any time within its interval, because a registry that restarts plans many checks together.
        """
        self.remove(key, check.name)
        within = min(check.interval, MAX_FIRST_DELAY) if soon else check.interval
        scheduled = ScheduledCheck(key, check, now + self._rng.uniform(0.0, within), on_schedule=not soon)
        self._checks.setdefault(key, {})[check.name] = scheduled
        self._count += 1
        self._push(scheduled)
        return scheduled

    def remove(self, key: Key, name: str | None = None) -> None:
        """Removes one check of an instance, or all of them. A check that is not planned is no error."""
        checks = self._checks.get(key, {})
        for check_name in list(checks) if name is None else [name]:
            scheduled = checks.pop(check_name, None)
            if scheduled is not None:
                self._forget(scheduled)
        if not checks:
            self._checks.pop(key, None)

    def start_due(self, now: float, limit: int) -> list[ScheduledCheck]:
        """Returns at most `limit` checks to start now, the most overdue first. Each is running until `finish`."""
        checks: list[ScheduledCheck] = []
        while len(checks) < limit and self._heap and self._heap[0][0] <= now:
            scheduled = heappop(self._heap)[2]
            if not scheduled.is_planned:
                self._stale -= 1
                continue
            self._start(scheduled, now)
            checks.append(scheduled)
        return checks

    def finish(self, scheduled: ScheduledCheck, now: float) -> bool:
        """Plans the next probe of a check whose probe has ended: an interval after its start, but not before `now`.

        Returns False if the check was removed or replaced since. Then the outcome must be ignored.
        """
        if not scheduled.is_planned:
            return False
        if scheduled.is_running:
            scheduled.is_running = False
            scheduled.due = max(scheduled.due, now)
            self._push(scheduled)
        return True

    def next_deadline(self) -> float | None:
        """Returns the instant of the next start; None if no check is planned, except those that are running."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def lag(self, now: float) -> tuple[float, int]:
        """Returns the worst delay of a start since the last call, in seconds, and the number of overdue checks.

        The wait of a check that is still overdue counts as a delay. Call it right after `start_due`: else it counts
        checks that have only just become due. It costs O(overdue), up to `MAX_COUNTED_OVERDUE`.
        """
        worst, self._worst_delay = self._worst_delay, 0.0
        due = self.next_deadline()
        return max(worst, now - due if due is not None else 0.0), self._overdue(now)

    def _overdue(self, now: float) -> int:
        """Counts the due entries at the top of the heap. No entry below one that is not due is due."""
        overdue, indices = 0, [0]
        while indices and overdue < MAX_COUNTED_OVERDUE:
            index = indices.pop()
            if index < len(self._heap) and self._heap[index][0] < now:
                overdue += self._heap[index][2].is_planned
                indices += (2 * index + 1, 2 * index + 2)
        return overdue

    def _start(self, scheduled: ScheduledCheck, now: float) -> None:
        delay, interval = now - scheduled.due, scheduled.check.interval
        on_schedule = scheduled.on_schedule and delay <= interval * LATE_SHARE
        scheduled.due = now + jittered(interval, self._rng, PROBE_JITTER if on_schedule else SCATTER_JITTER)
        scheduled.on_schedule = scheduled.is_running = True
        self._worst_delay = max(self._worst_delay, delay)

    def _forget(self, scheduled: ScheduledCheck) -> None:
        scheduled.is_planned = False
        self._count -= 1
        if not scheduled.is_running:
            self._stale += 1
            if self._stale > self._count + MAX_STALE_CHECK_ENTRIES:
                self._heap = [entry for entry in self._heap if entry[2].is_planned]
                heapify(self._heap)
                self._stale = 0

    def _drop_stale(self) -> None:
        while self._heap and not self._heap[0][2].is_planned:
            heappop(self._heap)
            self._stale -= 1

    def _push(self, scheduled: ScheduledCheck) -> None:
        heappush(self._heap, (scheduled.due, next(self._order), scheduled))
