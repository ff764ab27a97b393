from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.core.errors import Invalid
from adsum.gateway.intent import default_routes
from adsum.gateway.intent.actions import (
    FAILURE_CONDITIONS,
    UNSENT_CONDITIONS,
    HashPolicy,
    HeaderEdits,
    Mirror,
    RateLimit,
    Redirect,
    Retries,
    RetryOn,
    Target,
)
from adsum.gateway.intent.cors import Cors
from adsum.gateway.intent.intent import Intent
from adsum.gateway.intent.matches import HeaderMatch, MatchKind, PathMatch, QueryMatch
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.intent.upstreams import LbPolicy, OutlierSettings, Upstream, UpstreamLimits, UpstreamTls
from adsum.gateway.patterns import host_patterns
from adsum.gateway.patterns.path_normalization import has_nul, normalize
from adsum.gateway.route_check import path_rewrites, route_order
from adsum.gateway.route_check.route_check import CheckedRequest, check_route
from tests.gateway import strategies
from tests.gateway.echo_services import listing

TO = (Target(Selector("orders")),)
EXACT, PREFIX, REGEX, PRESENT = MatchKind.EXACT, MatchKind.PREFIX, MatchKind.REGEX, MatchKind.PRESENT


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Route("no name", to=TO), "name"),
        (lambda: Route("r"), "to"),
        (lambda: Route("r", to=TO, redirect=Redirect(path="/x")), "to"),
        (lambda: Route("r", to=TO * 2), "to"),
        (lambda: Route("r", to=(Target(Selector("a"), 0),)), "to"),
        (lambda: Route("r", to=TO, hosts=("Shop.example",)), "hosts[0]"),
        (lambda: Route("r", to=TO, hosts=("shop.example:80",)), "hosts[0]"),
        (lambda: Route("r", to=TO, hosts=("a", "*")), "hosts[1]"),
        (lambda: Route("r", to=TO, hosts=("a", "a")), "hosts"),
        (lambda: Route("r", to=TO, methods=("get",)), "methods[0]"),
        (lambda: Route("r", to=TO, methods=("GET", "CONNECT")), "methods[1]"),
        (lambda: Route("r", to=TO, methods=tuple("A" * n for n in range(10, 18))), "methods"),
        (lambda: Route("r", to=TO, rewrite="x"), "rewrite"),
        (lambda: Route("r", to=TO, rewrite="/x?y"), "rewrite"),
        (lambda: Route("r", to=TO, rewrite=r"/\1"), "rewrite"),
        (lambda: Route("r", to=TO, path=PathMatch(REGEX, "/(a)"), rewrite=r"/\2"), "rewrite"),
        (lambda: Route("r", to=TO, timeout=0.0), "timeout"),
        (lambda: Route("r", to=TO, timeout=1.0, try_timeout=2.0), "try_timeout"),
        (lambda: Route("r", to=TO, max_body=0), "max_body"),
        (lambda: Route("r", to=TO, retry_body=2**30), "retry_body"),
        (lambda: Route("r", to=TO, priority=5000), "priority"),
        (lambda: Route("r", redirect=Redirect(path="/x"), rewrite="/y"), "rewrite"),
        (lambda: Route("r", redirect=Redirect(path="/x"), rate_limit=RateLimit(1)), "rate_limit"),
        (lambda: Route("r", redirect=Redirect(prefix="/x"), path=PathMatch(EXACT, "/y")), "redirect.prefix"),
        (lambda: PathMatch(PREFIX, "orders"), "prefix"),
        (lambda: PathMatch(EXACT, "/a#b"), "exact"),
        (lambda: PathMatch(REGEX, "("), "regex"),
        (lambda: PathMatch(PRESENT, ""), ""),
        (lambda: HeaderMatch("X-A"), "name"),
        (lambda: HeaderMatch("a b"), "name.'a b'"),
        (lambda: HeaderMatch("a", PRESENT, "x"), "present"),
        (lambda: HeaderMatch("a", PREFIX), "prefix"),
        (lambda: QueryMatch("a=b"), "name"),
        (lambda: QueryMatch("a", PREFIX, "b"), ""),
        (lambda: Selector("Orders"), "service"),
        (lambda: Selector("orders", ("a",), without_tags=("a",)), "without_tags"),
        (lambda: Selector("orders", metadata={"v": "1"}, without_metadata={"v": "1"}), "without_metadata"),
        (lambda: Redirect(), ""),
        (lambda: Redirect(status=200, path="/"), "status"),
        (lambda: Redirect(path="/a", prefix="/b"), "prefix"),
        (lambda: Redirect(host="*.a"), "host"),
        (lambda: Retries(11), "attempts"),
        (lambda: Mirror(Selector("a"), 1.5), "share"),
        (lambda: HeaderEdits(set={"Host": "a"}), "set.host"),
        (lambda: HeaderEdits(remove=("a", "A")), "remove"),
        (lambda: HeaderEdits(add={"a": "x\ny"}), "add.a"),
        (lambda: RateLimit(10, burst=5), "burst"),
        (lambda: RateLimit(10, 0.01), "per"),
        (lambda: HashPolicy(), ""),
        (lambda: HashPolicy("a", "b"), ""),
        (lambda: HashPolicy("a", ttl=5.0), "ttl"),
        (lambda: HashPolicy(cookie="a b"), "cookie"),
        (lambda: Cors(()), "origins"),
        (lambda: Cors(("shop.example",)), "origins[0]"),
        (lambda: Cors(("*",), credentials=True), "credentials"),
        (lambda: Cors(("https://*." + "a" * 70,)), "origins[0]"),
        (lambda: Upstream("a", panic_threshold=2.0), "panic_threshold"),
        (lambda: Upstream("a", LbPolicy.MAGLEV, slow_start=5.0), "slow_start"),
        (lambda: OutlierSettings(max_share=-0.1), "max_share"),
        (lambda: UpstreamLimits(connections=0), "connections"),
        (lambda: UpstreamTls(ca="relative.pem"), "ca"),
        (lambda: UpstreamTls(name="*.example"), "name"),
    ],
)
def test_an_invalid_value_is_refused_with_its_field(make: Any, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        make()
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("path", "taken"),
    [("/orders", True), ("/orders/", True), ("/orders/7", True), ("/orders7", False), ("/order", False), ("/", False)],
)
def test_a_prefix_matches_whole_segments(path: str, taken: bool) -> None:
    assert PathMatch(PREFIX, "/orders").matches(path) is taken
    assert PathMatch(PREFIX, "/orders/").matches(path) is taken


@pytest.mark.parametrize(
    ("host", "taken"),
    [("a.shop.example", True), ("b.a.shop.example", True), ("shop.example", False), ("ashop.example", False)],
)
def test_a_wildcard_matches_any_depth_below_its_name(host: str, taken: bool) -> None:
    assert host_patterns.covers("*.shop.example", host) is taken


def test_the_host_of_an_authority_has_no_port_and_lower_case() -> None:
    assert [host_patterns.host_of_authority(authority) for authority in ("A.b:80", "[::1]:80", "[::1]", "a")] == [
        "a.b",
        "[::1]",
        "[::1]",
        "a",
    ]


@pytest.mark.parametrize(
    ("stem", "prefix", "path", "after"),
    [
        ("/a", "/", "/a", "/"),
        ("/a", "/", "/a/", "/"),
        ("/a", "/", "/a/x", "/x"),
        ("/a", "/", "/a//x", "//x"),
        ("/a", "/b", "/a", "/b"),
        ("/a", "/b", "/a/x", "/b/x"),
        ("/a", "/b/", "/a/x", "/b/x"),
        ("", "/b", "/x", "/b/x"),
        ("", "/b", "/", "/b/"),
    ],
)
def test_a_slash_is_neither_doubled_nor_lost(stem: str, prefix: str, path: str, after: str) -> None:
    assert path_rewrites.replace_prefix(stem, prefix, path) == after


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("/a/../b", "/b"),
        ("/a/./b/", "/a/b/"),
        ("/..", "/"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/%61", "/a"),
        ("/%2F", "/%2F"),
        ("/a//b", "/a//b"),
        ("/%2e%2e/x", "/x"),
        ("/a\\b", "/a/b"),
        ("/a/..;x/b", "/b"),
        ("/a/.;/b", "/a/b"),
        ("/a/%2e%2e;/b", "/a/..;/b"),
        ("/a\\..;", "/a/..;"),
        ("/a;x/b", "/a;x/b"),
        ('/{id}/"<^`|>', "/%7Bid%7D/%22%3C%5E%60%7C%3E"),
        ("/%zz%", "/%zz%"),
        ("/%%41%41", "/%25AA"),
        ("/%2%41", "/%252A"),
    ],
)
def test_paths_are_normalized_as_envoy_does(path: str, read: str) -> None:
    assert normalize(path) == read


@pytest.mark.parametrize("kind", [EXACT, PREFIX])
@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("/x/../y", "/y"),
        ("/caf%65", "/cafe"),
        ("/a\\b", "/a/b"),
        ("/users/{id}", "/users/%7Bid%7D"),
        ("/a|b", "/a%7Cb"),
    ],
)
def test_a_path_that_is_not_normalized_is_refused_with_the_normalized_one(
    kind: MatchKind, written: str, read: str
) -> None:
    with pytest.raises(Invalid, match=f"{kind.value}: .* to {re.escape(read)}; write that"):
        PathMatch(kind, written)
    assert PathMatch(kind, read).matches(normalize(written))


@pytest.mark.parametrize("kind", [EXACT, PREFIX])
def test_a_path_with_a_zero_byte_is_refused(kind: MatchKind) -> None:
    with pytest.raises(Invalid, match=f"{kind.value}: .*zero byte"):
        PathMatch(kind, "/a%00b")
    assert has_nul("/a/%00/../b")
    assert not has_nul("/..;%00/x"), "it goes with the parameters"
    assert not has_nul("/%2500")


def test_an_ipv6_host_must_have_its_canonical_form() -> None:
    host_patterns.check_host_pattern("hosts[0]", "[::1]")
    with pytest.raises(Invalid, match=re.escape("canonical form [::1]")):
        host_patterns.check_host_pattern("hosts[0]", "[0:0:0:0:0:0:0:1]")
    for wrong in ("[::1", "::1", "[::g]", "[]", "*.[::1]"):
        with pytest.raises(Invalid):
            host_patterns.check_host_pattern("hosts[0]", wrong)


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
def test_routes_that_are_alike_are_ordered_by_name(routes: list[Route]) -> None:
    assert [route.name for route in route_order.RouteOrder(routes).for_any_host()] == ["a", "b", "c", "d"]


def test_unsent_requests_are_always_retried_and_failures_when_it_is_safe() -> None:
    assert Retries().conditions(idempotent=True) == UNSENT_CONDITIONS + FAILURE_CONDITIONS
    assert Retries().conditions(idempotent=False) == UNSENT_CONDITIONS
    assert Retries(unsafe=True).conditions(idempotent=False) == UNSENT_CONDITIONS + FAILURE_CONDITIONS
    assert Retries(on=(RetryOn.ANY_5XX,)).conditions(idempotent=True) == (*UNSENT_CONDITIONS, RetryOn.ANY_5XX)
    assert Retries(0).conditions(idempotent=True) == ()


def test_a_selector_has_a_name_that_describes_it() -> None:
    assert Selector("orders").name == "orders"
    assert Selector("orders", ("b", "a")).name == Selector("orders", ("a", "b")).name == "orders?tag=a&tag=b"
    assert Selector("orders", metadata={"version": "2", "a": "x&y=z"}).name == "orders?a=x%26y%3Dz&version=2"
    assert Selector("orders", metadata={"tag": "a"}).name != Selector("orders", ("a",)).name
    assert Selector("orders", without_tags=("b", "a")).name == "orders?tag!=a&tag!=b"
    without = Selector("orders", ("a",), without_metadata={"version": "2", "tag": "x"})
    assert without.name == "orders?tag=a&%74ag!=x&version!=2"


def test_a_selector_with_without_selects_instances_that_lack_it() -> None:
    canary, plain = (listing("orders", id, tags=tags).instance for id, tags in (("o1", ("canary",)), ("o2", ("a",))))
    second, none = (
        listing("orders", id, metadata=says).instance for id, says in (("o3", {"version": "2"}), ("o4", {}))
    )
    shy = Selector("orders", without_tags=("canary", "b"))
    assert [shy.selects(instance) for instance in (canary, plain, none)] == [False, True, True]
    old = Selector("orders", without_metadata={"version": "2"})
    assert [old.selects(instance) for instance in (second, plain, none)] == [False, True, True]
    assert not shy.selects_all
    assert not old.selects_all


def test_default_routes_do_not_apply_to_hosts_of_declared_routes() -> None:
    declared = [Route("r", hosts=("*.shop.example", "api.example"), to=TO), Route("any", to=TO)]
    assert not default_routes.apply_to_host("a.shop.example", declared)
    assert not default_routes.apply_to_host("api.example", declared)
    assert default_routes.apply_to_host("localhost", declared)
    with pytest.raises(Invalid, match="default:"):
        default_routes.check_declared_name("name", "default:orders")


def test_a_missing_header_counts_as_empty_for_an_inverted_condition() -> None:
    assert HeaderMatch("a", EXACT, "1", invert=True).matches(None)
    assert not HeaderMatch("a", REGEX, ".*", invert=True).matches(None)
    assert not HeaderMatch("a", EXACT, "").matches(None)
    assert HeaderMatch("a", PRESENT, invert=True).matches(None)


def test_blanks_around_a_headers_value_are_not_part_of_it() -> None:
    route = Route("r", headers=(HeaderMatch("x-v", EXACT, "1,2"),), to=(Target(Selector("orders")),))
    request = CheckedRequest(headers=(("X-V", " \t1"), ("x-v", "2\t")))
    assert check_route(Intent((route,)), {"orders"}, request).route == route


def test_origins_below_a_wildcard_are_allowed() -> None:
    cors = Cors(("https://*.shop.example", "http://localhost:3000"))
    assert cors.allows("https://a.b.shop.example")
    assert cors.allows("http://localhost:3000")
    assert not cors.allows("https://shop.example")
    assert not cors.allows("http://a.shop.example")
    assert not cors.allows("https://a.shop.example.evil")
    assert not cors.allows("https://evil/.shop.example")


@given(strategies.route_sets(most=12), strategies.host_patterns | st.sampled_from(["x.shop.example", "*.x.example"]))
def test_the_routes_for_a_host_are_all_that_match_it(routes: tuple[Route, ...], host: str) -> None:
    found = route_order.RouteOrder(routes).for_host(host)
    assert {route.name for route in found} == {
        route.name for route in routes if host_patterns.rank(route.hosts, host) is not None
    }
    assert found == route_order.RouteOrder(reversed(routes)).for_host(host)
