"""Hypothesis strategies for routes, upstreams and whole intents."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from hypothesis import strategies as st

from adsum.core import model
from adsum.gateway.intent import actions, routes, upstreams
from adsum.gateway.intent.actions import HashPolicy, HeaderEdits, Mirror, RateLimit, Redirect, Retries, RetryOn, Target
from adsum.gateway.intent.cors import Cors
from adsum.gateway.intent.intent import Intent
from adsum.gateway.intent.matches import HeaderMatch, MatchKind, PathMatch, QueryMatch
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.intent.upstreams import (
    LbPolicy,
    OutlierSettings,
    Upstream,
    UpstreamLimits,
    UpstreamProtocol,
    UpstreamTls,
)
from tests.support.strategies import durations, ids, metadata, texts

SERVICES = ("orders", "users", "web")

services = st.sampled_from(SERVICES)
patterns = st.one_of(
    st.sampled_from(["/o/[0-9]+", "/(a|b)/.*", r"/\w+", "/x{2,5}y?", "/[^/]*", "v[1-9]", ".*", "(ab)*c+?", r"\d{1,3}"]),
    st.from_regex(r"/(([a-z]{1,3}|\.|\[a-z\]|\(\?:x\|y\))[*+?]?){0,6}", fullmatch=True),
)
host_patterns = st.sampled_from(
    [
        "shop.example",
        "*.shop.example",
        "*.example",
        "a.shop.example",
        "localhost",
        "orders.localhost",
        "[::1]",
        "10.0.0.1",
    ]
)
plain_paths = st.sampled_from(["/", "/orders", "/orders/", "/a", "/a/b", "/a/b/", "/x%20y", "/~it's"])
tokens = st.sampled_from(["x-canary", "x-user", "user-agent", "accept", "x-a"])
values = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=12)
methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
shares = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.0, 1.0))

paths = st.one_of(
    st.builds(PathMatch, st.sampled_from([MatchKind.EXACT, MatchKind.PREFIX]), plain_paths),
    st.builds(PathMatch, st.just(MatchKind.REGEX), patterns),
)


def _matches(match: Any, kinds: list[MatchKind], **more: Any) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(match, tokens, **more),
        st.builds(match, tokens, st.sampled_from(kinds), values, **more),
        st.builds(match, tokens, st.just(MatchKind.REGEX), patterns, **more),
    )


headers = _matches(HeaderMatch, [MatchKind.EXACT, MatchKind.PREFIX], invert=st.booleans())
queries = _matches(QueryMatch, [MatchKind.EXACT])
_tags = st.lists(texts(20, min_size=1), max_size=2, unique=True).map(tuple)
_pairs = st.one_of(metadata, st.just(MappingProxyType({"tag": "x"})))


@st.composite
def _selectors(draw: st.DrawFn) -> Selector:
    tags, pairs = draw(_tags), draw(_pairs)
    without = tuple(tag for tag in draw(_tags) if tag not in tags)
    missing = {key: value for key, value in draw(_pairs).items() if pairs.get(key) != value}
    return Selector(draw(services), tags, pairs, without, model.freeze(missing))


selectors = _selectors()
targets = st.lists(
    st.builds(Target, selectors, st.integers(1, actions.MAX_TARGET_WEIGHT)),
    min_size=1,
    max_size=3,
    unique_by=lambda to: to.selector.name,
).map(tuple)
redirects = st.one_of(
    st.builds(Redirect, st.just("https"), st.just(""), st.none() | st.integers(1, 65_535), st.just("") | plain_paths),
    st.builds(Redirect, host=st.just("shop.example"), status=st.sampled_from(actions.REDIRECT_STATUSES)),
)
retries = st.builds(
    Retries,
    st.integers(0, actions.MAX_RETRY_ATTEMPTS),
    st.booleans(),
    st.lists(st.sampled_from(RetryOn), unique=True).map(tuple),
)
edits = st.builds(
    HeaderEdits,
    st.dictionaries(tokens, values, max_size=2).map(model.freeze),
    st.dictionaries(tokens, values | st.just(""), max_size=2).map(model.freeze),
    st.lists(tokens, max_size=2, unique=True).map(tuple),
)
origins = st.sampled_from(["https://shop.example", "https://*.shop.example", "http://localhost:3000"])
cors = st.builds(
    Cors,
    st.lists(origins, min_size=1, unique=True).map(tuple),
    headers=st.lists(tokens, max_size=2, unique=True).map(tuple),
    max_age=durations(0.0, 86_400.0),
    credentials=st.booleans(),
)
rate_limits = st.builds(
    RateLimit,
    st.integers(1, 100),
    durations(actions.MIN_FILL_INTERVAL, actions.MAX_FILL_INTERVAL),
    st.none() | st.integers(100, 200),
)
hashes = st.one_of(st.builds(HashPolicy, tokens), st.builds(HashPolicy, cookie=st.just("sid"), ttl=durations(0.0, 1e6)))
timeouts = st.none() | durations(routes.MIN_ROUTE_TIMEOUT, 60.0)
max_bodies = st.none() | st.integers(1, routes.MAX_BODY_BYTES)


@st.composite
def any_routes(draw: st.DrawFn, names: st.SearchStrategy[str] = ids) -> Route:
    """Any route, forwarding or redirecting."""
    fields: dict[str, Any] = {
        "hosts": tuple(draw(st.lists(host_patterns, max_size=2, unique=True))),
        "path": draw(paths),
        "methods": tuple(draw(st.lists(methods, max_size=3, unique=True))),
        "headers": tuple(draw(st.lists(headers, max_size=2))),
        "query": tuple(draw(st.lists(queries, max_size=2))),
        "request_headers": draw(edits),
        "response_headers": draw(edits),
        "cors": draw(st.none() | cors),
        "retries": draw(retries),
        "priority": draw(st.integers(-2, 2)),
    }
    if draw(st.integers(0, 4)) == 0:
        return Route(draw(names), redirect=draw(redirects), **fields)
    timeout, rewrite = draw(timeouts), draw(st.none() | plain_paths)
    return Route(
        draw(names),
        to=draw(targets),
        rewrite=rewrite,
        timeout=timeout,
        try_timeout=None if timeout is None else draw(st.none() | st.just(timeout)),
        idle_timeout=draw(timeouts),
        mirror=draw(st.none() | st.builds(Mirror, selectors, shares)),
        max_body=draw(max_bodies),
        retry_body=draw(max_bodies),
        rate_limit=draw(st.none() | rate_limits),
        hash=draw(st.none() | hashes),
        **fields,
    )


def _names(index: int) -> st.SearchStrategy[str]:
    return st.just(f"r{index}")


@st.composite
def route_sets(draw: st.DrawFn, max_routes: int = 5) -> tuple[Route, ...]:
    """Up to `max_routes` routes with different names."""
    return tuple(draw(any_routes(_names(n))) for n in range(draw(st.integers(0, max_routes))))


@st.composite
def any_upstreams(draw: st.DrawFn, service: st.SearchStrategy[str] = services) -> Upstream:
    """Any upstream."""
    policy = draw(st.sampled_from(LbPolicy))
    has_slow_start = policy in (LbPolicy.ROUND_ROBIN, LbPolicy.LEAST_REQUEST)
    limits = st.integers(1, upstreams.MAX_UPSTREAM_LIMIT)
    return Upstream(
        draw(service),
        policy,
        draw(st.sampled_from(UpstreamProtocol)),
        draw(shares),
        draw(durations(0.0, 60.0)) if has_slow_start else 0.0,
        draw(durations(0.01, 60.0)),
        draw(st.builds(OutlierSettings, st.integers(0, 1_000), durations(0.1, 60.0), durations(0.1, 60.0), shares)),
        draw(st.builds(UpstreamLimits, limits, limits, limits, st.integers(0, upstreams.MAX_UPSTREAM_LIMIT), shares)),
        draw(st.builds(UpstreamTls, st.booleans(), st.just(""), st.sampled_from(["", "orders.example"]))),
        draw(st.integers(upstreams.MIN_HASH_SIZE, upstreams.MAX_HASH_SIZE)),
        draw(durations(0.1, 60.0)),
    )


@st.composite
def intents(draw: st.DrawFn) -> Intent:
    """Any intent: routes and upstreams."""
    named = draw(st.lists(any_upstreams(), max_size=2, unique_by=lambda upstream: upstream.service))
    return Intent(draw(route_sets()), MappingProxyType({upstream.service: upstream for upstream in named}))
