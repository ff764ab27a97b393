from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adsum.gateway.intent.actions import Target
from adsum.gateway.intent.matches import HeaderMatch, MatchKind, PathMatch, QueryMatch
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.patterns import host_patterns
from adsum.gateway.route_check import route_order
from tests.gateway import strategies

TO = (Target(Selector("orders")),)
EXACT, PREFIX, REGEX = MatchKind.EXACT, MatchKind.PREFIX, MatchKind.REGEX


def test_the_more_specific_route_comes_first() -> None:
    routes = [
        Route("any", to=TO),
        Route("wild", hosts=("*.example",), to=TO),
        Route("longer-wild", hosts=("*.shop.example",), to=TO),
        Route("host", hosts=("a.shop.example",), to=TO),
        Route("host-prefix", hosts=("a.shop.example",), path=PathMatch(PREFIX, "/a"), to=TO),
        Route("host-longer", hosts=("a.shop.example",), path=PathMatch(PREFIX, "/a/b"), to=TO),
        Route("host-regex", hosts=("a.shop.example",), path=PathMatch(REGEX, "/.*"), to=TO),
        Route("host-exact", hosts=("a.shop.example",), path=PathMatch(EXACT, "/a"), to=TO),
        Route("host-method", hosts=("a.shop.example",), methods=("GET",), to=TO),
        Route("host-header", hosts=("a.shop.example",), headers=(HeaderMatch("a"),), to=TO),
        Route("host-query", hosts=("a.shop.example",), query=(QueryMatch("a"),), to=TO),
        Route("urgent", to=TO, priority=1),
        Route("last", hosts=("a.shop.example",), path=PathMatch(EXACT, "/a"), to=TO, priority=-1),
        Route("elsewhere", hosts=("b.example",), to=TO),
    ]
    assert [route.name for route in route_order.RouteOrder(reversed(routes)).for_host("a.shop.example")] == [
        "urgent",
        "host-exact",
        "host-regex",
        "host-longer",
        "host-prefix",
        "host-method",
        "host-header",
        "host-query",
        "host",
        "longer-wild",
        "wild",
        "any",
        "last",
    ]


@given(st.permutations([Route(name, to=TO) for name in "dbca"]))
def test_equally_specific_routes_are_ordered_by_name(routes: list[Route]) -> None:
    assert [route.name for route in route_order.RouteOrder(routes).for_any_host()] == ["a", "b", "c", "d"]


@given(
    strategies.route_sets(max_routes=12), strategies.host_patterns | st.sampled_from(["x.shop.example", "*.x.example"])
)
def test_the_routes_for_a_host_are_all_that_match_it(routes: tuple[Route, ...], host: str) -> None:
    found = route_order.RouteOrder(routes).for_host(host)
    assert {route.name for route in found} == {
        route.name for route in routes if host_patterns.rank(route.hosts, host) is not None
    }
    assert found == route_order.RouteOrder(reversed(routes)).for_host(host)
