from __future__ import annotations

from typing import Any

import pytest

from adsum.core.errors import Invalid
from adsum.gateway.intent.actions import HashPolicy, HeaderEdits, Mirror, RateLimit, Redirect, Retries, Target
from adsum.gateway.intent.cors import Cors
from adsum.gateway.intent.matches import HeaderMatch, MatchKind, PathMatch, QueryMatch
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.intent.upstreams import LbPolicy, OutlierSettings, Upstream, UpstreamLimits, UpstreamTls

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
