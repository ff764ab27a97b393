"""The groups of hosts that share a virtual host, and the size of the route table."""

from __future__ import annotations

from types import MappingProxyType

import pytest
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from hypothesis import given

from adsum.gateway.encoding.clusters.http_versions import ALL_HTTP1
from adsum.gateway.encoding.routes import host_groups
from adsum.gateway.encoding.routes.route_configuration import ANY_HOST, EncodedRoutes, route_configuration
from adsum.gateway.intent.actions import Target
from adsum.gateway.intent.matches import MatchKind, PathMatch
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.patterns import host_patterns
from adsum.gateway.route_check.route_order import RouteOrder
from tests.gateway import strategies

TO = (Target(Selector("orders")),)


def _routes(with_host: int, without: int, below: int = 0) -> list[Route]:
    """Returns routes with one host each, routes for any host, and routes for all hosts below example."""
    one = [Route(f"h{n}", hosts=(f"h{n}.example",), to=TO) for n in range(with_host)]
    any = [Route(f"a{n}", path=PathMatch(MatchKind.PREFIX, f"/a{n}"), to=TO) for n in range(without)]
    wild = [Route(f"w{n}", ("*.example",), PathMatch(MatchKind.PREFIX, f"/w{n}"), to=TO) for n in range(below)]
    return one + any + wild


def _encode(routes: list[Route]) -> RouteConfiguration:
    content = route_configuration(
        routes,
        {"orders": ALL_HTTP1},
        MappingProxyType({}),
        EncodedRoutes(),
        default_routes=True,
        behind_proxy=False,
    )
    return RouteConfiguration.FromString(content)


def _entries(routes: list[Route]) -> int:
    return sum(len(host.routes) for host in _encode(routes).virtual_hosts)


@pytest.mark.parametrize(
    ("with_host", "without", "below"), [(1_000, 100, 0), (300, 300, 0), (100, 1_000, 0), (1_000, 0, 100), (500, 50, 50)]
)
def test_the_table_grows_with_routes_and_not_with_hosts_times_routes(with_host: int, without: int, below: int) -> None:
    alone = sum(map(_entries, (_routes(with_host, 0), _routes(0, without), _routes(0, 0, below))))
    repeated = 4 * max(host_groups.MAX_REPEATED_ROUTES, with_host + without + below)
    assert _entries(_routes(with_host, without, below)) <= alone + 2 * repeated


def test_few_hosts_and_routes_have_a_virtual_host_for_each_host() -> None:
    configuration = _encode(_routes(20, 20))
    assert [list(host.domains) for host in configuration.virtual_hosts if len(host.domains) > 1] == []
    assert "h7.example" in [host.name for host in configuration.virtual_hosts]


def test_every_host_has_one_virtual_host_and_their_names_are_unique() -> None:
    virtual_hosts = _encode(_routes(300, 40)).virtual_hosts
    domains = [domain for host in virtual_hosts for domain in host.domains]
    assert len(domains) == len(set(domains))
    assert {f"h{n}.example" for n in range(300)} <= set(domains)
    assert len({host.name for host in virtual_hosts}) == len(virtual_hosts)


@given(strategies.route_sets(max_routes=8))
def test_the_routes_of_every_host_in_a_group_are_in_order(routes: tuple[Route, ...]) -> None:
    order = RouteOrder(routes)
    pairs = order.for_patterns(order.host_patterns)
    for host in (pattern.replace("*", "below") for pattern in order.host_patterns):
        matching = [route.name for route, pattern in pairs if not pattern or host_patterns.covers(pattern, host)]
        assert list(dict.fromkeys(matching)) == [route.name for route in order.for_host(host)]


def test_no_group_replaces_the_virtual_host_for_any_host() -> None:
    assert host_groups.group_hosts(RouteOrder(_routes(0, 10))) == []
    assert ANY_HOST in [host.name for host in _encode(_routes(0, 10)).virtual_hosts]
