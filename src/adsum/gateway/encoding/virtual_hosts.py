"""The route configuration of a gateway: for each host, every route that may take its requests, in order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from envoy.config.route.v3 import route_components_pb2 as components
from envoy.config.route.v3.route_pb2 import RouteConfiguration

from adsum.gateway import defaults, precedence
from adsum.gateway.defaults import LOCAL
from adsum.gateway.encoding import every_service, messages
from adsum.gateway.encoding.entries import entries
from adsum.gateway.encoding.versions import ALL_HTTP1, Split, Splits
from adsum.gateway.routes import Route

NAME: Final = "routes"
ANY: Final = "*"
LOCALS: Final = "*" + LOCAL
KEPT: Final = 1_024
"""How many services' own default routes are kept encoded; the others are made again with every change of the table."""
FORWARDED_HOST: Final = "x-forwarded-host"


class Encoded:
    """Envoy's routes for declared ones, as bytes: made once while a route and what it depends on stay as they are."""

    def __init__(self, known: Mapping[str, _Known] = MappingProxyType({})) -> None:
        self._known = dict(known)

    def kept(self, routes: Iterable[Route]) -> Encoded:
        """Those of these routes alone."""
        known = self._known
        return Encoded({each.name: known[each.name] for each in routes if each.name in known})

    def of(self, route: Route, splits: Splits) -> bytes:
        """The routes of a virtual host."""
        relevant = tuple(splits.get(to.name, ALL_HTTP1) for to in route.selectors)
        known = self._known.get(route.name)
        if known is None or known.route is not route or known.splits != relevant:
            host = components.VirtualHost(routes=entries(route, splits))
            known = self._known[route.name] = _Known(route, relevant, messages.serialized(host))
        return known.content


class _Known(NamedTuple):
    route: Route
    splits: tuple[Split, ...]
    content: bytes


def route_configuration(
    declared: Sequence[Route],
    apart: Mapping[str, Split],
    splits: Splits,
    encoded: Encoded,
    *,
    default_routes: bool,
    behind_proxy: bool,
) -> bytes:
    """Everything that a gateway routes, as a RouteConfiguration.

    `splits`: how requests are shared between instances with other versions of HTTP, by the names of selectors.
    `apart`: the same of the services that have default routes of their own. `behind_proxy`: what a proxy in front of
    the gateway says of the host that was asked for is believed.
    """
    message = RouteConfiguration(name=NAME, ignore_port_in_host_matching=True)
    # A route may come before its service does: that is answered by 503, and holds back no other route.
    message.validate_clusters.value = False
    option = message.request_headers_to_add.add()
    option.header.key, option.header.value = FORWARDED_HOST, "%REQ(:AUTHORITY)%"
    option.append_action = option.ADD_IF_ABSENT if behind_proxy else option.OVERWRITE_IF_EXISTS_OR_ADD
    order = precedence.Order(declared)
    by_name = {route.name: encoded.of(route, splits) for route in declared}
    anywhere = [by_name[route.name] for route in order.anywhere()]
    by_path, by_host = list[bytes](), list[bytes]()
    if default_routes:
        message.cluster_specifier_plugins.extend(every_service.specifiers())
        known = sorted(apart)
        by_path = [*(_by_path(each, apart[each]) for each in known), every_service.by_path()]
        by_host = [*(_by_host(each, apart[each]) for each in known), every_service.by_host()]
    parts = [messages.serialized(message)]
    parts += [_host(pattern, [by_name[route.name] for route in order.of(pattern)]) for pattern in order.patterns]
    if by_host and LOCALS not in order.patterns:
        parts.append(_host(LOCALS, [*anywhere, *by_host]))
    parts.append(_host(ANY, [*anywhere, *by_path]))
    return b"".join(parts)


def _host(pattern: str, routes: Iterable[bytes]) -> bytes:
    """The virtual host of that pattern, as a field of the configuration."""
    host = messages.serialized(components.VirtualHost(name=pattern, domains=[pattern]))
    return messages.field(RouteConfiguration.VIRTUAL_HOSTS_FIELD_NUMBER, host + b"".join(routes))


@lru_cache(maxsize=KEPT)
def _by_path(service: str, split: Split) -> bytes:
    return messages.serialized(components.VirtualHost(routes=entries(defaults.by_path(service), {service: split})))


@lru_cache(maxsize=KEPT)
def _by_host(service: str, split: Split) -> bytes:
    """The service's default route by host, to stand with others in one virtual host.

    A virtual host for every service would have to repeat all the declared routes that take any host.
    """
    made = tuple(entries(defaults.by_host(service), {service: split}))
    for entry in made:
        authority = entry.match.headers.add(name=":authority")
        authority.string_match.safe_regex.regex = f"(?i:{re.escape(service + LOCAL)})(:[0-9]*)?"
    return messages.serialized(components.VirtualHost(routes=made))
