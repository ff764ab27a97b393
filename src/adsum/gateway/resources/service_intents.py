"""An intent, turned around: what it means for each service."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from adsum.gateway.intent.intent import MAX_CACHED_DEFAULTS, NO_INTENT, Intent
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.intent.upstreams import LbPolicy, Upstream


@lru_cache(maxsize=MAX_CACHED_DEFAULTS)
def _whole(service: str) -> Mapping[str, Selector]:
    return MappingProxyType({service: Selector(service)})


class ServiceIntents:
    """Made once for an intent. Asking about a service that it does not name gives the defaults."""

    def __init__(self, intent: Intent) -> None:
        self.intent = intent
        self._policies = intent.hash_policies()
        named: defaultdict[str, dict[str, Selector]] = defaultdict(dict)
        for name, selector in sorted(intent.selectors().items()):
            named[selector.service][name] = selector
        self._selectors = {service: {service: Selector(service)} | each for service, each in named.items()}
        self.named_services = self._selectors.keys() | intent.upstreams.keys()
        """The services that routes or upstreams name; known or not, there is an answer for them."""
        self.shared_selectors = intent.shared_selectors()
        """The names of the selectors whose routes share requests among several."""

    def selectors(self, service: str) -> Mapping[str, Selector]:
        """By name, what gateways reach of the service: all of it, and what routes select."""
        return self._selectors.get(service) or _whole(service)

    def upstream(self, service: str) -> Upstream:
        return self.intent.upstream(service)

    def policy(self, service: str) -> LbPolicy:
        """How one of its instances is chosen."""
        return self._policies.get(service) or self.upstream(service).policy

    def changed_services(self, before: ServiceIntents) -> set[str]:
        """The services for which it means something else than the plan before."""
        if before is self:
            return set()
        named = (self.named_services | self.intent.upstreams.keys()) | (
            before.named_services | before.intent.upstreams.keys()
        )
        return {service for service in named if self._about(service) != before._about(service)}

    def _about(self, service: str) -> tuple[object, ...]:
        known = service in self.named_services
        selectors = self.selectors(service).keys()
        return known, selectors, selectors & self.shared_selectors, self.upstream(service), self.policy(service)


NO_SERVICE_INTENTS: Final = ServiceIntents(NO_INTENT)
