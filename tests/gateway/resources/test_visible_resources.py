"""The resources of gateways that see only some services: nothing else is in them, and they cost what changed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adsum.core.access.scopes import ALL_NAMES, NO_NAMES, NamePatterns, intern_patterns
from adsum.core.catalog import snapshots
from adsum.core.catalog.changes import Batch, Change, FullState
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.model import Listing
from adsum.gateway.intent.actions import HashPolicy, Mirror, Redirect, Target
from adsum.gateway.intent.intent import NO_INTENT, Intent
from adsum.gateway.intent.named_services import named_services
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.intent.upstreams import LbPolicy, Upstream
from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources.compiled_resources import NO_RESOURCES
from adsum.gateway.resources.resources import ResourceKind
from adsum.gateway.resources.visible_resources import VisibleResources
from tests.gateway import strategies
from tests.gateway.echo_services import listing
from tests.gateway.real_envoy import decode_resource
from tests.support import strategies as common

PROFILE = GatewayProfile(("127.0.0.1:8080",))
ORDERS, USERS = listing("orders", "o1", 8000), listing("users", "u1", 8001)
ONLY_ORDERS = intern_patterns(frozenset({"orders"}))


def _loaded(*listings: Listing) -> Snapshot:
    return snapshots.load_snapshot(FullState("e", 1, [(1, item) for item in listings]))


def _changed(snapshot: Snapshot, *changes: Change) -> Snapshot:
    return snapshot.apply(Batch(snapshot.revision + 1, changes))


def _listed(item: Listing) -> Change:
    return Change(item.key, item, item.provenance)


def _resources(snapshot: Snapshot, intent: Intent = NO_INTENT, visible: NamePatterns = ONLY_ORDERS) -> VisibleResources:
    return VisibleResources.create(visible, NO_RESOURCES).advance(snapshot, intent, {})


def _tables(resources: VisibleResources) -> dict[ResourceKind, dict[str, bytes]]:
    """Returns the resources of a gateway as bytes."""
    tables = resources.compiled.gateway_resources(PROFILE)
    return {kind: {name: resource.delta for name, resource in tables[kind].items()} for kind in ResourceKind}


def _routes(resources: VisibleResources) -> set[str]:
    """Returns the names of the declared routes that a gateway has."""
    (routes,) = resources.compiled.gateway_resources(PROFILE)[ResourceKind.ROUTES].values()
    entries = [entry.name for host in decode_resource(routes).virtual_hosts for entry in host.routes]
    return {name for name in entries if name and not name.startswith("default:")}


def _route(name: str, *targets: str, mirror: str = "", **more: Any) -> Route:
    to = tuple(Target(Selector(service)) for service in targets)
    return Route(name, to=to, mirror=Mirror(Selector(mirror)) if mirror else None, **more)


def test_other_services_are_absent() -> None:
    tables = _tables(_resources(_loaded(ORDERS, USERS)))
    assert tables[ResourceKind.CLUSTER].keys() == tables[ResourceKind.ASSIGNMENT].keys() == {"orders"}
    assert not any(b"users" in content for table in tables.values() for content in table.values())
    assert tables == _tables(_resources(_loaded(ORDERS)))


def test_a_route_is_absent_as_a_whole_unless_all_its_services_are_visible() -> None:
    routes = (
        _route("seen", "orders"),
        _route("other", "users"),
        _route("split", "orders", "users"),
        _route("mirrored", "orders", mirror="users"),
        Route("hidden-spare", to=(Target(Selector("orders")), Target(Selector("users"), 0))),
        Route("moved", redirect=Redirect(host="shop.example")),
    )
    intent = Intent(routes, {"users": Upstream("users", LbPolicy.MAGLEV)})
    resources = _resources(_loaded(ORDERS, USERS), intent)
    assert _routes(resources) == {"seen", "moved"}
    assert _tables(resources) == _tables(_resources(_loaded(ORDERS), Intent((routes[0], routes[5]))))


def test_the_policy_of_a_service_does_not_depend_on_an_invisible_route() -> None:
    intent = Intent((_route("split", "orders", "users", hash=HashPolicy(header="x-user")),))
    cluster = decode_resource(
        _resources(_loaded(ORDERS, USERS), intent).compiled.gateway_resources(PROFILE)[ResourceKind.CLUSTER]["orders"]
    )
    assert cluster.lb_policy == cluster.LEAST_REQUEST


def test_a_set_that_includes_nothing_has_listeners_and_no_service() -> None:
    tables = _tables(_resources(_loaded(ORDERS, USERS), Intent((_route("r", "orders"),)), NO_NAMES))
    assert not tables[ResourceKind.CLUSTER]
    assert not tables[ResourceKind.ASSIGNMENT]
    assert tables[ResourceKind.LISTENER]


def test_a_change_of_invisible_things_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot, intent = _loaded(ORDERS, USERS), Intent((_route("r", "orders"),))
    before = _resources(snapshot, intent)
    later = _changed(snapshot, _listed(listing("users", "u2", 8002)))
    wider = Intent((_route("r", "orders"), _route("other", "users")), {"users": Upstream("users")})
    after = before.advance(later, wider, before.addresses)
    assert after.compiled is before.compiled
    assert after.catalog.part.revision == later.revision


def test_a_change_of_a_visible_service_shares_the_other_resources() -> None:
    visible = intern_patterns(frozenset({"orders*"}))
    snapshot = _loaded(ORDERS, USERS, listing("orders-eu", "e1", 8003))
    before = _resources(snapshot, visible=visible)
    old = before.compiled.gateway_resources(PROFILE)
    after = before.advance(_changed(snapshot, _listed(listing("orders", "o2", 8004))), NO_INTENT, before.addresses)
    new = after.compiled.gateway_resources(PROFILE)
    assert new[ResourceKind.ROUTES] is old[ResourceKind.ROUTES]
    assert new[ResourceKind.ASSIGNMENT]["orders-eu"] is old[ResourceKind.ASSIGNMENT]["orders-eu"]
    assert new[ResourceKind.ASSIGNMENT]["orders"].version != old[ResourceKind.ASSIGNMENT]["orders"].version


def test_an_address_of_a_host_name_is_taken_over() -> None:
    snapshot = _loaded(listing("orders", "o1", address="one.example"))
    before = _resources(snapshot)
    after = before.advance(snapshot, NO_INTENT, {"one.example": "10.0.0.9"})
    assert b"10.0.0.9" not in _tables(before)[ResourceKind.ASSIGNMENT]["orders"]
    assert b"10.0.0.9" in _tables(after)[ResourceKind.ASSIGNMENT]["orders"]


_sets = st.sets(st.sampled_from(["s1", "s*", "orders", "users", "u*"]), max_size=3).map(
    lambda patterns: intern_patterns(frozenset(patterns))
)


@given(
    _sets,
    st.lists(common.simple_changes, max_size=10),
    st.lists(strategies.intents(), min_size=1, max_size=3),
    st.data(),
)
@settings(max_examples=30)
def test_advancing_equals_compiling_only_what_is_visible(
    visible: NamePatterns, changes: list[Change], intents: list[Intent], data: st.DataObject
) -> None:
    snapshot, seen = snapshots.EMPTY_SNAPSHOT, snapshots.EMPTY_SNAPSHOT
    now = VisibleResources.create(visible, NO_RESOURCES)
    for revision, change in enumerate(changes, 1):
        snapshot = snapshot.apply(Batch(revision, [change]))
        if visible.includes(change.key.service):
            seen = seen.apply(Batch(revision, [change]))
        if data.draw(st.booleans()):
            now = now.advance(snapshot, data.draw(st.sampled_from(intents)), now.addresses)
            now.compiled.gateway_resources(PROFILE)
    intent = data.draw(st.sampled_from(intents))
    now = now.advance(snapshot, intent, {})
    routes = tuple(route for route in intent.routes if named_services(route).are_visible(visible))
    upstreams = {name: upstream for name, upstream in intent.upstreams.items() if visible.includes(name)}
    alone = NO_RESOURCES.advance(seen, Intent(routes, upstreams), {}).gateway_resources(PROFILE)
    assert _tables(now) == {kind: {name: item.delta for name, item in alone[kind].items()} for kind in ResourceKind}


def test_all_names_give_what_everybody_gets() -> None:
    intent = Intent((_route("split", "orders", "users"),))
    whole = NO_RESOURCES.advance(_loaded(ORDERS, USERS), intent, {}).gateway_resources(PROFILE)
    assert _tables(_resources(_loaded(ORDERS, USERS), intent, ALL_NAMES)) == {
        kind: {name: item.delta for name, item in whole[kind].items()} for kind in ResourceKind
    }
