"""The selection of endpoints: which ones a consumer may use, and with which share of its calls.

A selection never changes a status. It only weighs endpoints, by these rules:

- Draining and maintenance endpoints are never used: these statuses were declared.
- Passing endpoints are used first. Warning endpoints are used when the passing ones lack capacity. Critical, starting
  and ejected endpoints are used only in a panic.
- Endpoints of weight 0 are a reserve: they are used, in equal shares, when no endpoint with a weight is usable.
- **Panic**: all endpoints are used when fewer than `panic_threshold` of them are usable. Then it is more likely that
  health is misjudged than that all are sick, and the few usable ones would be overloaded. Starting endpoints are not
  counted, since a scale-up is no reason to panic. They are used only if there are no others, since they never passed.
- **Spill-over**: calls stay in the consumer's own zone while it has capacity: its usable share of weight times
  `overprovisioning`. The rest goes to other zones, then to warning endpoints, those of the own zone first.

The rules follow Envoy's priority levels, DEGRADED endpoints and panic threshold (envoyproxy.io, "Load balancing:
priority levels", "degraded endpoints", "panic threshold").
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import compress
from operator import attrgetter
from types import MappingProxyType
from typing import Final

from adsum.core.endpoint_changes import amended, endpoint_changes
from adsum.core.errors import Invalid
from adsum.core.model import Endpoint, Status
from adsum.core.weighted_endpoints import NO_ENDPOINTS, WeightedEndpoints

PANIC_THRESHOLD: Final = 0.5
"""The usable share of the endpoints below which all are used, because health is likely misjudged."""
OVERPROVISIONING: Final = 1.4
"""The factor of its usual load that an endpoint can carry. A zone with less capacity spills over to others."""

USABLE_STATUSES: Final = frozenset({Status.PASSING, Status.WARNING})
"""The statuses that take calls."""
DECLARED_STATUSES: Final = frozenset({Status.DRAINING, Status.MAINTENANCE})
"""The declared statuses: their endpoints are never used, not even in a panic."""

MIN_SHARE: Final = 1e-6
"""A share of the calls below this is a rounding error and is dropped."""

_NO_FACTORS: Final[Mapping[str, float]] = MappingProxyType({})
_PASSING: Final = Status.PASSING
_STARTING: Final = Status.STARTING
_share: Final = attrgetter("share")
_OWN, _OTHER, _OWN_WORSE, _OTHER_WORSE = range(4)


@dataclass(frozen=True, slots=True)
class SelectionOptions:
    """The options of a consumer. `zone` is its own zone ("": no preference). `panic_threshold` 0.0 turns panic off."""

    zone: str = ""
    panic_threshold: float = PANIC_THRESHOLD
    overprovisioning: float = OVERPROVISIONING

    def __post_init__(self) -> None:
        if not 0.0 <= self.panic_threshold <= 1.0:
            raise Invalid("panic_threshold", "must be a share from 0 to 1")
        if not 1.0 <= self.overprovisioning <= 100.0:
            raise Invalid("overprovisioning", "must be a factor from 1 to 100")


@dataclass(frozen=True, slots=True)
class Selection:
    """The selected endpoints, in the order given, and how they were selected.

    `spilled_share` is the share of calls that leaves the own zone. `degraded_share` is the share that goes to endpoints
    that are not passing. Both are 0.0 to 1.0.
    """

    endpoints: WeightedEndpoints = NO_ENDPOINTS
    is_panicking: bool = False
    spilled_share: float = 0.0
    degraded_share: float = 0.0


DEFAULT_SELECTION_OPTIONS: Final = SelectionOptions()


class EndpointKind:
    """The endpoints that a selection treats alike, apart from slow start.

    `share` is the weight of each of them in the selection; 0 if they are not selected.
    """

    __slots__ = ("count", "is_ejected", "is_own_zone", "share", "status", "weight")

    def __init__(self, status: Status, weight: int, *, is_own_zone: bool, is_ejected: bool) -> None:
        self.status = status
        self.weight = weight
        """The declared weight; 0 is the reserve."""
        self.is_own_zone = is_own_zone
        """True if the consumer prefers no zone, too."""
        self.is_ejected = is_ejected
        self.count = 0
        self.share: float = 0

    @property
    def is_healthy(self) -> bool:
        return self.status in USABLE_STATUSES and not self.is_ejected

    @property
    def tier(self) -> int:
        return (_OWN if self.status is _PASSING else _OWN_WORSE) + (not self.is_own_zone)

    @property
    def call_weight(self) -> int:
        """The weight that an endpoint has if it is chosen. Those of the reserve have equal shares."""
        return self.weight or 1

    @property
    def mass(self) -> int:
        """The weight of all endpoints together."""
        return self.call_weight * self.count


class EndpointSelector:
    """Selects from successive views of a service, at the cost of what changed and a few passes at the speed of tuples.

    It returns what `select_endpoints` returns.
    """

    def __init__(self, options: SelectionOptions = DEFAULT_SELECTION_OPTIONS) -> None:
        self._options = options
        self._endpoints: tuple[Endpoint, ...] = ()
        self._ejected: frozenset[str] = frozenset()
        self._kinds: list[EndpointKind] = []
        """The kind of each endpoint."""
        self._known: dict[tuple[Status, int, bool, bool], EndpointKind] = {}
        """The kinds with an endpoint."""

    def select(
        self,
        endpoints: Sequence[Endpoint],
        *,
        ejected: Set[str] = frozenset(),
        slow_start_factors: Mapping[str, float] = _NO_FACTORS,
    ) -> Selection:
        """Selects from the endpoints of a view, which are in the order of ids."""
        self._update(tuple(endpoints), frozenset(ejected))
        return self._select(slow_start_factors, is_by_id=True)

    def select_once(
        self, endpoints: Iterable[Endpoint], ejected: Set[str], slow_start_factors: Mapping[str, float]
    ) -> Selection:
        """Selects from endpoints in any order. Then the selector must not be used any more."""
        self._endpoints, self._ejected = tuple(endpoints), frozenset(ejected)
        self._kinds = [self._count(endpoint) for endpoint in self._endpoints]
        return self._select(slow_start_factors, is_by_id=False)

    def _update(self, endpoints: tuple[Endpoint, ...], ejected: frozenset[str]) -> None:
        """Sets the kinds of the endpoints that are not as they were in the last call."""
        if endpoints is not self._endpoints:
            changes = endpoint_changes(self._endpoints, endpoints)
            for change in changes:
                if change.before is not None:
                    self._uncount(self._kinds[change.place])
            self._kinds = amended(self._kinds, changes, self._count)
            self._endpoints = endpoints
        if ejected != self._ejected:
            changed, self._ejected = ejected ^ self._ejected, ejected
            for id in changed:
                place = bisect_left(endpoints, id, key=_id)
                if place < len(endpoints) and endpoints[place].id == id:
                    self._uncount(self._kinds[place])
                    self._kinds[place] = self._count(endpoints[place])

    def _count(self, endpoint: Endpoint) -> EndpointKind:
        """Returns the kind of an endpoint, and counts it."""
        instance = endpoint.instance
        is_own_zone = not self._options.zone or instance.zone == self._options.zone
        is_ejected = bool(self._ejected) and instance.id in self._ejected
        key = endpoint.status, instance.weight, is_own_zone, is_ejected
        kind = self._known.get(key)
        if kind is None:
            kind = EndpointKind(endpoint.status, instance.weight, is_own_zone=is_own_zone, is_ejected=is_ejected)
            self._known[key] = kind
        kind.count += 1
        return kind

    def _uncount(self, kind: EndpointKind) -> None:
        kind.count -= 1
        if not kind.count:
            del self._known[kind.status, kind.weight, kind.is_own_zone, kind.is_ejected]

    def _select(self, slow_start_factors: Mapping[str, float], *, is_by_id: bool) -> Selection:
        kinds = self._known.values()
        for kind in kinds:
            kind.share = 0
        contenders = _contenders([kind for kind in kinds if kind.status not in DECLARED_STATUSES])
        known = [kind for kind in contenders if kind.status is not _STARTING]
        healthy = [kind for kind in known if kind.is_healthy]
        panicking = _panics(_number(healthy), _number(known), self._options.panic_threshold)
        chosen = (known or contenders) if panicking else healthy
        if not chosen:
            return Selection()
        spilled = degraded = 0.0
        factors: Sequence[float] = (1, 1, 1, 1)
        if any(kind.tier for kind in chosen):  # Usually all are passing and in the own zone.
            masses = self._masses(chosen, slow_start_factors)
            if panicking:
                shares = _shares(masses)
            else:
                shares = _waterfall(chosen, known, self._options.overprovisioning)
                factors = _factors(shares, masses)
            spilled, degraded = shares[_OTHER] + shares[_OTHER_WORSE], shares[_OWN_WORSE] + shares[_OTHER_WORSE]
        for kind in chosen:
            kind.share = kind.call_weight * factors[kind.tier]
        return Selection(self._selected(slow_start_factors, is_by_id=is_by_id), panicking, spilled, degraded)

    def _masses(self, chosen: Sequence[EndpointKind], slow_start_factors: Mapping[str, float]) -> list[float]:
        """Returns the weight of each tier, scaled by slow start."""
        masses = _masses(chosen)
        if slow_start_factors:
            is_chosen = set(map(id, chosen))
            for kind, endpoint in zip(self._kinds, self._endpoints, strict=True):
                factor = slow_start_factors.get(endpoint.instance.id)
                if factor is not None and id(kind) in is_chosen:
                    masses[kind.tier] -= kind.call_weight * (1.0 - factor)
        return masses

    def _selected(self, slow_start_factors: Mapping[str, float], *, is_by_id: bool) -> WeightedEndpoints:
        shares = {kind.share for kind in self._known.values()}
        endpoints = self._endpoints
        if 0 in shares:
            shares.remove(0)
            endpoints = tuple(compress(endpoints, map(_share, self._kinds)))
        weights = tuple(shares) * len(endpoints) if len(shares) == 1 else tuple(filter(None, map(_share, self._kinds)))
        if slow_start_factors:
            ids = [endpoint.instance.id for endpoint in endpoints]
            weights = tuple([weight * slow_start_factors.get(id, 1.0) for id, weight in zip(ids, weights, strict=True)])
        return WeightedEndpoints(endpoints, weights, is_by_id=is_by_id)


def select_endpoints(
    endpoints: Iterable[Endpoint],
    options: SelectionOptions = DEFAULT_SELECTION_OPTIONS,
    *,
    ejected: Set[str] = frozenset(),
    slow_start_factors: Mapping[str, float] = _NO_FACTORS,
) -> Selection:
    """Selects from all endpoints of a view. A selection without endpoints means that none may be used.

    `ejected` holds the ids that the consumer's own outlier detection excludes. `slow_start_factors` holds the factors
    (0 < f ≤ 1) of endpoints in slow start, by id; they scale an endpoint within its tier, not the tier's capacity.
    """
    return EndpointSelector(options).select_once(endpoints, ejected, slow_start_factors)


def _contenders(kinds: Sequence[EndpointKind]) -> Sequence[EndpointKind]:
    """Returns the kinds with a weight, or the reserve if only the reserve is usable."""
    weighted = [kind for kind in kinds if kind.weight]
    reserve = [kind for kind in kinds if not kind.weight]
    if not weighted:
        return reserve
    reserve_is_needed = any(kind.is_healthy for kind in reserve) and not any(kind.is_healthy for kind in weighted)
    return reserve if reserve_is_needed else weighted


def _number(kinds: Iterable[EndpointKind]) -> int:
    return sum(kind.count for kind in kinds)


def _panics(healthy: int, known: int, threshold: float) -> bool:
    return threshold > 0.0 and (healthy == 0 or healthy < threshold * known)


def _masses(kinds: Iterable[EndpointKind]) -> list[float]:
    """Returns the weight of each tier."""
    masses = [0.0] * 4
    for kind in kinds:
        masses[kind.tier] += kind.mass
    return masses


def _shares(masses: Sequence[float]) -> list[float]:
    whole = sum(masses)
    return [mass / whole for mass in masses]


def _waterfall(chosen: Iterable[EndpointKind], known: Iterable[EndpointKind], overprovisioning: float) -> list[float]:
    """Returns the share of calls of each tier: what it can carry of the share that the tiers before it could not."""
    known_weight = _masses(known)
    zones = [known_weight[own] + known_weight[own + 2] for own in (_OWN, _OTHER)]
    left = 1.0
    shares = []
    for tier, weight in enumerate(_masses(chosen)):
        share = min(left, overprovisioning * weight / zones[tier & 1]) if weight and left > MIN_SHARE else 0.0
        left -= share
        shares.append(share)
    return _shares(shares)


def _factors(shares: Sequence[float], masses: Sequence[float]) -> list[float]:
    """Returns the factor of the weights of each tier. It is 1.0 in the first tier used, so that integers stay exact."""
    first = next(tier for tier, share in enumerate(shares) if share)
    unit = shares[first] / masses[first]
    return [
        1.0 if tier == first else share / mass / unit if share else 0.0
        for tier, (share, mass) in enumerate(zip(shares, masses, strict=True))
    ]


def _id(endpoint: Endpoint) -> str:
    return endpoint.instance.id
