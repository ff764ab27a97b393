"""Many leases, and the instants at which they lapse and expire. Time is an argument.

    held ──deadline──► lapsed ──grace over──► expired
      ▲                  │ ▲                     │
      └─────renewed──────┘ └──────put off────────┘

A lease is renewed far more often than it lapses, so renewing only writes the deadline. The heap may know an earlier
instant; an entry that comes up too early is put back to where it belongs by then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from heapq import heapify, heappop, heappush
from math import inf, nextafter
from types import MappingProxyType
from typing import Final

from adsum.core.errors import UnknownInstance
from adsum.core.liveness.guard import Guard
from adsum.core.model import Key

MAX_TICK_INTERVAL: Final = 1.0
"""`tick` is called at least this often, in seconds, even when nothing is due."""
MAX_TICK_DELAY: Final = 5.0
"""How late a tick may come. Past it we were suspended, and nobody could renew: every lease gets a fresh ttl."""
MAX_STALE_LEASE_ENTRIES: Final = 1_000
"""How many heap entries of ended leases are carried beside one for each lease; past it the heap is rebuilt."""


class LeasePhase(StrEnum):
    """Where a lease stands. An expired one can't be renewed any more; it waits to leave the catalog."""

    HELD = "held"
    LAPSED = "lapsed"
    EXPIRED = "expired"


class LeaseEvent(Enum):
    """What happens to a lease."""

    RENEWED = "renewed"
    DEADLINE = "deadline"
    GRACE_OVER = "grace over"
    POSTPONED = "put off"


MOVES: Final[Mapping[tuple[LeasePhase, LeaseEvent], LeasePhase]] = MappingProxyType(
    {
        (LeasePhase.HELD, LeaseEvent.RENEWED): LeasePhase.HELD,
        (LeasePhase.HELD, LeaseEvent.DEADLINE): LeasePhase.LAPSED,
        (LeasePhase.LAPSED, LeaseEvent.RENEWED): LeasePhase.HELD,
        (LeasePhase.LAPSED, LeaseEvent.GRACE_OVER): LeasePhase.EXPIRED,
        (LeasePhase.EXPIRED, LeaseEvent.POSTPONED): LeasePhase.LAPSED,
    }
)
"""Every move that there is; an event that isn't listed for a phase is refused."""


@dataclass(frozen=True, slots=True)
class LeaseTransition:
    """A lease went from one phase to another.

    `overdue` is how many seconds ago its deadline was (negative after a renewal: how long it has now), `guarded` for
    how many seconds the guard held back its service's mass lapse before it let this expiry pass.
    """

    key: Key
    before: LeasePhase
    after: LeasePhase
    overdue: float
    guarded_for: float = 0.0


class _Lease:
    __slots__ = ("deadline", "due", "grace", "phase", "ttl")

    def __init__(self, ttl: float, grace: float, deadline: float, phase: LeasePhase) -> None:
        self.ttl = ttl
        self.grace = grace
        self.deadline = deadline
        self.phase = phase
        self.due = inf
        """The instant under which the heap knows it; an entry with another one is stale."""


def _nobody(key: Key) -> bool:  # noqa: ARG001
    """No instance's place has another process."""
    return False


class Leases:
    """The leases of one keeper, by key; feeds the guard with all that it needs to know."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._leases: dict[Key, _Lease] = {}
        self._heap: list[tuple[float, Key]] = []
        self._looked: float | None = None
        self._resumed = -inf
        """When the last pause was over: no lease's deadline is sooner than its ttl after this."""
        self.lapsed_count = 0
        """How many are not held."""

    def __len__(self) -> int:
        return len(self._leases)

    def phase(self, key: Key) -> LeasePhase | None:
        """Where the lease stands; None if there is none."""
        lease = self._leases.get(key)
        return lease.phase if lease is not None else None

    def deadline(self, key: Key) -> float | None:
        """The instant before which the lease must be renewed; None if there is none."""
        lease = self._leases.get(key)
        return self._deadline(lease) if lease is not None else None

    def grant(self, key: Key, ttl: float, grace: float, now: float, *, lapsed: bool = False) -> None:
        """Grant a fresh full ttl, to a new lease or to one that is there.

        One that is listed as lapsed (at a restart) stays so, but gets ttl and grace before it may expire, too.
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
        self.end(key)
        lease = self._leases[key] = _Lease(ttl, grace, now + ttl, LeasePhase.LAPSED if lapsed else LeasePhase.HELD)
        self._guard.lease_added(key)
        if lapsed:
            self.lapsed_count += 1
            self._guard.lease_lapsed(key)
        self._await(key, lease, lease.deadline + grace if lapsed else lease.deadline)
        if self._looked is None:
            self._looked = now

    def renew(self, key: Key, now: float) -> LeaseTransition | None:
        """Keep the lease for another ttl from now; what moved, if it had lapsed.

        Raises `UnknownInstance` if there is no such lease or it has expired: the instance must register again.
        """
        try:
            lease = self._leases[key]
        except KeyError:
            raise UnknownInstance(*key) from None
        if lease.phase is not LeasePhase.HELD:
            return self._hold_again(key, lease, now)
        lease.deadline = now + lease.ttl
        return None

    def end(self, key: Key) -> None:
        """The instance left, for whatever reason. One that has no lease is fine."""
        lease = self._leases.pop(key, None)
        if lease is not None:
            lapsed = lease.phase is not LeasePhase.HELD
            self.lapsed_count -= lapsed
            self._guard.lease_removed(key, lapsed=lapsed)
            if len(self._heap) > 2 * len(self._leases) + MAX_STALE_LEASE_ENTRIES:
                self._rebuild()

    def postpone(self, key: Key, until: float) -> None:
        """An expiry could not be carried out: the lease is lapsed again, and expires no sooner than `until`."""
        lease = self._leases.get(key)
        if lease is not None and lease.phase is LeasePhase.EXPIRED:
            lease.phase = MOVES[lease.phase, LeaseEvent.POSTPONED]
            self._await(key, lease, until)

    def next_deadline(self) -> float | None:
        """The instant at which `tick` may have something to do; None if there is no lease."""
        return self._heap[0][0] if self._heap else None

    def tick(self, now: float, limit: int, is_replaced: Callable[[Key], bool] = _nobody) -> list[LeaseTransition]:
        """What moved because time passed; looks at no more than `limit` leases.

        `replaced` says of an instance whose grace is over whether another process lives at its place: then the guard
        does not hold it back. There is more to do now if `next_deadline` isn't past `now` afterwards. A lease never
        lapses and expires in the same tick.
        """
        if self._looked is not None and now - self._looked > MAX_TICK_INTERVAL + MAX_TICK_DELAY:
            self._resumed = now
        self._looked = now
        moved = []
        for _ in range(limit):
            if not self._heap or self._heap[0][0] > now:
                break
            due, key = heappop(self._heap)
            lease = self._leases.get(key)
            if (
                lease is not None
                and lease.due == due
                and (move := self._look(key, lease, now, is_replaced)) is not None
            ):
                moved.append(move)
        return moved

    def _look(self, key: Key, lease: _Lease, now: float, replaced: Callable[[Key], bool]) -> LeaseTransition | None:
        """Its instant came up: move it, or put it back to where it belongs by now."""
        deadline = self._deadline(lease)
        ripe = deadline if lease.phase is LeasePhase.HELD else deadline + lease.grace
        if ripe > now:
            self._await(key, lease, ripe)
            return None
        if lease.phase is LeasePhase.HELD:
            return self._lapse(key, lease, deadline, now)
        if lease.phase is LeasePhase.LAPSED:
            return self._expire(key, lease, deadline, now, replaced)
        return None

    def _lapse(self, key: Key, lease: _Lease, deadline: float, now: float) -> LeaseTransition:
        self.lapsed_count += 1
        self._guard.lease_lapsed(key)
        self._await(key, lease, max(deadline + lease.grace, nextafter(now, inf)))
        return _moved(key, lease, LeaseEvent.DEADLINE, now - deadline)

    def _expire(
        self, key: Key, lease: _Lease, deadline: float, now: float, replaced: Callable[[Key], bool]
    ) -> LeaseTransition | None:
        if not replaced(key) and not self._guard.may_expire(key, now):
            self._await(key, lease, now + lease.ttl)
            return None
        lease.due = inf
        return _moved(key, lease, LeaseEvent.GRACE_OVER, now - deadline, self._guard.engaged_seconds(key.service, now))

    def _hold_again(self, key: Key, lease: _Lease, now: float) -> LeaseTransition:
        if (lease.phase, LeaseEvent.RENEWED) not in MOVES:
            raise UnknownInstance(*key)
        self.lapsed_count -= 1
        self._guard.lease_renewed(key)
        lease.deadline = now + lease.ttl
        if lease.deadline < lease.due:
            self._await(key, lease, lease.deadline)
        return _moved(key, lease, LeaseEvent.RENEWED, -lease.ttl)

    def _deadline(self, lease: _Lease) -> float:
        return max(lease.deadline, self._resumed + lease.ttl)

    def _rebuild(self) -> None:
        """Forget the entries of leases that ended. It takes as many ends as there are leases to come here again."""
        self._heap = [(lease.due, key) for key, lease in self._leases.items() if lease.due < inf]
        heapify(self._heap)

    def _await(self, key: Key, lease: _Lease, due: float) -> None:
        lease.due = due
        heappush(self._heap, (due, key))


def _moved(key: Key, lease: _Lease, event: LeaseEvent, overdue: float, guarded: float = 0.0) -> LeaseTransition:
    before, lease.phase = lease.phase, MOVES[lease.phase, event]
    return LeaseTransition(key, before, lease.phase, overdue, guarded)
