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
from adsum.gateway.encoding.clusters.http_versions import ALL_HTTP1, Split, Splits
from adsum.gateway.encoding.routes import default_entries, host_groups
from adsum.gateway.encoding.routes.route_entries import edit, entries
from adsum.gateway.intent import default_routes
from adsum.gateway.intent.actions import HeaderEdits
from adsum.gateway.intent.default_routes import LOCAL
from adsum.gateway.intent.routes import Route
from adsum.gateway.patterns import host_patterns
from adsum.gateway.route_check import route_order

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
            known = self._known[route.name] = _Known(route, relevant, messages.serialized(host), {})
        return known.content

    def limited(self, route: Route, pattern: str, splits: Splits) -> bytes:
        """The same for hosts of that pattern alone ("": all), to stand beside routes for others."""
        content = self.of(route, splits)
        if not pattern:
            return content
        by_pattern = self._known[route.name].by_pattern
        if pattern not in by_pattern:
            by_pattern[pattern] = _limited(components.VirtualHost.FromString(content), pattern)
        return by_pattern[pattern]


class _Known(NamedTuple):
    route: Route
    splits: tuple[Split, ...]
    content: bytes
    by_pattern: dict[str, bytes]


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
    order = route_order.Order(declared)
    by_name = {route.name: encoded.of(route, splits) for route in declared}
    anywhere = [by_name[route.name] for route in order.anywhere()]
    by_path, by_host = list[bytes](), list[bytes]()
    if default_routes:
        message.cluster_specifier_plugins.extend(default_entries.specifiers())
        known = sorted(apart)
        by_path = [*(_by_path(each, apart[each]) for each in known), default_entries.by_path()]
        by_host = [*(_by_host(each, apart[each]) for each in known), default_entries.by_host()]
    parts = [messages.serialized(message)]
    for group in host_groups.groups(order):
        if len(group) == 1:
            parts.append(_host(group, [by_name[route.name] for route in order.of(group[0])]))
        else:
            parts.append(_host(group, [encoded.limited(*each, splits) for each in order.among(group)]))
    if by_host and LOCALS not in order.patterns:
        parts.append(_host([LOCALS], [*anywhere, *by_host]))
    parts.append(_host([ANY], [*anywhere, *by_path]))
    return b"".join(parts)


def _refused() -> Iterator[Any]:
    """Envoy's routes for requests that no route is asked about."""
    for refusal, header, comparison in (
        (direct_responses.NO_TRACE, ":method", {"exact": direct_responses.TRACE}),
        (direct_responses.SEVERAL_HOSTS, ":authority", {"contains": direct_responses.HOSTS}),
    ):
        entry = components.Route(match=components.RouteMatch(prefix="/"))
        entry.match.headers.add(name=header, string_match=comparison)
        entry.direct_response.status = refusal.status
        entry.direct_response.body.inline_string = refusal.why
        edit(HeaderEdits(set=refusal.headers), entry.response_headers_to_add, entry.response_headers_to_remove)
        yield entry


_REFUSED: Final = messages.serialized(components.VirtualHost(routes=_refused()))


def _host(patterns: Sequence[str], routes: Iterable[bytes]) -> bytes:
    """The virtual host of those patterns, as a field of the configuration."""
    # What no route is asked about is refused before any is.
    host = messages.serialized(components.VirtualHost(name=host_groups.name(patterns), domains=patterns)) + _REFUSED
    return messages.field(RouteConfiguration.VIRTUAL_HOSTS_FIELD_NUMBER, host + b"".join(routes))


@lru_cache(maxsize=KEPT)
def _by_path(service: str, split: Split) -> bytes:
    return messages.serialized(
        components.VirtualHost(routes=entries(default_routes.by_path(service), {service: split}))
    )


@lru_cache(maxsize=KEPT)
def _by_host(service: str, split: Split) -> bytes:
    """The service's default route by host, to stand with others in one virtual host.

    A virtual host for every service would have to repeat all the declared routes that take any host.
    """
    made = components.VirtualHost(routes=entries(default_routes.by_host(service), {service: split}))
    return _limited(made, service + LOCAL)


def _limited(host: Any, pattern: str) -> bytes:
    """Those routes, for hosts of that pattern alone."""
    for entry in host.routes:
        entry.match.headers.add(name=":authority").string_match.safe_regex.regex = host_patterns.authorities(pattern)
    return messages.serialized(host)
