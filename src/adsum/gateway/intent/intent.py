"""Intent: everything that operators want of gateways."""

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
"""Services whose default settings are kept ready: they are asked for with every change."""
MAX_SELECTORS: Final = 10_000
"""How many choices of instances all routes together send requests to; past it a route that adds one is refused. Each
has a cluster, and gateways name all of them when they connect: `dialects.xds.bounds.MAX_NAMES` depends on it."""

_NO_UPSTREAMS: Final[Mapping[str, Upstream]] = MappingProxyType({})


def _no_upstreams() -> Mapping[str, Upstream]:
    return _NO_UPSTREAMS


@lru_cache(maxsize=MAX_CACHED_DEFAULTS)
def _default(service: str) -> Upstream:
    return Upstream(service)


@dataclass(frozen=True, slots=True)
class Intent:
    """The routes, in any order, and the settings of services by their names."""

    routes: tuple[Route, ...] = ()
    upstreams: Mapping[str, Upstream] = field(default_factory=_no_upstreams)

    def __post_init__(self) -> None:
        if len({route.name for route in self.routes}) != len(self.routes):
            raise Invalid("routes", "must have different names")
        for service, upstream in self.upstreams.items():
            if service != upstream.service:
                raise Invalid(f"upstreams.{service}", f"is about {upstream.service}")

    def upstream(self, service: str) -> Upstream:
        """The service's settings, or the defaults."""
        return self.upstreams.get(service) or _default(service)

    def selectors(self) -> dict[str, Selector]:
        """Everything that some route sends requests to, by name."""
        return {selector.name: selector for route in self.routes for selector in route.selectors}

    def shared_selectors(self) -> frozenset[str]:
        """The names of the selectors that share some route's requests with others."""
        several = (route.to for route in self.routes if len(route.to) > 1)
        return frozenset(target.selector.name for targets in several for target in targets if target.weight)

    def named_services(self) -> set[str]:
        """The services that some route sends requests to, or that have settings."""
        return {selector.service for route in self.routes for selector in route.selectors} | self.upstreams.keys()

    def check_size(self, field: str) -> None:
        """Gateways can be told all of it. Raises `Invalid`, naming `field`."""
        if sum(len(route.to) + 1 for route in self.routes) <= MAX_SELECTORS:
            return  # So few routes can't lead to more, and their clusters need not be named to know that.
        count = len(self.selectors())
        if count > MAX_SELECTORS:
            raise Invalid(
                field,
                f"with it, all routes lead to {count} different choices of instances, and they may lead to "
                f"{MAX_SELECTORS}: use fewer different tags and metadata",
            )

    def hash_policies(self) -> dict[str, LbPolicy]:
        """The policy of every service that a route hashes to: a ring, unless it has a policy that hashes already."""
        hashed = {target.selector.service for route in self.routes if route.hash is not None for target in route.to}
        policies = {service: self.upstream(service).policy for service in hashed}
        return {service: each if each in HASH_POLICIES else LbPolicy.RING_HASH for service, each in policies.items()}


NO_INTENT: Final = Intent()
"""Nothing was declared: every service is reached by default routes."""
