"""Which services a route or an upstream names, and who may see and declare it."""

from __future__ import annotations

import pytest
from hypothesis import given

from adsum.core.access.scopes import EVERYTHING, NamePatterns, intern_patterns, parse_scopes
from adsum.gateway.intent.actions import Mirror, Target
from adsum.gateway.intent.intent import Intent
from adsum.gateway.intent.named_services import named_services, visible_intent
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.intent.upstreams import Upstream
from tests.gateway import strategies


def patterns(*texts: str) -> NamePatterns:
    return intern_patterns(frozenset(texts))


def may_declare(route: Route | Upstream, *scopes: str) -> bool:
    return named_services(route).may_declare(parse_scopes("scopes", scopes))


def test_a_route_names_its_targets_and_its_mirror_also_without_weight() -> None:
    targets = (Target(Selector("orders"), 100), Target(Selector("orders-new"), 0))
    route = Route("r", to=targets, mirror=Mirror(Selector("shadow"), 1.0))
    assert named_services(route).targets == {"orders", "orders-new", "shadow"}
    assert not named_services(route).are_visible(patterns("orders*"))
    assert named_services(route).are_visible(patterns("orders*", "shadow"))


@pytest.mark.parametrize(
    ("host", "label"),
    [("orders", "orders"), ("orders.example.com", "orders"), ("orders-v2.localhost", "orders-v2")],
)
def test_a_host_belongs_to_the_service_that_its_first_label_names(host: str, label: str) -> None:
    route = Route("r", hosts=(host,), to=(Target(Selector("team"), 1),))
    assert named_services(route).hosts == {label}
    assert may_declare(route, "operate:team", f"operate:{label}")
    assert not may_declare(route, "operate:team")
    assert not may_declare(route, f"operate:{label}")


@pytest.mark.parametrize("address", ["10.0.0.1", "[fd00::1]"])
def test_an_address_belongs_to_no_service(address: str) -> None:
    route = Route("r", hosts=(address,), to=(Target(Selector("team"), 1),))
    assert not may_declare(route, "operate:team", "operate:10", "operate:1*", "operate:fd00*")
    assert may_declare(route, "operate:*")


@pytest.mark.parametrize("hosts", [(), ("*.example.com",), ("team.example.com", "*.example.com")])
def test_a_route_for_every_host_takes_the_right_over_all_services(hosts: tuple[str, ...]) -> None:
    route = Route("r", hosts=hosts, to=(Target(Selector("team"), 1),))
    assert not may_declare(route, "operate:team", "operate:team-*", "operate:example*")
    assert may_declare(route, "operate:*")
    assert may_declare(route, "admin")


def test_an_upstream_takes_the_right_over_its_service() -> None:
    assert may_declare(Upstream("orders"), "operate:orders")
    assert not may_declare(Upstream("orders"), "write:orders", "operate:users")


@given(strategies.any_routes())
def test_who_may_operate_nothing_declares_no_route_and_who_may_do_everything_declares_each(route: Route) -> None:
    assert not may_declare(route, "write:*")
    assert named_services(route).may_declare(EVERYTHING)
    assert may_declare(route, "operate:*")


def test_the_visible_intent_has_no_route_that_names_an_invisible_service() -> None:
    mixed = Route("mixed", to=(Target(Selector("orders"), 1), Target(Selector("users"), 1)))
    plain = Route("plain", to=(Target(Selector("orders"), 1),))
    intent = Intent((mixed, plain), {name: Upstream(name) for name in ("orders", "users")})
    visible = visible_intent(intent, patterns("orders"))
    assert visible.routes == (plain,)
    assert list(visible.upstreams) == ["orders"]
    assert visible_intent(intent, patterns("*")) is intent
