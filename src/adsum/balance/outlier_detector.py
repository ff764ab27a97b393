"""Outliers: who fails while the others do not is ejected for a while, by this consumer alone.

Passive outlier detection after Envoy ("Outlier detection") and gRPC's A50. An endpoint is ejected when it fails
several times in a row, or when at a sweep, every `interval`, its failures stand out: too large a share, or a success
rate far below the others'. It is out for `base` seconds times the ejections it has had lately, and each calm interval
forgives one. Never more than a bounded share is out: the rest is the panic threshold's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from math import sqrt
from typing import Final

from adsum.balance.ejection import MOVES, EjectionCause, EjectionEvent, EjectionState, OutlierOptions

RATE_TOLERANCE: Final = 1e-9
"""A failure share above the others' by less is a rounding error."""


class CallRecord:
    """What is counted of one endpoint."""

    __slots__ = ("failed", "id", "passed", "place", "streak", "times", "until")

    def __init__(self, id: str) -> None:
        self.id = id
        self.place = EjectionState.ACTIVE
        self.until = 0.0
        self.times = 0
        self.clear()

    def clear(self) -> None:
        self.streak = self.passed = self.failed = 0

    @property
    def failures(self) -> float:
        """The share of failures in this interval, of at least one call."""
        return self.failed / (self.passed + self.failed)


def _too_often(judged: Sequence[CallRecord], limits: OutlierOptions) -> list[CallRecord]:
    return [record for record in judged if record.failures >= limits.most_failures > 0.0]


def _more_than_others(judged: Sequence[CallRecord], limits: OutlierOptions) -> list[CallRecord]:
    if not limits.deviations:
        return []
    mean = sum(record.failures for record in judged) / len(judged)
    deviation = sqrt(sum((record.failures - mean) ** 2 for record in judged) / len(judged))
    return [record for record in judged if record.failures > mean + max(limits.deviations * deviation, RATE_TOLERANCE)]


_SWEEPS: Final[tuple[tuple[EjectionCause, Callable[[Sequence[CallRecord], OutlierOptions], list[CallRecord]]], ...]] = (
    (EjectionCause.ABOVE_MEAN_FAILURE_RATE, _more_than_others),
    (EjectionCause.FAILURE_RATE, _too_often),
)


class OutlierDetector:
    """Who is ejected. Kept by the channel, which tells it every view and every call's end. Not for several threads."""

    def __init__(self, limits: OutlierOptions | None = None) -> None:
        self.limits = limits or OutlierOptions()
        self.ejected: frozenset[str] = frozenset()
        self._records: dict[str, CallRecord] = {}
        self._sweep_at: float | None = None

    def update_endpoints(self, ids: Iterable[str], replaced: Set[str] = frozenset()) -> list[EjectionEvent]:
        """The endpoints there are from now on, usable or not; the others are forgotten.

        Those in `replaced` are other processes than before: nothing is held against them. If fewer than before may be
        out, those whose time would be over first come back.
        """
        events = [self._move(self._records[id], EjectionCause.PROCESS_REPLACED) for id in self.ejected & replaced]
        before = {id: record for id, record in self._records.items() if id not in replaced}
        self._records = {id: before.get(id) or CallRecord(id) for id in ids}
        self.ejected = frozenset(id for id in self.ejected if id in self._records)
        surplus = len(self.ejected) - self.limits.max_ejected(len(self._records))
        if surplus <= 0:
            return events
        return events + [self._move(record, EjectionCause.LIMIT_LOWERED) for record in self._out()[:surplus]]

    def record_call(self, id: str, ok: bool, now: float) -> EjectionEvent | None:
        """A call to the endpoint ended. Calls to endpoints that are out or unknown are not counted."""
        record = self._records.get(id)
        if record is None or record.place is EjectionState.EJECTED:
            return None
        if self._sweep_at is None:
            self._sweep_at = now + self.limits.interval
        if ok:
            record.passed += 1
            record.streak = 0
            return None
        record.failed += 1
        record.streak += 1
        if self.limits.consecutive and record.streak >= self.limits.consecutive and self._room():
            return self._move(record, EjectionCause.CONSECUTIVE_FAILURES, now)
        return None

    def tick(self, now: float) -> list[EjectionEvent]:
        """Let back whose time is over, and sweep if an interval is. An early or late call does no harm."""
        events = [self._move(record, EjectionCause.TIME_SERVED) for record in self._out() if record.until <= now]
        if self._sweep_at is not None and self._sweep_at <= now:
            events += self._sweep(now)
        return events

    def next_deadline(self) -> float | None:
        """When to tick; None while there is nothing to wait for."""
        instants = [self._records[id].until for id in self.ejected]
        if self._sweep_at is not None:
            instants.append(self._sweep_at)
        return min(instants, default=None)

    def _sweep(self, now: float) -> list[EjectionEvent]:
        """Judge the interval that ends, forgive who was calm, and begin the next if anybody is worth it."""
        events = self._judge(now)
        worth_it = False
        for record in self._records.values():
            worth_it = worth_it or record.passed + record.failed > 0 or record.times > 0
            if record.place is EjectionState.ACTIVE and record.times:
                self._move(record, EjectionCause.CALM_INTERVAL)
            record.passed = record.failed = 0
        self._sweep_at = now + self.limits.interval if worth_it else None
        return events

    def _judge(self, now: float) -> list[EjectionEvent]:
        judged = sorted(
            (
                record
                for record in self._records.values()
                if record.place is EjectionState.ACTIVE and record.passed + record.failed >= self.limits.volume
            ),
            key=lambda record: -record.failures,
        )
        if len(judged) < self.limits.hosts:
            return []
        return [
            self._move(record, cause, now)
            for cause, outliers in _SWEEPS
            for record in outliers(judged, self.limits)
            if record.place is EjectionState.ACTIVE and self._room()
        ]

    def _room(self) -> bool:
        return len(self.ejected) < self.limits.max_ejected(len(self._records))

    def _out(self) -> list[CallRecord]:
        """Who is out, the first to come back first."""
        return sorted((self._records[id] for id in self.ejected), key=lambda record: (record.until, record.id))

    def _move(self, record: CallRecord, cause: EjectionCause, now: float = 0.0) -> EjectionEvent:
        """Go where the table says. `now` matters to those who go out; who comes back starts with a clean record."""
        before = record.place
        record.place, more = MOVES[before, cause]
        record.times = min(record.times + more, self.limits.max_counted_ejections)
        if record.place is EjectionState.EJECTED:
            record.until = now + self.limits.ejection_time(record.times)
            self.ejected |= {record.id}
            return EjectionEvent(record.id, EjectionState.EJECTED, cause, record.until)
        if before is EjectionState.EJECTED:
            record.clear()
            self.ejected -= {record.id}
        return EjectionEvent(record.id, EjectionState.ACTIVE, cause)
