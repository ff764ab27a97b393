"""Outlier detection: a consumer ejects, for a while, endpoints that fail while others do not.

Passive outlier detection after Envoy ("Outlier detection") and gRPC's A50. An endpoint is ejected when it fails several
times in a row. It is also ejected when a sweep at the end of an interval finds a failure rate that is too high in
itself, or far above the mean. Each ejection lasts longer than the one before, and each calm interval lowers the count
of ejections by one. The share of ejected endpoints is bounded; when more fail, the panic threshold takes over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence, Set
from math import sqrt
from typing import Final

from adsum.balance.ejection import MOVES, EjectionCause, EjectionEvent, EjectionState, OutlierOptions

RATE_TOLERANCE: Final = 1e-9
"""A failure rate that is less than this above the mean is a rounding error."""


class CallRecord:
    """The record of one endpoint: its state, and its counts of calls and ejections."""

    __slots__ = ("consecutive_failures", "ejected_until", "ejections", "failures", "id", "state", "successes")

    def __init__(self, id: str) -> None:
        self.id = id
        self.state = EjectionState.ACTIVE
        self.ejected_until = 0.0
        self.ejections = 0
        self.clear()

    def clear(self) -> None:
        """Forgets every call."""
        self.consecutive_failures = self.successes = self.failures = 0

    @property
    def calls(self) -> int:
        """The number of calls in this interval."""
        return self.successes + self.failures

    @property
    def failure_rate(self) -> float:
        """The share of failed calls in this interval, which has at least one call."""
        return self.failures / self.calls


def _by_failure_rate(judged: Sequence[CallRecord], options: OutlierOptions) -> list[CallRecord]:
    return [record for record in judged if record.failure_rate >= options.failure_rate > 0.0]


def _by_mean(judged: Sequence[CallRecord], options: OutlierOptions) -> list[CallRecord]:
    if not options.stdev_factor:
        return []
    mean = sum(record.failure_rate for record in judged) / len(judged)
    deviation = sqrt(sum((record.failure_rate - mean) ** 2 for record in judged) / len(judged))
    limit = mean + max(options.stdev_factor * deviation, RATE_TOLERANCE)
    return [record for record in judged if record.failure_rate > limit]


_SWEEPS: Final[tuple[tuple[EjectionCause, Callable[[Sequence[CallRecord], OutlierOptions], list[CallRecord]]], ...]] = (
    (EjectionCause.ABOVE_MEAN_FAILURE_RATE, _by_mean),
    (EjectionCause.FAILURE_RATE, _by_failure_rate),
)


class OutlierDetector:
    """Decides which endpoints are ejected. The channel passes it every view and the end of every call.

    Not thread-safe. `now` is always the current monotonic time in seconds.
    """

    def __init__(self, options: OutlierOptions | None = None) -> None:
        self.options = options or OutlierOptions()
        self.ejected: frozenset[str] = frozenset()
        self._records: dict[str, CallRecord] = {}
        self._sweep_at: float | None = None

    def update_endpoints(
        self, came: Iterable[str], gone: Collection[str] = (), replaced: Set[str] = frozenset()
    ) -> list[EjectionEvent]:
        """Adds the endpoints that came, usable or not, and drops the records of those that are gone.

        The ids in `replaced` belong to other processes than before, whose records start empty. If fewer endpoints than
        before may be ejected, those whose time ends first become active.
        """
        events = [self._move(self._records[id], EjectionCause.PROCESS_REPLACED) for id in self.ejected & replaced]
        for id in gone:
            self._records.pop(id, None)
        self.ejected = self.ejected.difference(gone)
        self._records |= {id: CallRecord(id) for id in came if id not in self._records}
        self._records |= {id: CallRecord(id) for id in replaced}
        surplus = len(self.ejected) - self.options.max_ejected(len(self._records))
        if surplus <= 0:
            return events
        return events + [
            self._move(record, EjectionCause.LIMIT_LOWERED) for record in self._ejected_records()[:surplus]
        ]

    def record_call(self, id: str, ok: bool, now: float) -> EjectionEvent | None:
        """Counts a call that ended. Calls to ejected and unknown endpoints are not counted."""
        record = self._records.get(id)
        if record is None or record.state is EjectionState.EJECTED:
            return None
        if self._sweep_at is None:
            self._sweep_at = now + self.options.interval
        if ok:
            record.successes += 1
            record.consecutive_failures = 0
            return None
        record.failures += 1
        record.consecutive_failures += 1
        limit = self.options.consecutive_failures
        if limit and record.consecutive_failures >= limit and self._may_eject():
            return self._move(record, EjectionCause.CONSECUTIVE_FAILURES, now)
        return None

    def tick(self, now: float) -> list[EjectionEvent]:
        """Ends the ejections that are over, and sweeps if an interval is over. An early or late call does no harm."""
        over = [record for record in self._ejected_records() if record.ejected_until <= now]
        events = [self._move(record, EjectionCause.TIME_SERVED) for record in over]
        if self._sweep_at is not None and self._sweep_at <= now:
            events += self._sweep(now)
        return events

    def next_deadline(self) -> float | None:
        """Returns the time of the next `tick`; None while there is nothing to wait for."""
        times = [self._records[id].ejected_until for id in self.ejected]
        if self._sweep_at is not None:
            times.append(self._sweep_at)
        return min(times, default=None)

    def _sweep(self, now: float) -> list[EjectionEvent]:
        """Judges the interval that ends, lowers the counts of ejections, and begins the next interval if needed."""
        events = self._judge(now)
        is_needed = False
        for record in self._records.values():
            is_needed = is_needed or record.calls > 0 or record.ejections > 0
            if record.state is EjectionState.ACTIVE and record.ejections:
                self._move(record, EjectionCause.CALM_INTERVAL)
            record.successes = record.failures = 0
        self._sweep_at = now + self.options.interval if is_needed else None
        return events

    def _judge(self, now: float) -> list[EjectionEvent]:
        judged = sorted(
            (
                record
                for record in self._records.values()
                if record.state is EjectionState.ACTIVE and record.calls >= self.options.min_calls
            ),
            key=lambda record: (-record.failure_rate, record.id),
        )
        if len(judged) < self.options.min_endpoints:
            return []
        return [
            self._move(record, cause, now)
            for cause, outliers in _SWEEPS
            for record in outliers(judged, self.options)
            if record.state is EjectionState.ACTIVE and self._may_eject()
        ]

    def _may_eject(self) -> bool:
        return len(self.ejected) < self.options.max_ejected(len(self._records))

    def _ejected_records(self) -> list[CallRecord]:
        """Returns the records of ejected endpoints; those whose time ends first come first."""
        return sorted((self._records[id] for id in self.ejected), key=lambda record: (record.ejected_until, record.id))

    def _move(self, record: CallRecord, cause: EjectionCause, now: float = 0.0) -> EjectionEvent:
        """Follows the table of moves. `now` is needed for ejections; an endpoint that becomes active starts empty."""
        before = record.state
        record.state, change = MOVES[before, cause]
        record.ejections = min(record.ejections + change, self.options.max_counted_ejections)
        if record.state is EjectionState.EJECTED:
            record.ejected_until = now + self.options.ejection_time(record.ejections)
            self.ejected |= {record.id}
            return EjectionEvent(record.id, EjectionState.EJECTED, cause, record.ejected_until)
        if before is EjectionState.EJECTED:
            record.clear()
            self.ejected -= {record.id}
        return EjectionEvent(record.id, EjectionState.ACTIVE, cause)
