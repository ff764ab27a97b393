"""The guard: holds back the mass removal of a service's instances.

A mass lapse is when more than a share of a service's leases, and at least `MIN_MASS_LAPSE`, are lapsed at the same
time. A fault of the network or the registry is then more likely than the death of so many instances at once. So the
guard holds back their expiries: the instances stay listed as critical. It disengages when enough leases are renewed,
and the other leases that it held back get one more ttl. After `hold` seconds it lets all of them expire.

The guard only sees leases that are lapsed at the same time, so it protects services whose grace is longer than the time
between two renewals. Deregistrations are never held back.
"""

from __future__ import annotations

from typing import Final

from adsum.core.model import Key

MIN_MASS_LAPSE: Final = 2
"""Lapsed leases in a mass lapse, at least: a single instance expires as usual."""
DEFAULT_GUARD_SHARE: Final = 0.5
"""The share of a service's leases above which lapsed leases are a mass lapse, by default."""
DEFAULT_GUARD_HOLD: Final = 3_600.0
"""Seconds for which one mass lapse is held back at most, by default."""


class _LeaseCounts:
    """The leases of one service, counted by state."""

    __slots__ = ("engaged_at", "held", "lapsed", "leases")

    def __init__(self) -> None:
        self.leases = 0
        self.lapsed = 0
        self.held = 0
        """Lapsed leases whose expiry is held back."""
        self.engaged_at: float | None = None
        """The instant at which the guard engaged; None while it holds back no mass lapse."""


class Guard:
    """Counts the leases of every service, and decides which expiries must wait.

    A mass lapse is more than `share` of the leases (1.0 turns the guard off). `hold` is the longest time that one mass
    lapse is held back, in seconds; None is for ever.
    """

    def __init__(self, share: float = DEFAULT_GUARD_SHARE, hold: float | None = DEFAULT_GUARD_HOLD) -> None:
        self._share = share
        self._hold = hold
        self._services: dict[str, _LeaseCounts] = {}
        self._held: set[Key] = set()
        self._changed: set[str] = set()

    def configure(self, share: float, hold: float | None) -> None:
        """Replaces both settings."""
        self._share, self._hold = share, hold

    def lease_added(self, key: Key) -> None:
        """Counts a new lease, which is held."""
        counts = self._services.get(key.service)
        if counts is None:
            counts = self._services[key.service] = _LeaseCounts()
        counts.leases += 1
        self._disengage_if_over(key.service, counts)

    def lease_removed(self, key: Key, *, lapsed: bool) -> None:
        """Removes a lease, which was `lapsed` or held."""
        counts = self._services[key.service]
        counts.leases -= 1
        counts.lapsed -= lapsed
        self._release(key, counts)
        self._disengage_if_over(key.service, counts)
        if not counts.leases:
            del self._services[key.service]

    def lease_lapsed(self, key: Key) -> None:
        """Counts a held lease as lapsed."""
        self._services[key.service].lapsed += 1

    def lease_renewed(self, key: Key) -> None:
        """Counts a lapsed lease as held again."""
        counts = self._services[key.service]
        counts.lapsed -= 1
        self._release(key, counts)
        self._disengage_if_over(key.service, counts)

    def may_expire(self, key: Key, now: float) -> bool:
        """Returns whether a lapsed lease whose grace is over may expire now. If not, the caller retries after a ttl."""
        counts = self._services[key.service]
        if not self._mass_lapse(counts):
            # A lease that was held back may be renewed soon, as the others were: it gets one more ttl.
            return not self._release(key, counts)
        if counts.engaged_at is None:
            counts.engaged_at = now
        if self._hold is not None and now - counts.engaged_at >= self._hold:
            self._release(key, counts)
            return True
        if key not in self._held:
            self._held.add(key)
            counts.held += 1
            self._changed.add(key.service)
        return False

    def engaged_seconds(self, service: str, now: float) -> float:
        """Returns the seconds for which the guard has held back the service's mass lapse; 0.0 if there is none."""
        counts = self._services.get(service)
        return now - counts.engaged_at if counts is not None and counts.engaged_at is not None else 0.0

    def held_count(self, service: str) -> int:
        """Returns the number of expiries of the service that are held back."""
        counts = self._services.get(service)
        return counts.held if counts is not None and counts.engaged_at is not None else 0

    def changed_counts(self) -> dict[str, int]:
        """Returns the `held_count` of every service for which it may have changed since the last call."""
        services, self._changed = self._changed, set()
        return {service: self.held_count(service) for service in services}

    def _mass_lapse(self, counts: _LeaseCounts) -> bool:
        return counts.lapsed >= MIN_MASS_LAPSE and counts.lapsed > self._share * counts.leases

    def _disengage_if_over(self, service: str, counts: _LeaseCounts) -> None:
        """Disengages when the mass lapse is over."""
        if counts.engaged_at is not None and not self._mass_lapse(counts):
            counts.engaged_at = None
            self._changed.add(service)

    def _release(self, key: Key, counts: _LeaseCounts) -> bool:
        if key not in self._held:
            return False
        self._held.discard(key)
        counts.held -= 1
        self._changed.add(key.service)
        return True
