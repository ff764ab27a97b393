"""The leases of a keeper, and the instants at which they lapse and expire. Time is an argument.

    held ──deadline──► lapsed ──grace over──► expired
      ▲                  │ ▲                     │
      └─────renewed──────┘ └─────postponed───────┘

A lease is renewed far more often than it lapses, so a renewal only writes the deadline. The heap may hold an earlier
instant. A lease that comes up too early is pushed again with its current instant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import lru_cache
from heapq import heapify, heappop, heappush
from math import inf, nextafter
from types import MappingProxyType
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from adsum.core.errors import UnknownInstance
from adsum.core.liveness.guard import Guard
from adsum.core.model import Key

MAX_TICK_INTERVAL: Final = 1.0
"""Seconds between two calls of `tick`, at most, even when nothing is due."""
MAX_TICK_DELAY: Final = 5.0
"""Seconds by which a tick may be late. Past it the process was suspended and no holder could renew, so every lease gets
a fresh ttl."""
MAX_STALE_LEASE_ENTRIES: Final = 1_000
"""Heap entries of ended leases, in addition to one for each lease. Past it the heap is rebuilt."""

MAX_SHARED_STATES: Final = 1_024
"""Different states of leases that are shared. Past it those used longest ago are no longer shared."""


class LeasePhase(StrEnum):
    """The phase of a lease. An expired lease can't be renewed; its instance waits to be removed from the catalog."""

    HELD = "held"
    LAPSED = "lapsed"
    EXPIRED = "expired"


class LeaseEvent(Enum):
    """The events of a lease."""

    RENEWED = "renewed"
    DEADLINE = "deadline"
    GRACE_OVER = "grace over"
    POSTPONED = "postponed"


MOVES: Final[Mapping[tuple[LeasePhase, LeaseEvent], LeasePhase]] = MappingProxyType(
    {
        (LeasePhase.HELD, LeaseEvent.RENEWED): LeasePhase.HELD,
        (LeasePhase.HELD, LeaseEvent.DEADLINE): LeasePhase.LAPSED,
        (LeasePhase.LAPSED, LeaseEvent.RENEWED): LeasePhase.HELD,
        (LeasePhase.LAPSED, LeaseEvent.GRACE_OVER): LeasePhase.EXPIRED,
        (LeasePhase.EXPIRED, LeaseEvent.POSTPONED): LeasePhase.LAPSED,
    }
)
"""Every transition. An event that is not listed for a phase is refused."""


@dataclass(frozen=True, slots=True)
class LeaseTransition:
    """The transition of a lease from one phase to another.

    `overdue` is the seconds since its deadline; after a renewal it is negative, the seconds until the new deadline.
    `guarded_for` is the seconds for which the guard held back the service's mass lapse before it allowed this expiry.
    """

    key: Key
    before: LeasePhase
    after: LeasePhase
    overdue: float
    guarded_for: float = 0.0


class _LeaseState(Struct, frozen=True, gc=False, order=True):
    """What most leases have in common. Equal states are one object, to save memory."""

    ttl: float
    grace: float
    phase: LeasePhase


@lru_cache(MAX_SHARED_STATES)
def _lease_state(ttl: float, grace: float, phase: LeasePhase) -> _LeaseState:
    return _LeaseState(ttl, grace, phase)


class _Lease(Struct, gc=False, order=True):
    due: float
    """The instant by which the heap is ordered. It must not change while the lease is in the heap."""
    key: Key
    deadline: float
    state: _LeaseState

    @property
    def phase(self) -> LeasePhase:
        return self.state.phase

    @property
    def ttl(self) -> float:
        return self.state.ttl

    @property
    def grace(self) -> float:
        return self.state.grace

    def enter(self, phase: LeasePhase) -> None:
        self.state = _lease_state(self.ttl, self.grace, phase)


def _never_replaced(key: Key) -> bool:  # noqa: ARG001
    return False


class Leases:
    """The leases of one keeper, by key. It reports every change to the guard."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._leases: dict[Key, _Lease] = {}
        self._heap: list[_Lease] = []
        """The leases by `due`, and stale ones: those that have ended, and those that `_leases` has in a newer form."""
        self._ticked_at: float | None = None
        self._resumed_at = -inf
        """The instant at which the process last resumed after a suspension. Deadlines are at least a ttl after it."""
        self._renewed_at, self._renewed_for, self._renewed_until = -inf, 0.0, -inf
        """The instant, the ttl and the deadline of the latest renewal."""
        self.lapsed_count = 0
        """The number of leases that are not held."""

    def __len__(self) -> int:
        return len(self._leases)

    def phase(self, key: Key) -> LeasePhase | None:
        """Returns the phase of the lease; None if there is no such lease."""
        lease = self._leases.get(key)
        return lease.phase if lease is not None else None

    def deadline(self, key: Key) -> float | None:
        """Returns the instant by which the lease must be renewed; None if there is no such lease."""
        lease = self._leases.get(key)
        return self._deadline(lease) if lease is not None else None

    def grant(self, key: Key, ttl: float, grace: float, now: float, *, lapsed: bool = False) -> None:
        """Grants a full ttl to a new or an existing lease.

        `lapsed`: the lease stays lapsed, since the catalog lists it so after a restart. It expires after ttl and grace.
        """
        lease = self._leases.get(key)
        if (
            lease is not None
            and lease.phase is LeasePhase.HELD
            and not lapsed
            and (lease.ttl, lease.grace) == (ttl, grace)
        ):
            lease.deadline = now + ttl
            return
        if lease is not None:
            self.end(key)
        deadline = now + ttl
        due, phase = (deadline + grace, LeasePhase.LAPSED) if lapsed else (deadline, LeasePhase.HELD)
        lease = self._leases[key] = _Lease(due, key, deadline, _lease_state(ttl, grace, phase))
        heappush(self._heap, lease)
        self._guard.lease_added(key)
        if lapsed:
            self.lapsed_count += 1
            self._guard.lease_lapsed(key)
        if self._ticked_at is None:
            self._ticked_at = now

    def renew(self, key: Key, now: float) -> LeaseTransition | None:
        """Renews the lease for a ttl from now. Returns the transition if it had lapsed.

        Raises `UnknownInstance` if there is no such lease or it has expired: the instance must register again.
        """
        try:
            lease = self._leases[key]
        except KeyError:
            raise UnknownInstance(*key) from None
        state = lease.state
        if state.phase is not LeasePhase.HELD:
            return self._hold_again(lease, now)
        if now != self._renewed_at or state.ttl != self._renewed_for:
            self._renewed_at, self._renewed_for, self._renewed_until = now, state.ttl, now + state.ttl
        lease.deadline = self._renewed_until  # Leases that are renewed together share one number, to save memory.
        return None

    def end(self, key: Key) -> None:
        """Ends the lease of an instance that is no longer listed. An instance without a lease is no error."""
        lease = self._leases.pop(key, None)
        if lease is not None:
            lapsed = lease.phase is not LeasePhase.HELD
            self.lapsed_count -= lapsed
            self._guard.lease_removed(key, lapsed=lapsed)
            if len(self._heap) > 2 * len(self._leases) + MAX_STALE_LEASE_ENTRIES:
                self._rebuild()

    def postpone(self, key: Key, until: float) -> None:
        """Returns an expired lease to lapsed, because its expiry could not be written.

        It expires no sooner than `until`.
        """
        lease = self._leases.get(key)
        if lease is not None and lease.phase is LeasePhase.EXPIRED:
            lease.enter(MOVES[lease.phase, LeaseEvent.POSTPONED])
            self._push(lease, until)

    def next_deadline(self) -> float | None:
        """Returns the instant of the next due heap entry, when `tick` is to be called; None if there is no lease."""
        return self._heap[0].due if self._heap else None

    def tick(
        self, now: float, limit: int, is_replaced: Callable[[Key], bool] = _never_replaced
    ) -> list[LeaseTransition]:
        """Returns the transitions that are due, of at most `limit` heap entries.

        `is_replaced` returns whether another process lives at the place of an instance. The guard does not hold back
        the expiry of such an instance. If `next_deadline` is not past `now` afterwards, more entries are due. A lease
        never lapses and expires in the same tick.
        """
        if self._ticked_at is not None and now - self._ticked_at > MAX_TICK_INTERVAL + MAX_TICK_DELAY:
            self._resumed_at = now
        self._ticked_at = now
        transitions = []
        for _ in range(limit):
            if not self._heap or self._heap[0].due > now:
                break
            lease = heappop(self._heap)
            if self._leases.get(lease.key) is not lease:
                continue
            transition = self._advance(lease, now, is_replaced)
            if transition is not None:
                transitions.append(transition)
        return transitions

    def _advance(self, lease: _Lease, now: float, is_replaced: Callable[[Key], bool]) -> LeaseTransition | None:
        """Makes the transition of a lease that the heap gave up, or pushes it again with its current instant."""
        deadline = self._deadline(lease)
        due = deadline if lease.phase is LeasePhase.HELD else deadline + lease.grace
        if due > now:
            self._push(lease, due)
            return None
        if lease.phase is LeasePhase.HELD:
            return self._lapse(lease, deadline, now)
        if lease.phase is LeasePhase.LAPSED:
            return self._expire(lease, deadline, now, is_replaced)
        return None

    def _lapse(self, lease: _Lease, deadline: float, now: float) -> LeaseTransition:
        self.lapsed_count += 1
        self._guard.lease_lapsed(lease.key)
        self._push(lease, max(deadline + lease.grace, nextafter(now, inf)))
        return _transition(lease, LeaseEvent.DEADLINE, now - deadline)

    def _expire(
        self, lease: _Lease, deadline: float, now: float, is_replaced: Callable[[Key], bool]
    ) -> LeaseTransition | None:
        key = lease.key
        if not is_replaced(key) and not self._guard.may_expire(key, now):
            self._push(lease, now + lease.ttl)
            return None
        lease.due = inf
        return _transition(lease, LeaseEvent.GRACE_OVER, now - deadline, self._guard.engaged_seconds(key.service, now))

    def _hold_again(self, lease: _Lease, now: float) -> LeaseTransition:
        if (lease.phase, LeaseEvent.RENEWED) not in MOVES:
            raise UnknownInstance(*lease.key)
        self.lapsed_count -= 1
        self._guard.lease_renewed(lease.key)
        deadline = now + lease.ttl
        if deadline < lease.due:
            # The heap keeps the old form, which is stale from now on.
            lease = self._leases[lease.key] = replace(lease, due=deadline)
            heappush(self._heap, lease)
        lease.deadline = deadline
        return _transition(lease, LeaseEvent.RENEWED, -lease.ttl)

    def _deadline(self, lease: _Lease) -> float:
        return max(lease.deadline, self._resumed_at + lease.ttl)

    def _rebuild(self) -> None:
        """Drops stale leases from the heap. The cost is amortized: it takes as many ends as there are leases."""
        self._heap = [lease for lease in self._leases.values() if lease.due < inf]
        heapify(self._heap)

    def _push(self, lease: _Lease, due: float) -> None:
        """Pushes a lease that is not in the heap."""
        lease.due = due
        heappush(self._heap, lease)


def _transition(lease: _Lease, event: LeaseEvent, overdue: float, guarded_for: float = 0.0) -> LeaseTransition:
    before = lease.phase
    lease.enter(MOVES[before, event])
    return LeaseTransition(lease.key, before, lease.phase, overdue, guarded_for)
