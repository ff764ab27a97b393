"""An intent, turned around: what it means for each service."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from adsum.gateway.intent import NO_INTENT, Intent
from adsum.gateway.selectors import Selector
from adsum.gateway.upstreams import Policy, Upstream


class Plan:
    """Made once for an intent. Asking about a service that it does not name gives the defaults."""

    def __init__(self, intent: Intent) -> None:
        self.intent = intent
        self._policies = intent.policies()
        named: defaultdict[str, dict[str, Selector]] = defaultdict(dict)
        for name, selector in sorted(intent.selectors().items()):
            named[selector.service][name] = selector
        self._selectors = {service: {service: Selector(service)} | each for service, each in named.items()}
        self.services = frozenset(self._selectors)
        """The services that routes lead to; known or not, there is an answer for them."""

    def selectors(self, service: str) -> dict[str, Selector]:
        """By name, what gateways reach of the service: all of it, and what routes select."""
        return self._selectors.get(service) or {service: Selector(service)}

    def upstream(self, service: str) -> Upstream:
        return self.intent.upstream(service)

    def policy(self, service: str) -> Policy:
        """How one of its instances is chosen."""
        return self._policies.get(service) or self.upstream(service).policy

    def differences(self, before: Plan) -> set[str]:
        """The services for which it means something else than the plan before."""
        if before is self:
            return set()
        named = (self.services | self.intent.upstreams.keys()) | (before.services | before.intent.upstreams.keys())
        return {service for service in named if self._about(service) != before._about(service)}

    def _about(self, service: str) -> tuple[object, ...]:
        known = service in self.services
        return known, self.selectors(service).keys(), self.upstream(service), self.policy(service)


NO_PLAN: Final = Plan(NO_INTENT)
