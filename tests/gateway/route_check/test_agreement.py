"""The route check and a real Envoy agree on the same requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from adsum.core.catalog import snapshots
from adsum.core.catalog.changes import FullState
from adsum.core.model import Listing
from adsum.gateway.encoding.routes import host_groups
from adsum.gateway.intent import default_routes
from adsum.gateway.intent.actions import Redirect, Target
from adsum.gateway.intent.cors import Cors
from adsum.gateway.intent.intent import Intent
from adsum.gateway.intent.matches import HeaderMatch, MatchKind, PathMatch, QueryMatch
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources.compiled_resources import NO_RESOURCES
from adsum.gateway.resources.resource_encoder import MAX_OWN_DEFAULT_ROUTES
from adsum.gateway.route_check.route_check import CheckedRequest, Verdict, check_route
from tests.gateway import strategies
from tests.gateway.echo_services import echo_service, listing
from tests.gateway.real_envoy import GatewayConnection, free_port, needs_envoy, running_envoy

pytestmark = needs_envoy

EXACT, PREFIX, REGEX = MatchKind.EXACT, MatchKind.PREFIX, MatchKind.REGEX


def to(service: str, weight: int = 1, **selected: Any) -> Target:
    return Target(Selector(service, **selected), weight)


ROUTES = (
    Route("exact", path=PathMatch(EXACT, "/a/b"), to=(to("users"),), rewrite="/exact"),
    Route("prefix", path=PathMatch(PREFIX, "/a"), to=(to("users"),), rewrite="/"),
    Route("longer", path=PathMatch(PREFIX, "/a/b/c/"), to=(to("orders"),), rewrite="/new/"),
    Route("regex", path=PathMatch(REGEX, r"/o/([0-9]+)(/.*)?"), to=(to("orders"),), rewrite=r"/n\2/\1"),
    Route("posts", path=PathMatch(PREFIX, "/m"), methods=("POST", "PATCH", "PUT"), to=(to("users"),)),
    Route(
        "canary",
        path=PathMatch(PREFIX, "/m"),
        headers=(HeaderMatch("x-canary", EXACT, "1"),),
        to=(to("orders", tags=("canary",)),),
    ),
    Route(
        "not-canary",
        path=PathMatch(PREFIX, "/m"),
        headers=(HeaderMatch("x-canary", PREFIX, "0", invert=True),),
        to=(to("users"),),
    ),
    Route("absent", path=PathMatch(PREFIX, "/h"), headers=(HeaderMatch("x-canary", invert=True),), to=(to("users"),)),
    Route(
        "present",
        path=PathMatch(PREFIX, "/h"),
        headers=(HeaderMatch("x-canary"),),
        query=(QueryMatch("v"),),
        to=(to("users"),),
    ),
    Route("query", path=PathMatch(PREFIX, "/h"), query=(QueryMatch("v", REGEX, "[0-9]+"),), to=(to("orders"),)),
    Route("split", path=PathMatch(PREFIX, "/s"), to=(to("orders", 1), to("users", 3)), rewrite="/split"),
    Route("away", path=PathMatch(PREFIX, "/away"), redirect=Redirect(scheme="https", prefix="/here/", status=308)),
    Route("moved", path=PathMatch(EXACT, "/moved"), redirect=Redirect(host="new.example", port=8443, path="/m")),
    Route("shop", hosts=("shop.example",), path=PathMatch(PREFIX, "/a"), to=(to("orders"),)),
    Route("shops", hosts=("*.shop.example", "*.example"), to=(to("users"),)),
    Route(
        "first",
        path=PathMatch(PREFIX, "/"),
        headers=(HeaderMatch("x-first", EXACT, "yes"),),
        to=(to("users"),),
        priority=9,
    ),
    Route(
        "preflight",
        path=PathMatch(PREFIX, "/cors"),
        methods=("PUT",),
        to=(to("users"),),
        cors=Cors(("https://*.shop.example",), ("PUT",)),
    ),
    Route("empty", path=PathMatch(PREFIX, "/empty"), to=(to("nobody"),)),
)


class ComparedGateway:
    """An Envoy with routes to two echo services, and to `crowd` other services that get no requests."""

    def __init__(self, intent: Intent, folder: Path, crowd: int = 0) -> None:
        self.intent = intent
        self.services: set[str] = set()
        self._stack = ExitStack()
        listings = [self._listing("orders", "o1", "canary"), self._listing("users", "u1")]
        listings += [listing(f"other-{n}", "x", 1) for n in range(crowd)]
        snapshot = snapshots.load_snapshot(FullState("e", 1, [(1, item) for item in listings]))
        self.services = set(snapshot.services)
        profile = GatewayProfile((f"127.0.0.1:{free_port()}",), access_log="off")
        compiled = NO_RESOURCES.advance(snapshot, intent, {})
        self._stack.enter_context(running_envoy(compiled, profile, folder))
        self._caller = GatewayConnection(profile)
        self._stack.callback(self._caller.close)

    def _listing(self, service: str, id: str, *tags: str) -> Listing:
        return listing(service, id, self._stack.enter_context(echo_service(id)), tags=tags)

    def close(self) -> None:
        self._stack.close()

    def check(self, request: CheckedRequest) -> Verdict:
        """Sends the request to both and compares the answers."""
        verdict = check_route(self.intent, self.services, request)
        response, body = self._caller(request.method, request.path, request.host, request.headers)
        context = (
            request,
            response.status,
            response.getheader("x-route"),
            response.getheader("location"),
            body,
            verdict,
        )
        if verdict.route is None:
            assert response.status == verdict.status, context
            assert response.getheader("x-route") in (
                None,
                "",
                default_routes.PATH_ROUTE_NAME,
                default_routes.HOST_ROUTE_NAME,
            ), context
            return verdict
        if verdict.is_preflight:
            assert (response.status, response.getheader("x-route")) == (200, None), context
            assert response.getheader("access-control-allow-origin"), context
            return verdict
        assert response.getheader("x-route") == verdict.route.name, context
        if verdict.route.redirect is not None:
            assert (response.status, response.getheader("location")) == (verdict.status, verdict.location), context
        elif response.status == 200 and request.method != "HEAD":
            content = json.loads(body)
            assert content["path"] == verdict.path, context
            assert content["id"][0] in {destination.selector.service[0] for destination in verdict.destinations}, (
                context
            )
        return verdict


@contextmanager
def grouped_hosts(*, shared: bool) -> Iterator[None]:
    """If `shared`, all hosts share one virtual host, as they do with many routes for any host."""
    with patch.object(host_groups, "MAX_REPEATED_ROUTES", 1 if shared else host_groups.MAX_REPEATED_ROUTES):
        yield


@pytest.fixture(
    scope="module",
    params=[(0, False), (MAX_OWN_DEFAULT_ROUTES, False), (0, True)],
    ids=["few-services", "many-services", "shared-hosts"],
)
def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComparedGateway]:
    """A gateway with few services, which have default routes of their own, or with many, which one pattern finds."""
    crowd, shared = request.param
    with grouped_hosts(shared=shared):
        gateway = ComparedGateway(Intent(ROUTES), tmp_path_factory.mktemp("gateway"), crowd)
    yield gateway
    gateway.close()


segments = st.sampled_from(
    ["a", "b", "c", "o", "7", "m", "h", "s", "away", "orders", "users", "", ".", "..", "%61", "x%2Fy", "A"]
)
usual = st.lists(segments, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
odd = st.sampled_from(
    ["..;", ".;", "..;x", "%2e%2e", "%2E", "%5c", "\\", "/", "%", "%2", "%zz", "%252e", "%41", ";a=b"]
)
sent = st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="?#")
strange = st.lists(st.one_of(segments, odd, odd, sent), min_size=1, max_size=8).map(lambda parts: "/" + "".join(parts))
paths = st.one_of(usual, strange)
queries = st.sampled_from(["", "", "?v=1", "?v=x", "?v", "?w=1&v=22", "?v=x&v=1", "?"])
hosts = st.sampled_from(
    ["localhost", "Shop.Example:8080", "shop.example", "a.shop.example", "b.a.shop.example", "example", "x.example"]
) | st.sampled_from(
    ["orders.localhost", "Users.Localhost:80", "nobody.localhost", "unknown.localhost", "a.orders.localhost"]
)
origins = st.sampled_from(["https://a.shop.example", "https://evil.example"])
pairs = st.one_of(
    st.sampled_from([("x-canary", "1"), ("X-Canary", "01"), ("x-canary", ""), ("x-first", "yes")]),
    st.tuples(st.just("origin"), origins),
    st.just(("access-control-request-method", "PUT")),
)
headers = st.lists(pairs, max_size=3, unique_by=lambda pair: pair[0].lower()).map(tuple)
methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
requests = st.builds(CheckedRequest, methods, hosts, st.tuples(paths, queries).map("".join), headers)


@given(requests)
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(CheckedRequest(path="/away"))
@example(CheckedRequest(path="/away/x?y=1", host="localhost:80"))
@example(CheckedRequest(path="/away//x", host="localhost:8080"))
@example(CheckedRequest(path="/moved?x", host="localhost:80"))
@example(CheckedRequest(path="/a"))
@example(CheckedRequest(path="/a/"))
@example(CheckedRequest(path="/a//x"))
@example(CheckedRequest(path="/a/b/c"))
@example(CheckedRequest(path="/a/b/c/d"))
@example(CheckedRequest(path="/o/7"))
@example(CheckedRequest(path="/o/7/x"))
@example(CheckedRequest(path="/orders"))
@example(CheckedRequest(path="/orders/"))
@example(CheckedRequest(path="/orders/../users/x"))
@example(CheckedRequest(path="/orders/%2e%2e/users"))
@example(CheckedRequest(path="/users/..;/orders/a"))
@example(CheckedRequest(path="/users/..;x\\..;/orders/.;x=1/a"))
@example(CheckedRequest(path="/orders/%%41%2%41|{}"))
@example(
    CheckedRequest(
        "OPTIONS",
        path="/cors",
        headers=(("origin", "https://a.shop.example"), ("access-control-request-method", "PUT")),
    )
)
@example(
    CheckedRequest(
        "OPTIONS", path="/cors", headers=(("origin", "https://evil.example"), ("access-control-request-method", "PUT"))
    )
)
@example(CheckedRequest("OPTIONS", path="/cors"))
@example(CheckedRequest(path="/a%00"))
@example(CheckedRequest(path="/a/%00/../b?x=%00"))
@example(CheckedRequest(path="/..;%00/a?x=%00"))
@example(CheckedRequest("TRACE", path="/%00", host="shop.example,localhost"))
@example(CheckedRequest("TRACE", path="/a"))
@example(CheckedRequest("TRACE", path="/away", host="shop.example"))
@example(CheckedRequest(path="/orders/a", host="orders.localhost.localhost"))
@example(CheckedRequest(path="/orders/a", host="orders.localhost:8x"))
@example(CheckedRequest(path="/orders/a", host=".localhost"))
@example(CheckedRequest(path="/orders/a", host="x.orders.localhost"))
@example(CheckedRequest(path="/a", host="shop.example:8x"))
@example(CheckedRequest(path="/a", host="shop.example:"))
@example(CheckedRequest(path="/a", host="shop.example,localhost"))
@example(CheckedRequest(path="/a", host="localhost, a.shop.example"))
@example(CheckedRequest("PUT", path="/cors", headers=(("origin", "https://evil.example"),)))
def test_a_route_check_agrees_with_envoy(gateway: ComparedGateway, request: CheckedRequest) -> None:
    gateway.check(request)


def redirecting(route: Route) -> Route:
    """Returns a route with the same conditions that redirects to its own name, so that no service is needed."""
    conditions = {name: getattr(route, name) for name in ("hosts", "path", "methods", "headers", "query", "priority")}
    return Route(route.name, redirect=Redirect(path=f"/{route.name}"), **conditions)


any_paths = st.one_of(paths, strategies.plain_paths, st.sampled_from(["/o/12", "/a/x", "/xxy", "/word", "/v1"]))
any_headers = st.lists(
    st.tuples(strategies.tokens, strategies.values | st.sampled_from(["v1", "1", "42", ""])),
    max_size=3,
    unique_by=lambda pair: pair[0],
).map(tuple)
any_queries = st.lists(st.tuples(strategies.tokens, st.sampled_from(["v1", "7", "", "abab"])), max_size=2).map(
    lambda pairs: "?" + "&".join(f"{name}={value}" for name, value in pairs) if pairs else ""
)
any_requests = st.builds(
    CheckedRequest,
    strategies.methods,
    hosts | st.sampled_from(["[::1]:80", "10.0.0.1", "a.example"]),
    st.tuples(any_paths, any_queries).map("".join),
    any_headers.map(lambda pairs: tuple((name, value.strip()) for name, value in pairs)),
)


@pytest.mark.parametrize("shared", [False, True], ids=["one-host-each", "shared-hosts"])
@given(routes=strategies.route_sets(max_routes=12), requests=st.lists(any_requests, min_size=40, max_size=60))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_envoy_compares_any_routes_in_the_order_of_the_route_check(
    tmp_path: Path, routes: tuple[Route, ...], requests: list[CheckedRequest], shared: bool
) -> None:
    with grouped_hosts(shared=shared):
        gateway = ComparedGateway(Intent(tuple(map(redirecting, routes))), tmp_path)
    try:
        for request in requests:
            gateway.check(request)
    finally:
        gateway.close()
