"""The services that a route or an upstream names, by which the registry decides who may see and declare it."""

from __future__ import annotations

from typing import NamedTuple

from adsum.core.access.scopes import NamePatterns, Right, Scopes
from adsum.core.addresses import is_ip_address
from adsum.gateway.intent.intent import Intent
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.upstreams import Upstream


class NamedServices(NamedTuple):
    """The names in a route or an upstream.

    `targets` are services that get requests, `hosts` the first labels of the hosts whose requests the route takes.
    `takes_every_host`: the route takes requests of any host, of a wildcard, or of an IP address.
    """

    targets: frozenset[str]
    hosts: frozenset[str] = frozenset()
    takes_every_host: bool = False

    def are_visible(self, visible: NamePatterns) -> bool:
        """Returns whether all targets are among the visible services; for a route without one, all hosts."""
        return visible.is_all or all(map(visible.includes, self.targets or self.hosts))

    def may_declare(self, scopes: Scopes) -> bool:
        """Returns whether the scopes allow to declare it: the right to operate both ends, targets and hosts.

        A host belongs to the service that its first label names, such as `orders` in `orders.example.com`. A route for
        every host may take the requests of any service, so it takes the right over all of them.
        """
        operable = scopes.patterns(Right.OPERATE)
        if operable.is_all:
            return True
        return not self.takes_every_host and all(map(operable.includes, self.targets | self.hosts))


def named_services(declared: Route | Upstream) -> NamedServices:
    """Returns the names in a route or an upstream."""
    if isinstance(declared, Upstream):
        return NamedServices(frozenset({declared.service}))
    labels = [_label(host) for host in declared.hosts]
    return NamedServices(
        frozenset(selector.service for selector in declared.selectors),
        frozenset(label for label in labels if "*" not in label),
        takes_every_host=not labels or any("*" in label for label in labels),
    )


def _label(host: str) -> str:
    """Returns the first label of a host; `*` for an address.

    An address names no service: a caller with the right over a service `10` must not get the requests to 10.0.0.1.
    """
    return "*" if is_ip_address(host) else host.partition(".")[0].partition(":")[0].lower()


def visible_intent(intent: Intent, visible: NamePatterns) -> Intent:
    """Returns the routes and upstreams that name visible services only; the same object if all are visible.

    A route that also names another service is absent as a whole, so that nothing of it is revealed.
    """
    if visible.is_all:
        return intent
    routes = tuple(route for route in intent.routes if named_services(route).are_visible(visible))
    upstreams = {name: upstream for name, upstream in intent.upstreams.items() if visible.includes(name)}
    return Intent(routes, upstreams)
