from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from adsum.core.errors import Invalid
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.upstreams import Upstream
from adsum.wire.codec import decode, encode
from adsum.wire.documents import IntentBody
from adsum.wire.routes import RouteBody
from adsum.wire.upstreams import UpstreamBody
from tests.gateway import strategies

TO = [{"service": "orders"}]


@given(strategies.any_routes())
@settings(max_examples=150)
def test_a_route_arrives_as_it_was_sent(route: Route) -> None:
    body = decode(encode(RouteBody.from_route(route)), RouteBody)
    assert body.to_route(route.name) == body.to_route() == route


@given(strategies.any_upstreams())
@settings(max_examples=80)
def test_an_upstream_arrives_as_it_was_sent(upstream: Upstream) -> None:
    body = decode(encode(UpstreamBody.from_upstream(upstream)), UpstreamBody)
    assert body.to_upstream(upstream.service) == body.to_upstream() == upstream


def test_defaults_are_left_out() -> None:
    body = RouteBody.from_route(decode(json.dumps({"to": TO, "timeout": "1m30s"}), RouteBody).to_route("r"))
    assert json.loads(encode(body)) == {"name": "r", "to": TO, "timeout": 90.0}
    assert json.loads(encode(UpstreamBody.from_upstream(Upstream("orders")))) == {"service": "orders"}


def test_names_are_accepted_in_any_case() -> None:
    body = {
        "to": TO,
        "hosts": ["Shop.Example"],
        "headers": [{"name": "X-Canary", "exact": "1"}],
        "hash": {"header": "X-User"},
    }
    route = decode(json.dumps(body), RouteBody).to_route("r")
    assert (route.hosts, route.headers[0].name) == (("shop.example",), "x-canary")
    assert route.hash is not None
    assert route.hash.header == "x-user"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "to"),
        ({"to": TO, "redirect": {"path": "/"}}, "to"),
        ({"to": [*TO, {"service": "NO"}]}, "to[1].service"),
        ({"to": [{"service": "a", "tags": [""]}]}, "to[0].tags[0]"),
        ({"to": [{"service": "a", "wieght": 1}]}, "to[0].wieght"),
        ({"to": [{"service": "a", "weight": -1}]}, "to[0].weight"),
        ({"to": TO, "path": {}}, "path"),
        ({"to": TO, "path": {"exact": "/", "prefix": "/"}}, "path"),
        ({"to": TO, "path": {"regex": "("}}, "path.regex"),
        ({"to": TO, "path": {"prefix": "x"}}, "path.prefix"),
        ({"to": TO, "headers": [{"name": "a"}]}, "headers[0]"),
        ({"to": TO, "headers": [{"name": "a", "regex": "["}]}, "headers[0].regex"),
        ({"to": TO, "query": [{"name": "a", "present": True, "exact": "b"}]}, "query[0]"),
        ({"to": TO, "timeout": "soon"}, "timeout"),
        ({"to": TO, "timeout": 0}, "timeout"),
        ({"to": TO, "retries": {"attempts": 99}}, "retries.attempts"),
        ({"to": TO, "retries": {"on": ["moonrise"]}}, "retries.on[0]"),
        ({"to": TO, "retries": {"on": ["reset", "reset"]}}, "retries.on"),
        ({"to": TO, "mirror": {"to": {"service": "?"}}}, "mirror.to.service"),
        ({"to": TO, "mirror": {"to": {"service": "a"}, "share": 2}}, "mirror.share"),
        ({"to": TO, "request_headers": {"set": {"host": "x"}}}, "request_headers.set.host"),
        ({"to": TO, "response_headers": {"remove": ["a b"]}}, "response_headers.remove.'a b'"),
        ({"to": TO, "cors": {"origins": ["x"]}}, "cors.origins[0]"),
        ({"to": TO, "cors": {"origins": ["*"], "max_age": "9d"}}, "cors.max_age"),
        ({"to": TO, "rate_limit": {"requests": 1, "per": "1ms"}}, "rate_limit.per"),
        ({"to": TO, "hash": {}}, "hash"),
        ({"redirect": {}}, "redirect"),
        ({"redirect": {"host": "a b"}}, "redirect.host"),
        ({"to": TO, "name": "other"}, "name"),
        ({"to": TO, "nmae": "other"}, "nmae"),
    ],
)
def test_an_invalid_route_is_refused_with_the_field(body: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        decode(json.dumps(body), RouteBody).to_route("r")
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"to": [{"service": "a", "weight": 1_001}]}, "to[0].weight: must be at most 1000"),
        ({"to": [{"service": "Orders"}]}, "to[0].service: must be 1 to 63 of a-z, 0-9 and inner hyphens"),
        ({"to": {}}, "to: must be a list, not an object"),
        ({"to": TO, "timeout": True}, "timeout: must be a number or a text, not true or false"),
        ({"to": TO, "path": {"prefix": "/" * 2_000}}, "path.prefix: must be at most 1024 characters"),
        ({"to": TO, "headers": [{"name": "a b"}]}, "headers[0].name: must be the name of a header, such as X-User"),
        ({"to": TO, "query": [{"name": "a b"}]}, "query[0].name: must be the name of a parameter: "),
        ({"to": TO, "retries": {"on": ["x"]}}, "retries.on[0]: must be connect-failure, refused-stream, "),
        ({"to": TO, "max_body": 0}, "max_body: must be at least 1"),
    ],
)
def test_an_error_says_what_the_value_must_be(body: dict[str, Any], problem: str) -> None:
    with pytest.raises(Invalid) as refused:
        decode(json.dumps(body), RouteBody)
    assert str(refused.value).startswith(problem)


def test_the_error_for_an_unknown_choice_lists_all_choices() -> None:
    with pytest.raises(Invalid) as refused:
        decode('{"policy": "leastrequest"}', UpstreamBody)
    choices = "round_robin, least_request, random, ring_hash or maglev, not 'leastrequest'"
    assert str(refused.value) == f"policy: must be {choices}"


def test_names_of_default_routes_are_reserved() -> None:
    with pytest.raises(Invalid, match="name: must not begin with default:"):
        decode(json.dumps({"to": TO}), RouteBody).to_route("default:orders")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"policy": "best"}, "policy"),
        ({"panic_threshold": 2}, "panic_threshold"),
        ({"outliers": {"base": "never"}}, "outliers.base"),
        ({"outliers": {"interval": 0}}, "outliers.interval"),
        ({"limits": {"connections": 0}}, "limits.connections"),
        ({"tls": {"ca": "here.pem"}}, "tls.ca"),
        ({"slow_start": 5, "policy": "random"}, "slow_start"),
        ({"service": "other"}, "service"),
    ],
)
def test_an_invalid_upstream_is_refused_with_the_field(body: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        decode(json.dumps(body), UpstreamBody).to_upstream("orders")
    assert refused.value.field == field


def test_an_intent_that_is_decoded_in_steps_has_the_same_documents() -> None:
    body = decode(json.dumps({"routes": [{"name": f"r{n}", "to": TO} for n in range(3)]}), IntentBody)
    steps: list[None] = []
    assert IntentBody.decode(encode(body), lambda: steps.append(None)) == body.to_documents()
    assert len(steps) == 3


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"routes": [{"name": "a", "to": [{"service": "x"}]}, {"name": "b", "paht": 1}]}', "routes[1].paht"),
        ('{"routes": [{"name": "a", "to": [{"service": "X"}]}]}', "routes[0].to[0].service"),
        ('{"routes": 1}', "routes"),
        ('{"route": []}', "route"),
        (
            '{"routes": [{"name": "a", "to": [{"service": "x"}]}, {"name": "a", "to": [{"service": "x"}]}]}',
            "routes[1].name",
        ),
        ('{"upstreams": [{"service": "x", "policy": "none"}]}', "upstreams[0].policy"),
    ],
)
def test_an_invalid_intent_is_refused_with_the_path_of_the_field(body: str, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        IntentBody.decode(body.encode(), lambda: None)
    assert refused.value.field == field
