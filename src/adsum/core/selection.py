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

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from adsum.core.errors import Invalid
from adsum.core.model import Endpoint, Status

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
_OWN, _OTHER, _OWN_WORSE, _OTHER_WORSE = range(4)


class WeightedEndpoint(NamedTuple):
    """An endpoint and its weight in the selection: its declared weight, scaled by zone and slow start."""

    endpoint: Endpoint
    weight: float


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

    endpoints: tuple[WeightedEndpoint, ...] = ()
    is_panicking: bool = False
    spilled_share: float = 0.0
    degraded_share: float = 0.0


DEFAULT_SELECTION_OPTIONS: Final = SelectionOptions()


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
    contenders = _contenders([endpoint for endpoint in endpoints if endpoint.status not in DECLARED_STATUSES], ejected)
    known = [endpoint for endpoint in contenders if endpoint.status is not _STARTING]
    healthy = _healthy(known, ejected)
    panicking = _panics(len(healthy), len(known), options.panic_threshold)
    chosen = (known or contenders) if panicking else healthy
    if not chosen:
        return Selection()
    tiers = _tiers(chosen, options.zone)
    weights = _weights(chosen, slow_start_factors)
    if not any(tiers):  # The usual case: all are passing and in the own zone.
        return Selection(tuple(map(WeightedEndpoint, chosen, weights)), panicking)
    masses = _masses(tiers, weights)
    shares = _shares(masses) if panicking else _waterfall(chosen, tiers, known, options)
    factors = (1.0,) * 4 if panicking else _factors(shares, masses)
    selected = tuple(
        WeightedEndpoint(endpoint, weight * factors[tier])
        for endpoint, tier, weight in zip(chosen, tiers, weights, strict=True)
        if factors[tier]
    )
    return Selection(
        selected, panicking, shares[_OTHER] + shares[_OTHER_WORSE], shares[_OWN_WORSE] + shares[_OTHER_WORSE]
    )


def _contenders(endpoints: Sequence[Endpoint], ejected: Set[str]) -> Sequence[Endpoint]:
    """Returns the endpoints with a weight, or the reserve if only the reserve is usable."""
    weighted = [endpoint for endpoint in endpoints if endpoint.instance.weight]
    if len(weighted) == len(endpoints):
        return endpoints
    reserve = [endpoint for endpoint in endpoints if not endpoint.instance.weight]
    return reserve if not weighted or (_healthy(reserve, ejected) and not _healthy(weighted, ejected)) else weighted


def _healthy(endpoints: Iterable[Endpoint], ejected: Set[str]) -> list[Endpoint]:
    healthy = [endpoint for endpoint in endpoints if endpoint.status in USABLE_STATUSES]
    return [endpoint for endpoint in healthy if endpoint.instance.id not in ejected] if ejected else healthy


def _panics(healthy: int, known: int, threshold: float) -> bool:
    return threshold > 0.0 and (healthy == 0 or healthy < threshold * known)


def _tiers(endpoints: Sequence[Endpoint], zone: str) -> list[int]:
    worse = [_OWN if endpoint.status is _PASSING else _OWN_WORSE for endpoint in endpoints]
    if not zone:
        return worse
    return [
        tier if endpoint.instance.zone == zone else tier + 1 for tier, endpoint in zip(worse, endpoints, strict=True)
    ]


def _weights(endpoints: Sequence[Endpoint], slow_start_factors: Mapping[str, float] = _NO_FACTORS) -> list[float]:
    weights: list[float] = [endpoint.instance.weight or 1 for endpoint in endpoints]
    if not slow_start_factors:
        return weights
    return [
        weight * slow_start_factors.get(endpoint.instance.id, 1.0)
        for weight, endpoint in zip(weights, endpoints, strict=True)
    ]


def _masses(tiers: Sequence[int], weights: Sequence[float]) -> list[float]:
    masses = [0.0] * 4
    for tier, weight in zip(tiers, weights, strict=True):
        masses[tier] += weight
    return masses


def _shares(masses: Sequence[float]) -> list[float]:
    whole = sum(masses)
    return [mass / whole for mass in masses]


def _waterfall(
    chosen: Sequence[Endpoint], tiers: Sequence[int], known: Sequence[Endpoint], options: SelectionOptions
) -> list[float]:
    """Returns the share of calls of each tier: what it can carry of the share that the tiers before it could not."""
    usable_weight = _masses(tiers, _weights(chosen))
    known_weight = _masses(_tiers(known, options.zone), _weights(known))
    zones = [known_weight[own] + known_weight[own + 2] for own in (_OWN, _OTHER)]
    left = 1.0
    shares = []
    for tier, weight in enumerate(usable_weight):
        share = min(left, options.overprovisioning * weight / zones[tier & 1]) if weight and left > MIN_SHARE else 0.0
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
