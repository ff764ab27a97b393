"""The guard: the per-service rule that holds back mass removal.

When more than a share of a service's leases stand lapsed at the same time, and at least `MIN_MASS_LAPSE`, it is more likely
that the network or the registry is ill than that so many instances died at once. Their expiries are then held back:
the instances stay listed, as critical, because the truth is told all the same. The guard lets go when enough have come
back, and gives those that it held one more ttl to follow; or, if they don't come back, after `hold` seconds.

It sees only what stands lapsed together, so it protects services whose grace outlasts the time between two renewals.
Deliberate deregistrations never pass through here.
"""

from __future__ import annotations

from typing import Final

from adsum.core.model import Key

MIN_MASS_LAPSE: Final = 2
"""A single lapsed lease is never a mass lapse: 1 of 1 expires like any other."""
DEFAULT_GUARD_SHARE: Final = 0.5
DEFAULT_GUARD_HOLD: Final = 3_600.0


class _Ward:
    """What the guard knows of one service."""

    __slots__ = ("holding", "lapsed", "leases", "since")

    def __init__(self) -> None:
        self.leases = 0
        self.lapsed = 0
        self.holding = 0
        """How many of the lapsed had their expiry held back."""
        self.since: float | None = None
        """When the guard engaged; None while there is no mass lapse that it acts on."""


class Guard:
    """Counts the leases of every service, and says which expiries must wait.

    `share` must be exceeded for a mass lapse (1.0 turns the guard off); `hold` is the longest that one mass lapse is
    held back, in seconds, None for ever.
    """

    def __init__(self, share: float = DEFAULT_GUARD_SHARE, hold: float | None = DEFAULT_GUARD_HOLD) -> None:
        self._share = share
        self._hold = hold
        self._wards: dict[str, _Ward] = {}
        self._held: set[Key] = set()
        self._news: set[str] = set()

    def configure(self, share: float, hold: float | None) -> None:
        """Judge by this share and hold back for so long from now on."""
        self._share, self._hold = share, hold

    def lease_added(self, key: Key) -> None:
        """A held lease is there from now on."""
        ward = self._wards.get(key.service)
        if ward is None:
            ward = self._wards[key.service] = _Ward()
        ward.leases += 1
        self._reconsider(key.service, ward)

    def lease_removed(self, key: Key, *, lapsed: bool) -> None:
        """A lease is no more, for whatever reason; `lapsed` says how it stood."""
        ward = self._wards[key.service]
        ward.leases -= 1
        ward.lapsed -= lapsed
        self._release(key, ward)
        self._reconsider(key.service, ward)
        if not ward.leases:
            del self._wards[key.service]

    def lease_lapsed(self, key: Key) -> None:
        """A held lease lapsed."""
        self._wards[key.service].lapsed += 1

    def lease_renewed(self, key: Key) -> None:
        """A lapsed lease is held again."""
        ward = self._wards[key.service]
        ward.lapsed -= 1
        self._release(key, ward)
        self._reconsider(key.service, ward)

    def may_expire(self, key: Key, now: float) -> bool:
        """Whether a lapsed lease whose grace is over may expire now. If not, ask again after one more ttl."""
        ward = self._wards[key.service]
        if not self._mass_lapse(ward):
            # One that was held back may be about to come back with the others: it gets one more ttl.
            return not self._release(key, ward)
        if ward.since is None:
            ward.since = now
        if self._hold is not None and now - ward.since >= self._hold:
            self._release(key, ward)
            return True
        if key not in self._held:
            self._held.add(key)
            ward.holding += 1
            self._news.add(key.service)
        return False

    def engaged_seconds(self, service: str, now: float) -> float:
        """For how many seconds the guard has been holding back this service's mass lapse; 0.0 if there is none."""
        ward = self._wards.get(service)
        return now - ward.since if ward is not None and ward.since is not None else 0.0

    def held_count(self, service: str) -> int:
        """How many expiries of the service are held back now."""
        ward = self._wards.get(service)
        return ward.holding if ward is not None and ward.since is not None else 0

    def changed_counts(self) -> dict[str, int]:
        """What `holding` says now of every service for which it may have changed since this was last asked."""
        services, self._news = self._news, set()
        return {service: self.held_count(service) for service in services}

    def _mass_lapse(self, ward: _Ward) -> bool:
        return ward.lapsed >= MIN_MASS_LAPSE and ward.lapsed > self._share * ward.leases

    def _reconsider(self, service: str, ward: _Ward) -> None:
        """Let go once enough have come back."""
        if ward.since is not None and not self._mass_lapse(ward):
            ward.since = None
            self._news.add(service)

    def _release(self, key: Key, ward: _Ward) -> bool:
        if key not in self._held:
            return False
        self._held.discard(key)
        ward.holding -= 1
        self._news.add(key.service)
        return True
