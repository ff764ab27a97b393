"""The route configuration of a gateway: for each host, every route that may take its requests, in order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from envoy.config.route.v3 import route_components_pb2 as components
from envoy.config.route.v3.route_pb2 import RouteConfiguration

from adsum.gateway import defaults, precedence
from adsum.gateway.defaults import LOCAL
from adsum.gateway.entries import entries
from adsum.gateway.routes import Route
from adsum.gateway.versions import ALL_HTTP1, Split, Splits

NAME: Final = "routes"
ANY: Final = "*"
LOCALS: Final = "*" + LOCAL
FORWARDED_HOST: Final = "x-forwarded-host"
SERVICES: Final = 16_384
"""How many services' default routes are kept ready: one more service comes while all the others stay."""


def route_configuration(
    declared: Sequence[Route], services: Iterable[str], splits: Splits, *, behind_proxy: bool
) -> Any:
    """Everything that a gateway routes; `services` are those that default routes are for.

    `splits`: how requests are shared between instances with other versions of HTTP, by the names of selectors.
    `behind_proxy`: what a proxy in front of the gateway says of the host that was asked for is believed.
    """
    known = sorted(services)
    message = RouteConfiguration(name=NAME, ignore_port_in_host_matching=True)
    # A route may come before its service does: that is answered by 503, and holds back no other route.
    message.validate_clusters.value = False
    option = message.request_headers_to_add.add()
    option.header.key, option.header.value = FORWARDED_HOST, "%REQ(:AUTHORITY)%"
    option.append_action = option.ADD_IF_ABSENT if behind_proxy else option.OVERWRITE_IF_EXISTS_OR_ADD
    patterns = sorted({pattern for route in declared for pattern in route.hosts})
    for pattern in patterns:
        message.virtual_hosts.append(_host(pattern, precedence.ordered(declared, pattern), splits))
    by_path = [entry for service in known for entry in _by_path(service, splits.get(service, ALL_HTTP1))]
    if known and LOCALS not in patterns:
        local = [entry for service in known for entry in _by_host(service, splits.get(service, ALL_HTTP1))]
        message.virtual_hosts.append(_host(LOCALS, precedence.anywhere(declared), splits, local))
    message.virtual_hosts.append(_host(ANY, precedence.anywhere(declared), splits, by_path))
    return message


def _host(pattern: str, routes: Sequence[Route], splits: Splits, by_default: Iterable[Any] = ()) -> Any:
    host = components.VirtualHost(name=pattern, domains=[pattern])
    for route in routes:
        host.routes.extend(entries(route, splits))
    host.routes.extend(by_default)
    return host


@lru_cache(maxsize=SERVICES)
def _by_path(service: str, split: Split) -> Sequence[Any]:
    return tuple(entries(defaults.by_path(service), {service: split}))


@lru_cache(maxsize=SERVICES)
def _by_host(service: str, split: Split) -> Sequence[Any]:
    """The service's default route by host, to stand with others in one virtual host.

    A virtual host for every service would have to repeat all the declared routes that take any host.
    """
    made = tuple(entries(defaults.by_host(service), {service: split}))
    for entry in made:
        authority = entry.match.headers.add(name=":authority")
        authority.string_match.safe_regex.regex = f"(?i:{re.escape(service + LOCAL)})(:[0-9]*)?"
    return made
