"""The intent indexed by service: the selectors, the upstream and the policy of a service."""

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
def _default_selectors(service: str) -> Mapping[str, Selector]:
    return MappingProxyType({service: Selector(service)})


class ServiceIntents:
    """An index of an intent by service. Services that the intent does not name have the defaults."""

    def __init__(self, intent: Intent) -> None:
        self.intent = intent
        self._policies = intent.hash_policies()
        named: defaultdict[str, dict[str, Selector]] = defaultdict(dict)
        for name, selector in sorted(intent.selectors().items()):
            named[selector.service][name] = selector
        self._selectors = {service: {service: Selector(service)} | selectors for service, selectors in named.items()}
        self.named_services = self._selectors.keys() | intent.upstreams.keys()
        """The services that routes or upstreams name. Gateways have clusters for them even if they are unknown."""
        self.shared_selectors = intent.shared_selectors()
        """The names of the selectors that share the requests of some route with other targets."""

    def selectors(self, service: str) -> Mapping[str, Selector]:
        """Returns the service's selectors by name: the whole service, and those in routes."""
        return self._selectors.get(service) or _default_selectors(service)

    def upstream(self, service: str) -> Upstream:
        """Returns the service's upstream, or the default one."""
        return self.intent.upstream(service)

    def policy(self, service: str) -> LbPolicy:
        """Returns the load balancing policy of the service."""
        return self._policies.get(service) or self.upstream(service).policy

    def changed_services(self, before: ServiceIntents) -> set[str]:
        """Returns the services whose intent differs from that `before`."""
        if before is self:
            return set()
        named = self.named_services | before.named_services
        return {service for service in named if self._service_intent(service) != before._service_intent(service)}

    def _service_intent(self, service: str) -> tuple[object, ...]:
        is_named = service in self.named_services
        selectors = self.selectors(service).keys()
        return is_named, selectors, selectors & self.shared_selectors, self.upstream(service), self.policy(service)


NO_SERVICE_INTENTS: Final = ServiceIntents(NO_INTENT)
