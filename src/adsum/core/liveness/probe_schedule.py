"""When each check's next probe starts: jittered, at a fixed rate, never two at a time, never a burst to catch up.

Whoever drives it asks for what is `due`, starts those, and says when each has `finish`. A driver that can't keep up
starts each check later, oldest first, and can say by how much (`lag`); nothing queues up.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from random import Random
from typing import Final

from adsum.core.backoff import jittered
from adsum.core.model import Check, Key

MAX_FIRST_DELAY: Final = 1.0
"""Within how many seconds a newly listed check is started first (sooner if its interval is shorter)."""
PROBE_JITTER: Final = 0.05
"""By which share of the interval a start varies."""
SCATTER_JITTER: Final = 0.5
"""The same for the start after one that was out of step: over a whole interval, so that many who started together,
because they were listed together or had to wait together, don't do so for ever."""
LATE_SHARE: Final = 0.1
"""From which share of the interval on a start is so late that it was out of step."""
MAX_STALE_CHECK_ENTRIES: Final = 1_000
"""How many removed checks, and at least as many as planned ones, may lie in the heap before it is rebuilt."""
MAX_COUNTED_OVERDUE: Final = 10_000
"""How many overdue checks are counted; with more, this many are told."""


class ScheduledCheck:
    """The place of one check in the schedule. Two turns are never equal: one that replaced another isn't it."""

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
        self._turns: dict[Key, dict[str, ScheduledCheck]] = {}
        self._heap: list[tuple[float, int, ScheduledCheck]] = []
        self._order = count()
        self._count = 0
        self._stale = 0
        self._worst = 0.0

    def __len__(self) -> int:
        """How many checks are planned or running."""
        return self._count

    def add(self, key: Key, check: Check, now: float, *, soon: bool) -> ScheduledCheck:
        """Plan a check; it takes the place of one of the same name.

        With `soon` it starts within `MAX_FIRST_DELAY`, for an instance that waits to be known; without, anywhere in its interval,
        for the many that are planned together when a registry restarts.
        """
        self.remove(key, check.name)
        within = min(check.interval, MAX_FIRST_DELAY) if soon else check.interval
        turn = ScheduledCheck(key, check, now + self._rng.uniform(0.0, within), on_schedule=not soon)
        self._turns.setdefault(key, {})[check.name] = turn
        self._count += 1
        self._push(turn)
        return turn

    def remove(self, key: Key, name: str | None = None) -> None:
        """Forget one check of an instance, or all of them. Those that are not there are fine."""
        turns = self._turns.get(key, {})
        for each in list(turns) if name is None else [name]:
            turn = turns.pop(each, None)
            if turn is not None:
                self._forget(turn)
        if not turns:
            self._turns.pop(key, None)

    def start_due(self, now: float, limit: int) -> list[ScheduledCheck]:
        """At most `limit` checks to start now, the longest waiting first. Each is running until it is `finish`."""
        turns: list[ScheduledCheck] = []
        while len(turns) < limit and self._heap and self._heap[0][0] <= now:
            turn = heappop(self._heap)[2]
            if not turn.is_planned:
                self._stale -= 1
                continue
            self._start(turn, now)
            turns.append(turn)
        return turns

    def finish(self, scheduled: ScheduledCheck, now: float) -> bool:
        """The probe ended: plan the next one, an interval after this one's start, but not before now.

        False if the check was removed or replaced since: then its outcome speaks of something else.
        """
        if not scheduled.is_planned:
            return False
        if scheduled.is_running:
            scheduled.is_running = False
            scheduled.due = max(scheduled.due, now)
            self._push(scheduled)
        return True

    def next_deadline(self) -> float | None:
        """The instant at which `due` has something to start; None if nothing is planned but what is running."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def lag(self, now: float) -> tuple[float, int]:
        """How far behind: the latest start's delay in seconds since this was last asked, and how many are overdue.

        One that is overdue still counts as late by what it has waited so far. Ask right after `due`, else those that
        nobody tried to start yet are counted too. Costs O(overdue), up to `MAX_COUNTED_OVERDUE`.
        """
        worst, self._worst = self._worst, 0.0
        due = self.next_deadline()
        return max(worst, now - due if due is not None else 0.0), self._overdue(now)

    def _overdue(self, now: float) -> int:
        """Walk the top of the heap: below an entry that isn't due yet, none is."""
        overdue, to_see = 0, [0]
        while to_see and overdue < MAX_COUNTED_OVERDUE:
            place = to_see.pop()
            if place < len(self._heap) and self._heap[place][0] < now:
                overdue += self._heap[place][2].is_planned
                to_see += (2 * place + 1, 2 * place + 2)
        return overdue

    def _start(self, turn: ScheduledCheck, now: float) -> None:
        late, interval = now - turn.due, turn.check.interval
        in_step = turn.on_schedule and late <= interval * LATE_SHARE
        turn.due = now + jittered(interval, self._rng, PROBE_JITTER if in_step else SCATTER_JITTER)
        turn.on_schedule = turn.is_running = True
        self._worst = max(self._worst, late)

    def _forget(self, turn: ScheduledCheck) -> None:
        turn.is_planned = False
        self._count -= 1
        if not turn.is_running:
            self._stale += 1
            if self._stale > self._count + MAX_STALE_CHECK_ENTRIES:
                self._heap = [entry for entry in self._heap if entry[2].is_planned]
                heapify(self._heap)
                self._stale = 0

    def _drop_stale(self) -> None:
        while self._heap and not self._heap[0][2].is_planned:
            heappop(self._heap)
            self._stale -= 1

    def _push(self, turn: ScheduledCheck) -> None:
        heappush(self._heap, (turn.due, next(self._order), turn))
