"""The route configuration of a gateway: for each host, every route that may take its requests, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from envoy.config.route.v3 import route_components_pb2 as components
from envoy.config.route.v3.route_pb2 import RouteConfiguration

from adsum.gateway import direct_responses
from adsum.gateway.encoding import messages
from adsum.gateway.encoding.clusters.http_versions import ALL_HTTP1, TrafficSplit, TrafficSplits
from adsum.gateway.encoding.routes import default_entries, host_groups
from adsum.gateway.encoding.routes.route_entries import add_header_edits, route_entries
from adsum.gateway.intent import default_routes
from adsum.gateway.intent.actions import HeaderEdits
from adsum.gateway.intent.default_routes import LOCALHOST_SUFFIX
from adsum.gateway.intent.routes import Route
from adsum.gateway.patterns import host_patterns
from adsum.gateway.route_check import route_order

ROUTE_CONFIGURATION_NAME: Final = "routes"
ANY_HOST: Final = "*"
LOCALHOST_PATTERN: Final = "*" + LOCALHOST_SUFFIX
MAX_CACHED_DEFAULT_ROUTES: Final = 1_024
"""How many services' own default routes are kept encoded; the others are made again with every change of the table."""
FORWARDED_HOST_HEADER: Final = "x-forwarded-host"


class EncodedRoutes:
    """Envoy's routes for declared ones, as bytes: made once while a route and what it depends on stay as they are."""

    def __init__(self, known: Mapping[str, _Known] = MappingProxyType({})) -> None:
        self._known = dict(known)

    def retain(self, routes: Iterable[Route]) -> EncodedRoutes:
        """Those of these routes alone."""
        known = self._known
        return EncodedRoutes({each.name: known[each.name] for each in routes if each.name in known})

    def encode(self, route: Route, splits: TrafficSplits) -> bytes:
        """The routes of a virtual host."""
        relevant = tuple(splits.get(to.name, ALL_HTTP1) for to in route.selectors)
        known = self._known.get(route.name)
        if known is None or known.route is not route or known.splits != relevant:
            host = components.VirtualHost(routes=route_entries(route, splits))
            known = self._known[route.name] = _Known(route, relevant, messages.serialize(host), {})
        return known.content

    def encode_for_hosts(self, route: Route, pattern: str, splits: TrafficSplits) -> bytes:
        """The same for hosts of that pattern alone ("": all), to stand beside routes for others."""
        content = self.encode(route, splits)
        if not pattern:
            return content
        by_pattern = self._known[route.name].by_pattern
        if pattern not in by_pattern:
            by_pattern[pattern] = _limited(components.VirtualHost.FromString(content), pattern)
        return by_pattern[pattern]


class _Known(NamedTuple):
    route: Route
    splits: tuple[TrafficSplit, ...]
    content: bytes
    by_pattern: dict[str, bytes]


def route_configuration(
    declared: Sequence[Route],
    own_splits: Mapping[str, TrafficSplit],
    splits: TrafficSplits,
    encoded: EncodedRoutes,
    *,
    default_routes: bool,
    behind_proxy: bool,
) -> bytes:
    """Everything that a gateway routes, as a RouteConfiguration.

    `splits`: how requests are shared between instances with other versions of HTTP, by the names of selectors.
    `own_splits`: the same of the services that have default routes of their own. `behind_proxy`: what a proxy in front of
    the gateway says of the host that was asked for is believed.
    """
    message = RouteConfiguration(name=ROUTE_CONFIGURATION_NAME, ignore_port_in_host_matching=True)
    # A route may come before its service does: that is answered by 503, and holds back no other route.
    message.validate_clusters.value = False
    option = message.request_headers_to_add.add()
    option.header.key, option.header.value = FORWARDED_HOST_HEADER, "%REQ(:AUTHORITY)%"
    option.append_action = option.ADD_IF_ABSENT if behind_proxy else option.OVERWRITE_IF_EXISTS_OR_ADD
    order = route_order.RouteOrder(declared)
    by_name = {route.name: encoded.encode(route, splits) for route in declared}
    anywhere = [by_name[route.name] for route in order.for_any_host()]
    by_path, by_host = list[bytes](), list[bytes]()
    if default_routes:
        message.cluster_specifier_plugins.extend(default_entries.cluster_specifiers())
        known = sorted(own_splits)
        by_path = [*(_by_path(each, own_splits[each]) for each in known), default_entries.path_entries()]
        by_host = [*(_by_host(each, own_splits[each]) for each in known), default_entries.host_entries()]
    parts = [messages.serialize(message)]
    for group in host_groups.group_hosts(order):
        if len(group) == 1:
            parts.append(_host(group, [by_name[route.name] for route in order.for_host(group[0])]))
        else:
            parts.append(_host(group, [encoded.encode_for_hosts(*each, splits) for each in order.for_patterns(group)]))
    if by_host and LOCALHOST_PATTERN not in order.host_patterns:
        parts.append(_host([LOCALHOST_PATTERN], [*anywhere, *by_host]))
    parts.append(_host([ANY_HOST], [*anywhere, *by_path]))
    return b"".join(parts)


def _refused() -> Iterator[Any]:
    """Envoy's routes for requests that no route is asked about."""
    for refusal, header, comparison in (
        (direct_responses.TRACE_RESPONSE, ":method", {"exact": direct_responses.TRACE_METHOD}),
        (direct_responses.SEVERAL_HOSTS_RESPONSE, ":authority", {"contains": direct_responses.HOST_SEPARATOR}),
    ):
        entry = components.Route(match=components.RouteMatch(prefix="/"))
        entry.match.headers.add(name=header, string_match=comparison)
        entry.direct_response.status = refusal.status
        entry.direct_response.body.inline_string = refusal.reason
        add_header_edits(
            HeaderEdits(set=refusal.headers), entry.response_headers_to_add, entry.response_headers_to_remove
        )
        yield entry


_REFUSED: Final = messages.serialize(components.VirtualHost(routes=_refused()))


def _host(patterns: Sequence[str], routes: Iterable[bytes]) -> bytes:
    """The virtual host of those patterns, as a field of the configuration."""
    # What no route is asked about is refused before any is.
    host = (
        messages.serialize(components.VirtualHost(name=host_groups.group_name(patterns), domains=patterns)) + _REFUSED
    )
    return messages.encode_field(RouteConfiguration.VIRTUAL_HOSTS_FIELD_NUMBER, host + b"".join(routes))


@lru_cache(maxsize=MAX_CACHED_DEFAULT_ROUTES)
def _by_path(service: str, split: TrafficSplit) -> bytes:
    return messages.serialize(
        components.VirtualHost(routes=route_entries(default_routes.path_route(service), {service: split}))
    )


@lru_cache(maxsize=MAX_CACHED_DEFAULT_ROUTES)
def _by_host(service: str, split: TrafficSplit) -> bytes:
    """The service's default route by host, to stand with others in one virtual host.

    A virtual host for every service would have to repeat all the declared routes that take any host.
    """
    made = components.VirtualHost(routes=route_entries(default_routes.host_route(service), {service: split}))
    return _limited(made, service + LOCALHOST_SUFFIX)


def _limited(host: Any, pattern: str) -> bytes:
    """Those routes, for hosts of that pattern alone."""
    for entry in host.routes:
        entry.match.headers.add(name=":authority").string_match.safe_regex.regex = host_patterns.authority_regex(
            pattern
        )
    return messages.serialize(host)
