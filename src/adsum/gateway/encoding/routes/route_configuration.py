"""The route configuration of a gateway: virtual hosts, each with the routes for its hosts in order."""

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
from adsum.gateway.encoding.routes.route_actions import add_header_edits
from adsum.gateway.encoding.routes.route_entries import route_entries
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
"""Services whose own default routes are cached. The routes of others are encoded with every change of the table."""
FORWARDED_HOST_HEADER: Final = "x-forwarded-host"


class EncodedRoutes:
    """A cache of the encoded entries of declared routes. An entry is valid while its route and splits are the same."""

    def __init__(self, cache: Mapping[str, _EncodedRoute] = MappingProxyType({})) -> None:
        self._cache = dict(cache)

    def retain(self, routes: Iterable[Route]) -> EncodedRoutes:
        """Returns a cache with the entries of these routes alone."""
        cache = self._cache
        return EncodedRoutes({route.name: cache[route.name] for route in routes if route.name in cache})

    def encode(self, route: Route, splits: TrafficSplits) -> bytes:
        """Returns the entries of the route, encoded as part of a virtual host."""
        own_splits = tuple(splits.get(selector.name, ALL_HTTP1) for selector in route.selectors)
        cached = self._cache.get(route.name)
        if cached is None or cached.route is not route or cached.splits != own_splits:
            host = components.VirtualHost(routes=route_entries(route, splits))
            cached = self._cache[route.name] = _EncodedRoute(route, own_splits, messages.serialize(host), {})
        return cached.content

    def encode_for_hosts(self, route: Route, pattern: str, splits: TrafficSplits) -> bytes:
        """Returns the entries with a condition on the host, for a virtual host that has routes of other hosts, too.

        The pattern "" means every host and adds no condition.
        """
        content = self.encode(route, splits)
        if not pattern:
            return content
        by_pattern = self._cache[route.name].by_pattern
        if pattern not in by_pattern:
            by_pattern[pattern] = _with_host_condition(components.VirtualHost.FromString(content), pattern)
        return by_pattern[pattern]


class _EncodedRoute(NamedTuple):
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
    """Returns the encoded RouteConfiguration of a gateway.

    `splits`: the traffic splits by the names of selectors. `own_splits`: the splits of the services that have default
    routes of their own. `behind_proxy`: the gateway trusts the X-Forwarded-Host of a proxy in front of it.
    """
    message = RouteConfiguration(name=ROUTE_CONFIGURATION_NAME, ignore_port_in_host_matching=True)
    # A route may name a cluster that does not exist yet: it is answered with 503 and does not block other routes.
    message.validate_clusters.value = False
    option = message.request_headers_to_add.add()
    option.header.key, option.header.value = FORWARDED_HOST_HEADER, "%REQ(:AUTHORITY)%"
    option.append_action = option.ADD_IF_ABSENT if behind_proxy else option.OVERWRITE_IF_EXISTS_OR_ADD
    order = route_order.RouteOrder(declared)
    by_name = {route.name: encoded.encode(route, splits) for route in declared}
    any_host = [by_name[route.name] for route in order.for_any_host()]
    by_path, by_host = list[bytes](), list[bytes]()
    if default_routes:
        message.cluster_specifier_plugins.extend(default_entries.cluster_specifiers())
        services = sorted(own_splits)
        by_path = [*(_path_entries(name, own_splits[name]) for name in services), default_entries.path_entries()]
        by_host = [*(_host_entries(name, own_splits[name]) for name in services), default_entries.host_entries()]
    parts = [messages.serialize(message)]
    for group in host_groups.group_hosts(order):
        if len(group) == 1:
            entries = [by_name[route.name] for route in order.for_host(group[0])]
        else:
            pairs = order.for_patterns(group)
            entries = [encoded.encode_for_hosts(route, pattern, splits) for route, pattern in pairs]
        parts.append(_virtual_host(group, entries))
    if by_host and LOCALHOST_PATTERN not in order.host_patterns:
        parts.append(_virtual_host([LOCALHOST_PATTERN], [*any_host, *by_host]))
    parts.append(_virtual_host([ANY_HOST], [*any_host, *by_path]))
    return b"".join(parts)


def _direct_response_entries() -> Iterator[Any]:
    """Yields Envoy's routes for the requests that a gateway refuses before it matches routes."""
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


_DIRECT_RESPONSES: Final = messages.serialize(components.VirtualHost(routes=_direct_response_entries()))


def _virtual_host(patterns: Sequence[str], entries: Iterable[bytes]) -> bytes:
    """Returns the virtual host of these patterns, encoded as a field of the configuration.

    The gateway's own responses come before all routes.
    """
    host = messages.serialize(components.VirtualHost(name=host_groups.group_name(patterns), domains=patterns))
    content = host + _DIRECT_RESPONSES + b"".join(entries)
    return messages.encode_field(RouteConfiguration.VIRTUAL_HOSTS_FIELD_NUMBER, content)


@lru_cache(maxsize=MAX_CACHED_DEFAULT_ROUTES)
def _path_entries(service: str, split: TrafficSplit) -> bytes:
    """Returns the encoded entries of the service's own default route by path."""
    entries = route_entries(default_routes.path_route(service), {service: split})
    return messages.serialize(components.VirtualHost(routes=entries))


@lru_cache(maxsize=MAX_CACHED_DEFAULT_ROUTES)
def _host_entries(service: str, split: TrafficSplit) -> bytes:
    """Returns the encoded entries of the service's own default route by host, with a condition on the host.

    All services share one virtual host. A virtual host for each would have to repeat all declared routes for any host.
    """
    entries = route_entries(default_routes.host_route(service), {service: split})
    return _with_host_condition(components.VirtualHost(routes=entries), service + LOCALHOST_SUFFIX)


def _with_host_condition(host: Any, pattern: str) -> bytes:
    """Encodes the virtual host's routes with a condition on the host of each request."""
    regex = host_patterns.authority_regex(pattern)
    for entry in host.routes:
        entry.match.headers.add(name=":authority").string_match.safe_regex.regex = regex
    return messages.serialize(host)
