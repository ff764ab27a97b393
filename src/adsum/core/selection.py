"""Which endpoints a consumer may use, and with what share of its calls.

The catalog states the truth; caution lives here. A selection never relabels anything: it only weighs.

- Draining and maintenance are never used: somebody declared them.
- Passing endpoints are used first. Warning ones step in when the passing ones lack the capacity, critical, starting
  and ejected ones only in a panic.
- Weight 0 is a reserve: used, all alike, when nothing with a weight is usable.
- **Panic**: when fewer than `panic_threshold` of the endpoints are usable, it is likelier that health is misjudged
  than that all of them are sick, and the few left would drown: all are used. Starting endpoints are not counted (a
  scale-up is no reason to panic) and not used while there are others: nobody ever saw them well.
- **Spill-over**: calls stay in the own zone while it has capacity: its usable share of weight times
  `overprovisioning`. What is left goes to the other zones, then to warning endpoints, ours first.

After Envoy's priority levels, DEGRADED endpoints and panic threshold (envoyproxy.io, "Load balancing: priority
levels", "degraded endpoints", "panic threshold").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from adsum.core.errors import Invalid
from adsum.core.model import Endpoint, Status

PANIC_THRESHOLD: Final = 0.5
"""Below this usable share of the endpoints, health is distrusted and all are used."""
OVERPROVISIONING: Final = 1.4
"""How much more than its usual load an endpoint is trusted to carry; a zone spills when that is used up."""

USABLE_STATUSES: Final = frozenset({Status.PASSING, Status.WARNING})
"""The statuses that take calls."""
DECLARED_STATUSES: Final = frozenset({Status.DRAINING, Status.MAINTENANCE})
"""The statuses that somebody declared: never used, not even in a panic."""

MIN_SHARE: Final = 1e-6
"""A share of the calls below this is a rounding error: it goes to nobody."""

_COLD: Final[Mapping[str, float]] = MappingProxyType({})
_PASSING: Final = Status.PASSING
_STARTING: Final = Status.STARTING
_OWN, _OTHER, _OWN_WORSE, _OTHER_WORSE = range(4)


class WeightedEndpoint(NamedTuple):
    """An endpoint and its weight among the choices: the declared one, times zone's share, times warmth."""

    endpoint: Endpoint
    weight: float


@dataclass(frozen=True, slots=True)
class SelectionOptions:
    """How a consumer selects. `zone` is its own zone ("": no preference); `panic_threshold` 0.0 never panics."""

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
    """The choices, in the order given, and what was decided.

    `spilled_share` is the share of calls that leaves the own zone, `degraded` the share that goes to endpoints that do not
    pass, both 0.0 to 1.0.
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
    slow_start_factors: Mapping[str, float] = _COLD,
) -> Selection:
    """Select from all endpoints of a view.

    `ejected` holds the ids that the consumer's own outlier detection keeps out; `warmth` the factors (0 < f ≤ 1) of
    those in slow start, which scale an endpoint within its tier but not the tier's capacity. No choices means that
    nothing may be used.
    """
    contenders = _contenders([each for each in endpoints if each.status not in DECLARED_STATUSES], ejected)
    known = [each for each in contenders if each.status is not _STARTING]
    healthy = _healthy(known, ejected)
    panicking = _panics(len(healthy), len(known), options.panic_threshold)
    chosen = (known or contenders) if panicking else healthy
    if not chosen:
        return Selection()
    tiers = _tiers(chosen, options.zone)
    weights = _weights(chosen, slow_start_factors)
    if not any(tiers):  # the ordinary case: all pass, none is far away
        return Selection(tuple(map(WeightedEndpoint, chosen, weights)), panicking)
    masses = _masses(tiers, weights)
    shares = _shares(masses) if panicking else _waterfall(chosen, tiers, known, options)
    factors = (1.0,) * 4 if panicking else _factors(shares, masses)
    choices = tuple(
        WeightedEndpoint(each, weight * factors[tier])
        for each, tier, weight in zip(chosen, tiers, weights, strict=True)
        if factors[tier]
    )
    return Selection(
        choices, panicking, shares[_OTHER] + shares[_OTHER_WORSE], shares[_OWN_WORSE] + shares[_OTHER_WORSE]
    )


def _contenders(there: Sequence[Endpoint], ejected: Set[str]) -> Sequence[Endpoint]:
    """Those with a weight, unless none of them is usable and one of the reserve is."""
    weighted = [each for each in there if each.instance.weight]
    if len(weighted) == len(there):
        return there
    reserve = [each for each in there if not each.instance.weight]
    return reserve if not weighted or (_healthy(reserve, ejected) and not _healthy(weighted, ejected)) else weighted


def _healthy(endpoints: Iterable[Endpoint], ejected: Set[str]) -> list[Endpoint]:
    healthy = [each for each in endpoints if each.status in USABLE_STATUSES]
    return [each for each in healthy if each.instance.id not in ejected] if ejected else healthy


def _panics(healthy: int, known: int, threshold: float) -> bool:
    return threshold > 0.0 and (healthy == 0 or healthy < threshold * known)


def _tiers(endpoints: Sequence[Endpoint], zone: str) -> list[int]:
    worse = [_OWN if each.status is _PASSING else _OWN_WORSE for each in endpoints]
    if not zone:
        return worse
    return [tier if each.instance.zone == zone else tier + 1 for tier, each in zip(worse, endpoints, strict=True)]


def _weights(endpoints: Sequence[Endpoint], warmth: Mapping[str, float] = _COLD) -> list[float]:
    weights: list[float] = [each.instance.weight or 1 for each in endpoints]
    if not warmth:
        return weights
    return [weight * warmth.get(each.instance.id, 1.0) for weight, each in zip(weights, endpoints, strict=True)]


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
    """Each tier's share of the calls: in order, as much as it can carry of what the tiers before it could not."""
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
    """What to multiply each tier's weights by: exactly 1.0 in the first one used, so that whole weights stay whole."""
    first = next(tier for tier, share in enumerate(shares) if share)
    unit = shares[first] / masses[first]
    return [
        1.0 if tier == first else share / mass / unit if share else 0.0
        for tier, (share, mass) in enumerate(zip(shares, masses, strict=True))
    ]
