from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import certifi
import pytest
from envoy.extensions.filters.http.local_ratelimit.v3.local_rate_limit_pb2 import LocalRateLimit
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryResponse, DiscoveryResponse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adsum.core.catalog import snapshots
from adsum.core.catalog.changes import Batch, Change, FullState
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.model import Cause, Listing, Provenance, Status
from adsum.gateway.encoding.clusters.http_versions import TrafficSplits
from adsum.gateway.encoding.listeners.http_filters import RATE_LIMIT_FILTER, RATE_LIMIT_KEY
from adsum.gateway.encoding.messages import METADATA_NAMESPACE
from adsum.gateway.encoding.routes import route_configuration
from adsum.gateway.encoding.routes.route_entries import route_entries
from adsum.gateway.intent.actions import HashPolicy, RateLimit, Target
from adsum.gateway.intent.intent import NO_INTENT, Intent
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.intent.upstreams import LbPolicy, Upstream
from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources.compiled_resources import NO_RESOURCES, CompiledResources
from adsum.gateway.resources.resource_encoder import MAX_OWN_DEFAULT_ROUTES
from adsum.gateway.resources.resources import PUSH_ORDER, Resource, ResourceKind
from tests.gateway import strategies
from tests.gateway.echo_services import listing
from tests.gateway.real_envoy import decode_resource, needs_envoy, validation_error
from tests.support import strategies as common

SHAPE = GatewayProfile(("127.0.0.1:8080",))
ZONED = GatewayProfile(("127.0.0.1:8080", "[::1]:8081"), access_log="text", zone="a", trusted_hops=1)
SHAPES = (SHAPE, ZONED)


def loaded(*listings: Listing, revision: int = 1) -> Snapshot:
    return snapshots.load_snapshot(FullState("e", revision, [(revision, each) for each in listings]))


def changed(snapshot: Snapshot, *listings: Listing) -> Snapshot:
    return snapshot.apply(Batch(snapshot.revision + 1, [Change(each.key, each, each.provenance) for each in listings]))


def gone(snapshot: Snapshot, each: Listing) -> Snapshot:
    return snapshot.apply(Batch(snapshot.revision + 1, [Change(each.key, None, each.provenance)]))


def compiled(
    snapshot: Snapshot, intent: Intent = NO_INTENT, addresses: Mapping[str, str] | None = None
) -> CompiledResources:
    return NO_RESOURCES.advance(snapshot, intent, addresses or {})


def said(
    compiled: CompiledResources, shape: GatewayProfile = SHAPE
) -> dict[ResourceKind, dict[str, tuple[str, bytes, bytes]]]:
    """Everything that a gateway is told, without the revisions."""
    tables = compiled.gateway_resources(shape)
    return {
        kind: {name: (each.version, each.delta, each.sotw) for name, each in tables[kind].items()}
        for kind in ResourceKind
    }


def called(compiled: CompiledResources, names: tuple[str, ...]) -> list[tuple[str, bytes] | None]:
    found = [compiled.grpc_resource(kind, name) for kind in ResourceKind for name in names]
    return [(each.version, each.delta) if each else None for each in found]


ORDERS = listing("orders", "o1", 8000)
USERS = listing("users", "u1", 8001)


def test_every_known_service_has_a_cluster_an_assignment_and_routes() -> None:
    tables = compiled(loaded(ORDERS, USERS)).gateway_resources(SHAPE)
    assert set(tables[ResourceKind.CLUSTER]) == set(tables[ResourceKind.ASSIGNMENT]) == {"orders", "users"}
    assert set(tables[ResourceKind.LISTENER]) == set(SHAPE.listen)
    assert set(tables[ResourceKind.ROUTES]) == {"routes"}
    assert not tables[ResourceKind.SECRET]
    assert set(PUSH_ORDER) == set(ResourceKind) == set(tables)


def test_an_empty_service_keeps_its_cluster_and_has_an_empty_assignment() -> None:
    tables = compiled(gone(loaded(ORDERS), ORDERS)).gateway_resources(SHAPE)
    assert "orders" in tables[ResourceKind.CLUSTER]
    assert not decode_resource(tables[ResourceKind.ASSIGNMENT]["orders"]).endpoints


def test_an_empty_service_keeps_its_route_over_a_restart_of_the_registry() -> None:
    emptied = said(compiled(gone(loaded(ORDERS, USERS), ORDERS)))
    restarted = snapshots.load_snapshot(FullState("e", 2, [(1, USERS)], removal_revisions={"orders": 2}))
    assert said(compiled(restarted)) == emptied


def test_a_service_that_only_a_route_names_has_a_cluster_too() -> None:
    route = Route("r", to=(Target(Selector("nobody", ("canary",))),))
    tables = compiled(loaded(ORDERS), Intent((route,))).gateway_resources(SHAPE)
    assert set(tables[ResourceKind.CLUSTER]) == {"orders", "nobody", "nobody?tag=canary"}


def test_a_selector_has_its_own_assignment() -> None:
    route = Route("r", to=(Target(Selector("orders", metadata={"version": "2"})),))
    snapshot = loaded(ORDERS, listing("orders", "o2", 8002, metadata={"version": "2"}))
    table = compiled(snapshot, Intent((route,))).gateway_resources(SHAPE)[ResourceKind.ASSIGNMENT]
    (locality,) = decode_resource(table["orders?version=2"]).endpoints
    assert [each.endpoint.address.socket_address.port_value for each in locality.lb_endpoints] == [8002]


CANARY = listing("orders", "c1", 8002, tags=("canary",))
SHARED = Intent((Route("r", to=(Target(Selector("orders"), 90), Target(Selector("orders", ("canary",)), 10))),))


def shares(compiled: CompiledResources) -> dict[str, int]:
    """Where the declared route sends requests, by weight; a cluster alone has weight 0."""
    (routes,) = compiled.gateway_resources(SHAPE)[ResourceKind.ROUTES].values()
    action = next(each for each in decode_resource(routes).virtual_hosts[0].routes if each.name == "r").route
    return {each.name: each.weight.value for each in action.weighted_clusters.clusters} or {action.cluster: 0}


def test_a_target_has_its_share_while_somebody_takes_its_requests() -> None:
    snapshot = loaded(ORDERS)
    told = compiled(snapshot, SHARED)
    assert shares(told) == {"orders": 0}
    both = {"orders": 90, "orders?tag=canary": 10}
    for each, expected in (
        (CANARY, both),
        (replace(CANARY, checks={"web": Status.WARNING}), both),
        (replace(CANARY, checks={"web": Status.CRITICAL}), {"orders": 0}),
        (CANARY, both),
        (listing("orders", "c1", 8002, tags=("canary",), status=Status.DRAINING), {"orders": 0}),
    ):
        snapshot = changed(snapshot, each)
        told = told.advance(snapshot, SHARED, {})
        assert shares(told) == expected == shares(compiled(snapshot, SHARED))


def test_targets_that_are_all_empty_share_as_they_would() -> None:
    assert shares(compiled(gone(loaded(ORDERS), ORDERS), SHARED)) == {"orders": 90, "orders?tag=canary": 10}
    assert shares(compiled(loaded(), SHARED)) == {"orders": 90, "orders?tag=canary": 10}


def test_an_instance_whose_name_has_no_address_yet_takes_no_share() -> None:
    named = loaded(ORDERS, listing("orders", "c1", 8002, tags=("canary",), address="canary.example"))
    told = compiled(named, SHARED)
    assert shares(told) == {"orders": 0}
    assert len(shares(told.advance(named, SHARED, {"canary.example": "127.0.0.2"}))) == 2


def test_a_route_with_one_target_says_the_same_whoever_is_there() -> None:
    alone = Intent((Route("r", to=(Target(Selector("orders")),)),))
    before = compiled(loaded(ORDERS), alone)
    tables = before.gateway_resources(SHAPE)
    after = before.advance(gone(loaded(ORDERS), ORDERS), alone, {})
    assert after.gateway_resources(SHAPE)[ResourceKind.ROUTES] is tables[ResourceKind.ROUTES]


def test_a_change_is_one_services_and_everything_else_is_shared() -> None:
    before = compiled(loaded(ORDERS, USERS))
    tables = before.gateway_resources(SHAPE)
    after = before.advance(
        changed(loaded(ORDERS, USERS), replace(USERS, checks={"web": Status.CRITICAL})), NO_INTENT, {}
    )
    later = after.gateway_resources(SHAPE)
    assert later[ResourceKind.ROUTES] is tables[ResourceKind.ROUTES]
    assert after.changed_names(tables[ResourceKind.CLUSTER], later[ResourceKind.CLUSTER]) == {
        "users",
        "users?h2",
        "users?h2&only",
    }
    assert after.changed_names(later[ResourceKind.CLUSTER], tables[ResourceKind.CLUSTER]) is None
    assert later[ResourceKind.LISTENER] is tables[ResourceKind.LISTENER]
    assert later[ResourceKind.ASSIGNMENT]["orders"] is tables[ResourceKind.ASSIGNMENT]["orders"]
    assert later[ResourceKind.ASSIGNMENT]["users"].version != tables[ResourceKind.ASSIGNMENT]["users"].version
    assert later[ResourceKind.CLUSTER]["users"].version == tables[ResourceKind.CLUSTER]["users"].version
    assert later[ResourceKind.ASSIGNMENT]["users"].revision == after.revision


def test_a_note_or_a_reason_changes_no_byte() -> None:
    before = compiled(loaded(ORDERS))
    tables = before.gateway_resources(SHAPE)
    other = replace(
        ORDERS, provenance=Provenance(Cause.CHECK_WARNING, "somebody", "for another reason", 7.0), since=3.0
    )
    later = before.advance(changed(loaded(ORDERS), other), NO_INTENT, {}).gateway_resources(SHAPE)
    assert later[ResourceKind.ASSIGNMENT]["orders"].version == tables[ResourceKind.ASSIGNMENT]["orders"].version
    assert later[ResourceKind.ASSIGNMENT]["orders"].delta is tables[ResourceKind.ASSIGNMENT]["orders"].delta


def test_an_upstream_changes_only_its_services_cluster() -> None:
    before = compiled(loaded(ORDERS, USERS))
    tables = before.gateway_resources(SHAPE)
    intent = Intent((), {"users": Upstream("users", LbPolicy.MAGLEV)})
    later = before.advance(loaded(ORDERS, USERS), intent, {}).gateway_resources(SHAPE)
    assert later[ResourceKind.CLUSTER]["users"].version != tables[ResourceKind.CLUSTER]["users"].version
    assert later[ResourceKind.CLUSTER]["orders"] is tables[ResourceKind.CLUSTER]["orders"]


def test_a_route_that_hashes_makes_its_service_hash() -> None:
    route = Route("r", to=(Target(Selector("orders")),), hash=HashPolicy(header="x-user"))
    table = compiled(loaded(ORDERS, USERS), Intent((route,))).gateway_resources(SHAPE)[ResourceKind.CLUSTER]
    ring = decode_resource(table["orders"])
    assert ring.lb_policy == ring.RING_HASH
    assert decode_resource(table["users"]).lb_policy == ring.LEAST_REQUEST


def limited(name: str, **more: Any) -> Route:
    return Route(name, to=(Target(Selector("orders")),), rate_limit=RateLimit(5, 60.0), **more)


def buckets(compiled: CompiledResources) -> list[str]:
    """The routes that have one."""
    (told,) = map(decode_resource, compiled.gateway_resources(SHAPE)[ResourceKind.FILTER].values())
    filter = LocalRateLimit()
    assert told.typed_config.Unpack(filter)
    return [entry.value for each in filter.descriptors for entry in each.entries]


def test_a_limited_route_has_one_bucket_whatever_hosts_it_is_for() -> None:
    intent = Intent((limited("two", hosts=("a.example", "b.example")), limited("any"), Route("r", to=limited("r").to)))
    assert buckets(compiled(loaded(ORDERS), intent)) == ["any", "two"]
    assert buckets(compiled(loaded(ORDERS))) == []


def test_buckets_stay_as_they_are_while_no_limit_changes() -> None:
    one, other = limited("one"), Route("other", hosts=("other.example",), to=(Target(Selector("users")),))
    before = compiled(loaded(ORDERS), Intent((one,)))
    tables = before.gateway_resources(SHAPE)
    later = before.advance(loaded(ORDERS, USERS, revision=2), Intent((other, one)), {}).gateway_resources(SHAPE)
    assert later[ResourceKind.ROUTES]["routes"].version != tables[ResourceKind.ROUTES]["routes"].version
    assert later[ResourceKind.LISTENER] is tables[ResourceKind.LISTENER]
    (told,), (again,) = tables[ResourceKind.FILTER].values(), later[ResourceKind.FILTER].values()
    assert again.delta is told.delta


@given(strategies.intents())
def test_whatever_is_named_is_told(intent: Intent) -> None:
    """Clusters, filters and buckets; a route that is counted wakes the filter that counts."""
    one = compiled(loaded(ORDERS), intent)
    tables = one.gateway_resources(ZONED)
    for told in map(decode_resource, tables[ResourceKind.LISTENER].values()):
        manager = HttpConnectionManager()
        assert told.filter_chains[0].filters[0].typed_config.Unpack(manager)
        assert manager.rds.route_config_name in tables[ResourceKind.ROUTES]
        asked = {each.name: each for each in manager.http_filters if each.HasField("config_discovery")}
        assert asked.keys() == tables[ResourceKind.FILTER].keys()
        assert all(each.disabled for each in asked.values())
    (routes,) = map(decode_resource, tables[ResourceKind.ROUTES].values())
    counted = set()
    for entry in (entry for host in routes.virtual_hosts for entry in host.routes):
        weighted = [each.name for each in entry.route.weighted_clusters.clusters]
        mirrored = [each.cluster for each in entry.route.request_mirror_policies]
        assert tables[ResourceKind.CLUSTER].keys() >= {*filter(None, [entry.route.cluster]), *weighted, *mirrored}
        metadata = entry.metadata.filter_metadata
        counts = metadata[METADATA_NAMESPACE][RATE_LIMIT_KEY] if METADATA_NAMESPACE in metadata else None
        assert (counts is not None) is (RATE_LIMIT_FILTER in entry.typed_per_filter_config)
        counted |= {counts} if counts else set()
    assert counted == set(buckets(one))


def test_a_service_that_comes_has_no_declared_route_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counted(route: Route, splits: TrafficSplits) -> Iterator[Any]:
        made.append(route.name)
        return route_entries(route, splits)

    monkeypatch.setattr(route_configuration, "route_entries", counted)
    hosts = [Route(f"h{n}", hosts=(f"h{n}.example",), to=(Target(Selector("orders")),)) for n in range(5)]
    anywhere = [Route(f"a{n}", to=(Target(Selector("users")),)) for n in range(5)]
    intent = Intent((*hosts, *anywhere))
    before = compiled(loaded(ORDERS), intent)
    before.gateway_resources(SHAPE)
    declared = [each.name for each in intent.routes]
    assert [name for name in made if not name.startswith("default:")] == declared
    made.clear()
    snapshot = changed(loaded(ORDERS), listing("fresh", "f1", 9))
    later = before.advance(snapshot, intent, {})
    later.gateway_resources(SHAPE)
    snapshot, wider = changed(snapshot, USERS), Intent((*intent.routes, Route("new", to=anywhere[0].to)))
    more = later.advance(snapshot, wider, {})
    more.gateway_resources(SHAPE)
    assert [name for name in made if not name.startswith("default:")] == ["new"]
    assert said(more) == said(compiled(snapshot, wider))


@pytest.mark.parametrize("scheme", ["http", "h2c"])
def test_a_service_among_many_comes_and_goes_without_a_route(scheme: str) -> None:
    crowd = loaded(*(listing(f"s{n}", "x") for n in range(MAX_OWN_DEFAULT_ROUTES)))
    intent = Intent((Route("r", to=(Target(Selector("s0")),)),))
    before = compiled(crowd, intent)
    tables = before.gateway_resources(SHAPE)
    fresh = listing("fresh", "f1", 9, scheme=scheme)
    snapshot = changed(crowd, fresh)
    after = before.advance(snapshot, intent, {})
    later = after.gateway_resources(SHAPE)
    assert set(later[ResourceKind.CLUSTER]) - set(tables[ResourceKind.CLUSTER]) in (
        {"fresh"},
        {"fresh?h2", "fresh?h2&only"},
    )
    assert later[ResourceKind.ROUTES] is tables[ResourceKind.ROUTES]
    emptied = after.advance(gone(snapshot, fresh), intent, {})
    assert emptied.gateway_resources(SHAPE)[ResourceKind.ROUTES] is tables[ResourceKind.ROUTES]
    assert said(after) == said(compiled(snapshot, intent))


def test_another_epoch_forgets_what_it_does_not_know() -> None:
    before = compiled(loaded(ORDERS, USERS))
    before.gateway_resources(SHAPE)
    after = before.advance(snapshots.load_snapshot(FullState("other", 9, [(9, ORDERS)])), NO_INTENT, {})
    assert set(after.gateway_resources(SHAPE)[ResourceKind.CLUSTER]) == {"orders"}
    assert said(after) == said(compiled(loaded(ORDERS)))


def test_a_name_is_left_out_until_it_is_resolved() -> None:
    named = listing("orders", "o1", address="one.example")
    before = compiled(loaded(named))
    assert not decode_resource(before.gateway_resources(SHAPE)[ResourceKind.ASSIGNMENT]["orders"]).endpoints
    after = before.advance(loaded(named), NO_INTENT, {"one.example": "10.0.0.9"})
    (locality,) = decode_resource(after.gateway_resources(SHAPE)[ResourceKind.ASSIGNMENT]["orders"]).endpoints
    assert locality.lb_endpoints[0].endpoint.address.socket_address.address == "10.0.0.9"


def test_gateways_that_differ_in_nothing_that_matters_share_their_tables() -> None:
    one = compiled(loaded(ORDERS))
    first, second = one.gateway_resources(SHAPE), one.gateway_resources(replace(SHAPE, listen=("127.0.0.1:9090",)))
    assert first[ResourceKind.ROUTES] is second[ResourceKind.ROUTES]
    assert first[ResourceKind.CLUSTER] is second[ResourceKind.CLUSTER]
    assert first[ResourceKind.ASSIGNMENT] is second[ResourceKind.ASSIGNMENT]
    assert one.gateway_resources(SHAPE) is first


def test_without_default_routes_a_gateway_routes_what_is_declared() -> None:
    table = compiled(loaded(ORDERS)).gateway_resources(replace(SHAPE, default_routes=False))[ResourceKind.ROUTES]
    routes = [route for host in decode_resource(table["routes"]).virtual_hosts for route in host.routes]
    assert not [route for route in routes if not route.HasField("direct_response")]


def test_grpc_has_everything_of_a_service_by_its_name() -> None:
    one = compiled(loaded(ORDERS))
    for kind in (ResourceKind.CLUSTER, ResourceKind.ASSIGNMENT, ResourceKind.LISTENER, ResourceKind.ROUTES):
        resource = one.grpc_resource(kind, "orders")
        assert resource is not None
        assert (resource.kind, resource.name) == (kind, "orders")
    assert one.grpc_resource(ResourceKind.CLUSTER, "orders") is one.grpc_resource(ResourceKind.CLUSTER, "orders")
    assert one.grpc_resource(ResourceKind.SECRET, "orders") is None


def test_grpc_finds_nobody_at_an_unknown_service_and_nothing_at_what_is_no_name() -> None:
    one = compiled(loaded(ORDERS))
    assert one.grpc_resource(ResourceKind.LISTENER, "unknown") is not None
    empty = one.grpc_resource(ResourceKind.ASSIGNMENT, "unknown")
    assert empty is not None
    assert not decode_resource(empty).endpoints
    assert one.grpc_resource(ResourceKind.LISTENER, "No.Name") is None
    assert one.grpc_resource(ResourceKind.CLUSTER, "orders?tag=canary") is None


def test_hostile_shapes_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adsum.gateway.resources.compiled_resources.MAX_CACHED_TABLES", 8)
    one = compiled(loaded(ORDERS))
    for n in range(50):
        one.gateway_resources(replace(SHAPE, zone=f"z{n}"))
    assert len(one._tables) <= 8
    assert len(one._by_profile) <= 8


def test_nothing_is_told_before_anything_was_loaded() -> None:
    tables = NO_RESOURCES.gateway_resources(SHAPE)
    assert not tables[ResourceKind.CLUSTER]
    assert NO_RESOURCES.revision == 0


def test_resources_concatenate_to_one_answer() -> None:
    table = compiled(loaded(ORDERS, USERS)).gateway_resources(SHAPE)[ResourceKind.CLUSTER]
    resources: list[Resource] = list(table.values())
    delta = DeltaDiscoveryResponse.FromString(b"".join(each.delta for each in resources))
    assert [(each.name, each.version) for each in delta.resources] == [(each.name, each.version) for each in resources]
    sotw = DiscoveryResponse.FromString(b"".join(each.sotw for each in resources))
    assert [each.type_url for each in sotw.resources] == [ResourceKind.CLUSTER, ResourceKind.CLUSTER]


@given(st.lists(common.simple_changes, max_size=12), st.lists(strategies.intents(), min_size=1, max_size=3), st.data())
@settings(max_examples=60)
def test_following_comes_to_the_same_as_compiling_anew(
    changes: list[Change], intents: list[Intent], data: st.DataObject
) -> None:
    snapshot, now, names = snapshots.EMPTY_SNAPSHOT, NO_RESOURCES, ("s1", "s2", "orders")
    for revision, change in enumerate(changes, 1):
        snapshot = snapshot.apply(Batch(revision, [change]))
        if data.draw(st.booleans()):
            now = now.advance(snapshot, data.draw(st.sampled_from(intents)), {})
            data.draw(st.sampled_from(SHAPES).map(now.gateway_resources))
            called(now, names)
    intent = data.draw(st.sampled_from(intents))
    now = now.advance(snapshot, intent, {})
    fresh = compiled(snapshot, intent)
    assert [said(now, shape) for shape in SHAPES] == [said(fresh, shape) for shape in SHAPES]
    assert called(now, names) == called(fresh, names)


@given(st.lists(common.listings(), max_size=6, unique_by=lambda each: each.key), strategies.intents(), st.randoms())
@settings(max_examples=40)
def test_no_order_makes_a_difference(listings: list[Listing], intent: Intent, random: object) -> None:
    shuffled, routes = list(listings), list(intent.routes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    random.shuffle(routes)  # type: ignore[attr-defined]
    other = Intent(tuple(routes), MappingProxyType(dict(reversed(list(intent.upstreams.items())))))
    assert said(compiled(loaded(*listings), intent), ZONED) == said(compiled(loaded(*shuffled), other), ZONED)


SECURE = (
    listing("orders", "t1", 8443, scheme="https"),
    listing("orders", "t2", 8444),
    listing("users", "t3", 8445, scheme="grpcs", address="one.example"),
    listing("web", "t4", 8446, scheme="h2c", zone="b", weight=0, tags=("canary",)),
)


@needs_envoy
@given(strategies.intents(), st.lists(common.listings(), max_size=4, unique_by=lambda each: each.key))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_envoy_takes_whatever_can_be_wanted(tmp_path: Path, intent: Intent, listings: list[Listing]) -> None:
    shape = replace(ZONED, roots=certifi.where())
    snapshot = loaded(*SECURE, *listings)
    assert not validation_error(compiled(snapshot, intent, {"one.example": "10.0.0.9"}), shape, tmp_path)


@pytest.mark.parametrize("policy", [LbPolicy.ROUND_ROBIN, LbPolicy.LEAST_REQUEST])
def test_a_slow_start_is_told_to_either_policy_that_knows_it(policy: LbPolicy) -> None:
    snapshot = loaded(listing("orders", "o1"))
    for length in (0.0, 2.5):
        intent = Intent((), {"orders": Upstream("orders", policy, slow_start=length)})
        cluster = decode_resource(compiled(snapshot, intent).gateway_resources(SHAPE)[ResourceKind.CLUSTER]["orders"])
        settings = getattr(cluster, f"{policy.value}_lb_config")
        assert settings.HasField("slow_start_config") is bool(length)
        assert settings.slow_start_config.slow_start_window.ToTimedelta().total_seconds() == length
