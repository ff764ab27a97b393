"""Intent: all routes and upstreams that operators declare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from adsum.core.errors import Invalid
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.intent.upstreams import HASH_POLICIES, LbPolicy, Upstream

MAX_CACHED_DEFAULTS: Final = 16_384
"""Services whose default settings are cached; past it, the least recently used are made again. Every change of the
catalog reads them."""
MAX_SELECTORS: Final = 10_000
"""Different selectors in all routes together; past it, a route that adds one is refused. Each selector has a cluster,
and gateways name all clusters when they connect: the xDS dialect's `MAX_GATEWAY_NAMES` depends on it."""

_NO_UPSTREAMS: Final[Mapping[str, Upstream]] = MappingProxyType({})


def _no_upstreams() -> Mapping[str, Upstream]:
    return _NO_UPSTREAMS


@lru_cache(maxsize=MAX_CACHED_DEFAULTS)
def _default(service: str) -> Upstream:
    return Upstream(service)


@dataclass(frozen=True, slots=True)
class Intent:
    """The routes, in any order, and the upstreams by the names of their services."""

    routes: tuple[Route, ...] = ()
    upstreams: Mapping[str, Upstream] = field(default_factory=_no_upstreams)

    def __post_init__(self) -> None:
        if len({route.name for route in self.routes}) != len(self.routes):
            raise Invalid("routes", "must not have two routes with one name")
        for service, upstream in self.upstreams.items():
            if service != upstream.service:
                raise Invalid(f"upstreams.{service}", f"must be for that service, not for {upstream.service}")

    def upstream(self, service: str) -> Upstream:
        """Returns the service's upstream, or the default one."""
        return self.upstreams.get(service) or _default(service)

    def selectors(self) -> dict[str, Selector]:
        """Returns the selectors of all targets and mirrors of the routes, by name."""
        return {selector.name: selector for route in self.routes for selector in route.selectors}

    def shared_selectors(self) -> frozenset[str]:
        """Returns the names of the selectors that share the requests of some route with other targets."""
        splits = (route.to for route in self.routes if len(route.to) > 1)
        return frozenset(target.selector.name for targets in splits for target in targets if target.weight)

    def named_services(self) -> set[str]:
        """Returns the services that routes or upstreams name."""
        return {selector.service for route in self.routes for selector in route.selectors} | self.upstreams.keys()

    def check_size(self, field: str) -> None:
        """Raises `Invalid`, naming `field`, if the routes have more than `MAX_SELECTORS` different selectors."""
        if sum(len(route.to) + 1 for route in self.routes) <= MAX_SELECTORS:
            return  # So few targets can't have more selectors, and counting targets is cheaper than naming clusters.
        count = len(self.selectors())
        if count > MAX_SELECTORS:
            raise Invalid(
                field,
                f"brings all routes together to {count} different choices of instances; at most {MAX_SELECTORS} are "
                "allowed: use fewer different tags and metadata",
            )

    def hash_policies(self) -> dict[str, LbPolicy]:
        """Returns the policy of each service that a route with `hash` targets.

        It is the upstream's policy if that policy hashes, else a ring hash.
        """
        services = {target.selector.service for route in self.routes if route.hash is not None for target in route.to}
        policies = {service: self.upstream(service).policy for service in services}
        return {
            service: policy if policy in HASH_POLICIES else LbPolicy.RING_HASH for service, policy in policies.items()
        }


NO_INTENT: Final = Intent()
"""No routes and no upstreams: default routes lead to every service."""
