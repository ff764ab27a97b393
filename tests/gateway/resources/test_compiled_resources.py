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
from msgspec import structs

from adsum.core.catalog import snapshots
from adsum.core.catalog.changes import Batch, Change, FullState
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.model import Listing, Status
from adsum.core.provenance import Cause, Provenance
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

PROFILE = GatewayProfile(("127.0.0.1:8080",))
ZONED_PROFILE = GatewayProfile(("127.0.0.1:8080", "[::1]:8081"), access_log="text", zone="a", trusted_hops=1)
PROFILES = (PROFILE, ZONED_PROFILE)


def loaded(*listings: Listing, revision: int = 1) -> Snapshot:
    return snapshots.load_snapshot(FullState("e", revision, [(revision, item) for item in listings]))


def changed(snapshot: Snapshot, *listings: Listing) -> Snapshot:
    return snapshot.apply(Batch(snapshot.revision + 1, [Change(item.key, item, item.provenance) for item in listings]))


def removed(snapshot: Snapshot, item: Listing) -> Snapshot:
    return snapshot.apply(Batch(snapshot.revision + 1, [Change(item.key, None, item.provenance)]))


def compiled(
    snapshot: Snapshot, intent: Intent = NO_INTENT, addresses: Mapping[str, str] | None = None
) -> CompiledResources:
    return NO_RESOURCES.advance(snapshot, intent, addresses or {})


def encoded_tables(
    compiled: CompiledResources, profile: GatewayProfile = PROFILE
) -> dict[ResourceKind, dict[str, tuple[str, bytes, bytes]]]:
    """Returns all resources of a gateway without their revisions."""
    tables = compiled.gateway_resources(profile)
    return {
        kind: {name: (resource.version, resource.delta, resource.sotw) for name, resource in tables[kind].items()}
        for kind in ResourceKind
    }


def grpc_resources(compiled: CompiledResources, names: tuple[str, ...]) -> list[tuple[str, bytes] | None]:
    found = [compiled.grpc_resource(kind, name) for kind in ResourceKind for name in names]
    return [(resource.version, resource.delta) if resource else None for resource in found]


ORDERS = listing("orders", "o1", 8000)
USERS = listing("users", "u1", 8001)


def test_every_known_service_has_a_cluster_an_assignment_and_routes() -> None:
    tables = compiled(loaded(ORDERS, USERS)).gateway_resources(PROFILE)
    assert set(tables[ResourceKind.CLUSTER]) == set(tables[ResourceKind.ASSIGNMENT]) == {"orders", "users"}
    assert set(tables[ResourceKind.LISTENER]) == set(PROFILE.listen)
    assert set(tables[ResourceKind.ROUTES]) == {"routes"}
    assert not tables[ResourceKind.SECRET]
    assert set(PUSH_ORDER) == set(ResourceKind) == set(tables)


def test_an_empty_service_keeps_its_cluster_and_has_an_empty_assignment() -> None:
    tables = compiled(removed(loaded(ORDERS), ORDERS)).gateway_resources(PROFILE)
    assert "orders" in tables[ResourceKind.CLUSTER]
    assert not decode_resource(tables[ResourceKind.ASSIGNMENT]["orders"]).endpoints


def test_an_empty_service_keeps_its_route_over_a_restart_of_the_registry() -> None:
    expected = encoded_tables(compiled(removed(loaded(ORDERS, USERS), ORDERS)))
    restarted = snapshots.load_snapshot(FullState("e", 2, [(1, USERS)], removal_revisions={"orders": 2}))
    assert encoded_tables(compiled(restarted)) == expected


def test_a_service_that_only_a_route_names_has_a_cluster_too() -> None:
    route = Route("r", to=(Target(Selector("nobody", ("canary",))),))
    tables = compiled(loaded(ORDERS), Intent((route,))).gateway_resources(PROFILE)
    assert set(tables[ResourceKind.CLUSTER]) == {"orders", "nobody", "nobody?tag=canary"}


def test_a_selector_has_an_assignment_of_its_own() -> None:
    route = Route("r", to=(Target(Selector("orders", metadata={"version": "2"})),))
    snapshot = loaded(ORDERS, listing("orders", "o2", 8002, metadata={"version": "2"}))
    table = compiled(snapshot, Intent((route,))).gateway_resources(PROFILE)[ResourceKind.ASSIGNMENT]
    (locality,) = decode_resource(table["orders?version=2"]).endpoints
    assert [endpoint.endpoint.address.socket_address.port_value for endpoint in locality.lb_endpoints] == [8002]


CANARY = listing("orders", "c1", 8002, tags=("canary",))
SHARED = Intent((Route("r", to=(Target(Selector("orders"), 90), Target(Selector("orders", ("canary",)), 10))),))


def shares(compiled: CompiledResources) -> dict[str, int]:
    """Returns the clusters of the declared route with their weights. A single cluster has weight 0."""
    (routes,) = compiled.gateway_resources(PROFILE)[ResourceKind.ROUTES].values()
    action = next(entry for entry in decode_resource(routes).virtual_hosts[0].routes if entry.name == "r").route
    return {cluster.name: cluster.weight.value for cluster in action.weighted_clusters.clusters} or {action.cluster: 0}


def test_a_target_has_its_share_while_an_instance_takes_its_requests() -> None:
    snapshot = loaded(ORDERS)
    now = compiled(snapshot, SHARED)
    assert shares(now) == {"orders": 0}
    both = {"orders": 90, "orders?tag=canary": 10}
    for canary, expected in (
        (CANARY, both),
        (structs.replace(CANARY, checks={"web": Status.WARNING}), both),
        (structs.replace(CANARY, checks={"web": Status.CRITICAL}), {"orders": 0}),
        (CANARY, both),
        (listing("orders", "c1", 8002, tags=("canary",), status=Status.DRAINING), {"orders": 0}),
    ):
        snapshot = changed(snapshot, canary)
        now = now.advance(snapshot, SHARED, {})
        assert shares(now) == expected == shares(compiled(snapshot, SHARED))


def test_targets_that_are_all_empty_share_by_their_weights() -> None:
    assert shares(compiled(removed(loaded(ORDERS), ORDERS), SHARED)) == {"orders": 90, "orders?tag=canary": 10}
    assert shares(compiled(loaded(), SHARED)) == {"orders": 90, "orders?tag=canary": 10}


def test_an_instance_whose_host_name_has_no_ip_yet_has_no_share() -> None:
    named = loaded(ORDERS, listing("orders", "c1", 8002, tags=("canary",), address="canary.example"))
    now = compiled(named, SHARED)
    assert shares(now) == {"orders": 0}
    assert len(shares(now.advance(named, SHARED, {"canary.example": "127.0.0.2"}))) == 2


def test_a_route_with_one_target_does_not_depend_on_its_instances() -> None:
    alone = Intent((Route("r", to=(Target(Selector("orders")),)),))
    before = compiled(loaded(ORDERS), alone)
    tables = before.gateway_resources(PROFILE)
    after = before.advance(removed(loaded(ORDERS), ORDERS), alone, {})
    assert after.gateway_resources(PROFILE)[ResourceKind.ROUTES] is tables[ResourceKind.ROUTES]


def test_a_change_of_one_service_shares_everything_else() -> None:
    before = compiled(loaded(ORDERS, USERS))
    tables = before.gateway_resources(PROFILE)
    after = before.advance(
        changed(loaded(ORDERS, USERS), structs.replace(USERS, checks={"web": Status.CRITICAL})), NO_INTENT, {}
    )
    later = after.gateway_resources(PROFILE)
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


def test_a_new_provenance_changes_no_byte() -> None:
    before = compiled(loaded(ORDERS))
    tables = before.gateway_resources(PROFILE)
    other = structs.replace(
        ORDERS, provenance=Provenance(Cause.CHECK_WARNING, "ann", "for another reason", 7.0), since=3.0
    )
    later = before.advance(changed(loaded(ORDERS), other), NO_INTENT, {}).gateway_resources(PROFILE)
    assert later[ResourceKind.ASSIGNMENT]["orders"].version == tables[ResourceKind.ASSIGNMENT]["orders"].version
    assert later[ResourceKind.ASSIGNMENT]["orders"].delta is tables[ResourceKind.ASSIGNMENT]["orders"].delta


def test_an_upstream_changes_only_the_cluster_of_its_service() -> None:
    before = compiled(loaded(ORDERS, USERS))
    tables = before.gateway_resources(PROFILE)
    intent = Intent((), {"users": Upstream("users", LbPolicy.MAGLEV)})
    later = before.advance(loaded(ORDERS, USERS), intent, {}).gateway_resources(PROFILE)
    assert later[ResourceKind.CLUSTER]["users"].version != tables[ResourceKind.CLUSTER]["users"].version
    assert later[ResourceKind.CLUSTER]["orders"] is tables[ResourceKind.CLUSTER]["orders"]


def test_a_route_with_a_hash_gives_its_service_a_hash_policy() -> None:
    route = Route("r", to=(Target(Selector("orders")),), hash=HashPolicy(header="x-user"))
    table = compiled(loaded(ORDERS, USERS), Intent((route,))).gateway_resources(PROFILE)[ResourceKind.CLUSTER]
    ring = decode_resource(table["orders"])
    assert ring.lb_policy == ring.RING_HASH
    assert decode_resource(table["users"]).lb_policy == ring.LEAST_REQUEST


def limited(name: str, **more: Any) -> Route:
    return Route(name, to=(Target(Selector("orders")),), rate_limit=RateLimit(5, 60.0), **more)


def buckets(compiled: CompiledResources) -> list[str]:
    """Returns the routes that have a bucket."""
    (config,) = map(decode_resource, compiled.gateway_resources(PROFILE)[ResourceKind.FILTER].values())
    filter = LocalRateLimit()
    assert config.typed_config.Unpack(filter)
    return [entry.value for bucket in filter.descriptors for entry in bucket.entries]


def test_a_route_with_a_rate_limit_has_one_bucket_for_all_hosts() -> None:
    intent = Intent((limited("two", hosts=("a.example", "b.example")), limited("any"), Route("r", to=limited("r").to)))
    assert buckets(compiled(loaded(ORDERS), intent)) == ["any", "two"]
    assert buckets(compiled(loaded(ORDERS))) == []


def test_buckets_are_unchanged_while_no_rate_limit_changes() -> None:
    one, other = limited("one"), Route("other", hosts=("other.example",), to=(Target(Selector("users")),))
    before = compiled(loaded(ORDERS), Intent((one,)))
    tables = before.gateway_resources(PROFILE)
    later = before.advance(loaded(ORDERS, USERS, revision=2), Intent((other, one)), {}).gateway_resources(PROFILE)
    assert later[ResourceKind.ROUTES]["routes"].version != tables[ResourceKind.ROUTES]["routes"].version
    assert later[ResourceKind.LISTENER] is tables[ResourceKind.LISTENER]
    (first,), (second,) = tables[ResourceKind.FILTER].values(), later[ResourceKind.FILTER].values()
    assert second.delta is first.delta


@given(strategies.intents())
def test_every_resource_that_another_one_names_exists(intent: Intent) -> None:
    """Clusters, filters and buckets exist, and a route with a bucket enables the filter that counts."""
    one = compiled(loaded(ORDERS), intent)
    tables = one.gateway_resources(ZONED_PROFILE)
    for listener in map(decode_resource, tables[ResourceKind.LISTENER].values()):
        manager = HttpConnectionManager()
        assert listener.filter_chains[0].filters[0].typed_config.Unpack(manager)
        assert manager.rds.route_config_name in tables[ResourceKind.ROUTES]
        discovered = {filter_.name: filter_ for filter_ in manager.http_filters if filter_.HasField("config_discovery")}
        assert discovered.keys() == tables[ResourceKind.FILTER].keys()
        assert all(filter_.disabled for filter_ in discovered.values())
    (routes,) = map(decode_resource, tables[ResourceKind.ROUTES].values())
    counted = set()
    for entry in (entry for host in routes.virtual_hosts for entry in host.routes):
        weighted = [cluster.name for cluster in entry.route.weighted_clusters.clusters]
        mirrored = [policy.cluster for policy in entry.route.request_mirror_policies]
        assert tables[ResourceKind.CLUSTER].keys() >= {*filter(None, [entry.route.cluster]), *weighted, *mirrored}
        metadata = entry.metadata.filter_metadata
        counts = metadata[METADATA_NAMESPACE][RATE_LIMIT_KEY] if METADATA_NAMESPACE in metadata else None
        assert (counts is not None) is (RATE_LIMIT_FILTER in entry.typed_per_filter_config)
        counted |= {counts} if counts else set()
    assert counted == set(buckets(one))


def test_a_new_service_encodes_no_declared_route_again(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []

    def recorded(route: Route, splits: TrafficSplits) -> Iterator[Any]:
        encoded.append(route.name)
        return route_entries(route, splits)

    monkeypatch.setattr(route_configuration, "route_entries", recorded)
    hosts = [Route(f"h{n}", hosts=(f"h{n}.example",), to=(Target(Selector("orders")),)) for n in range(5)]
    any_host = [Route(f"a{n}", to=(Target(Selector("users")),)) for n in range(5)]
    intent = Intent((*hosts, *any_host))
    before = compiled(loaded(ORDERS), intent)
    before.gateway_resources(PROFILE)
    declared = [route.name for route in intent.routes]
    assert [name for name in encoded if not name.startswith("default:")] == declared
    encoded.clear()
    snapshot = changed(loaded(ORDERS), listing("fresh", "f1", 9))
    later = before.advance(snapshot, intent, {})
    later.gateway_resources(PROFILE)
    snapshot, wider = changed(snapshot, USERS), Intent((*intent.routes, Route("new", to=any_host[0].to)))
    more = later.advance(snapshot, wider, {})
    more.gateway_resources(PROFILE)
    assert [name for name in encoded if not name.startswith("default:")] == ["new"]
    assert encoded_tables(more) == encoded_tables(compiled(snapshot, wider))


@pytest.mark.parametrize("scheme", ["http", "h2c"])
def test_a_service_among_many_comes_and_goes_without_a_change_of_routes(scheme: str) -> None:
    crowd = loaded(*(listing(f"s{n}", "x") for n in range(MAX_OWN_DEFAULT_ROUTES)))
    intent = Intent((Route("r", to=(Target(Selector("s0")),)),))
    before = compiled(crowd, intent)
    tables = before.gateway_resources(PROFILE)
    fresh = listing("fresh", "f1", 9, scheme=scheme)
    snapshot = changed(crowd, fresh)
    after = before.advance(snapshot, intent, {})
    later = after.gateway_resources(PROFILE)
    assert set(later[ResourceKind.CLUSTER]) - set(tables[ResourceKind.CLUSTER]) in (
        {"fresh"},
        {"fresh?h2", "fresh?h2&only"},
    )
    assert later[ResourceKind.ROUTES] is tables[ResourceKind.ROUTES]
    emptied = after.advance(removed(snapshot, fresh), intent, {})
    assert emptied.gateway_resources(PROFILE)[ResourceKind.ROUTES] is tables[ResourceKind.ROUTES]
    assert encoded_tables(after) == encoded_tables(compiled(snapshot, intent))


def test_another_epoch_drops_unknown_services() -> None:
    before = compiled(loaded(ORDERS, USERS))
    before.gateway_resources(PROFILE)
    after = before.advance(snapshots.load_snapshot(FullState("other", 9, [(9, ORDERS)])), NO_INTENT, {})
    assert set(after.gateway_resources(PROFILE)[ResourceKind.CLUSTER]) == {"orders"}
    assert encoded_tables(after) == encoded_tables(compiled(loaded(ORDERS)))


def test_an_instance_is_left_out_until_its_host_name_is_resolved() -> None:
    named = listing("orders", "o1", address="one.example")
    before = compiled(loaded(named))
    assert not decode_resource(before.gateway_resources(PROFILE)[ResourceKind.ASSIGNMENT]["orders"]).endpoints
    after = before.advance(loaded(named), NO_INTENT, {"one.example": "10.0.0.9"})
    (locality,) = decode_resource(after.gateway_resources(PROFILE)[ResourceKind.ASSIGNMENT]["orders"]).endpoints
    assert locality.lb_endpoints[0].endpoint.address.socket_address.address == "10.0.0.9"


def test_gateways_share_the_tables_that_do_not_depend_on_their_differences() -> None:
    one = compiled(loaded(ORDERS))
    first, second = one.gateway_resources(PROFILE), one.gateway_resources(replace(PROFILE, listen=("127.0.0.1:9090",)))
    assert first[ResourceKind.ROUTES] is second[ResourceKind.ROUTES]
    assert first[ResourceKind.CLUSTER] is second[ResourceKind.CLUSTER]
    assert first[ResourceKind.ASSIGNMENT] is second[ResourceKind.ASSIGNMENT]
    assert one.gateway_resources(PROFILE) is first


def test_a_gateway_without_default_routes_has_only_declared_routes() -> None:
    table = compiled(loaded(ORDERS)).gateway_resources(replace(PROFILE, default_routes=False))[ResourceKind.ROUTES]
    routes = [route for host in decode_resource(table["routes"]).virtual_hosts for route in host.routes]
    assert not [route for route in routes if not route.HasField("direct_response")]


def test_grpc_has_all_resources_of_a_service_by_its_name() -> None:
    one = compiled(loaded(ORDERS))
    for kind in (ResourceKind.CLUSTER, ResourceKind.ASSIGNMENT, ResourceKind.LISTENER, ResourceKind.ROUTES):
        resource = one.grpc_resource(kind, "orders")
        assert resource is not None
        assert (resource.kind, resource.name) == (kind, "orders")
    assert one.grpc_resource(ResourceKind.CLUSTER, "orders") is one.grpc_resource(ResourceKind.CLUSTER, "orders")
    assert one.grpc_resource(ResourceKind.SECRET, "orders") is None


def test_grpc_gets_no_endpoints_of_an_unknown_service_and_nothing_for_an_invalid_name() -> None:
    one = compiled(loaded(ORDERS))
    assert one.grpc_resource(ResourceKind.LISTENER, "unknown") is not None
    empty = one.grpc_resource(ResourceKind.ASSIGNMENT, "unknown")
    assert empty is not None
    assert not decode_resource(empty).endpoints
    assert one.grpc_resource(ResourceKind.LISTENER, "No.Name") is None
    assert one.grpc_resource(ResourceKind.CLUSTER, "orders?tag=canary") is None


def test_the_tables_of_many_profiles_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adsum.gateway.resources.compiled_resources.MAX_CACHED_TABLES", 8)
    one = compiled(loaded(ORDERS))
    for n in range(50):
        one.gateway_resources(replace(PROFILE, zone=f"z{n}"))
    assert len(one._tables) <= 8
    assert len(one._by_profile) <= 8


def test_there_are_no_clusters_before_a_catalog_is_loaded() -> None:
    tables = NO_RESOURCES.gateway_resources(PROFILE)
    assert not tables[ResourceKind.CLUSTER]
    assert NO_RESOURCES.revision == 0


def test_concatenated_resources_are_one_response() -> None:
    table = compiled(loaded(ORDERS, USERS)).gateway_resources(PROFILE)[ResourceKind.CLUSTER]
    resources: list[Resource] = list(table.values())
    delta = DeltaDiscoveryResponse.FromString(b"".join(resource.delta for resource in resources))
    assert [(resource.name, resource.version) for resource in delta.resources] == [
        (resource.name, resource.version) for resource in resources
    ]
    sotw = DiscoveryResponse.FromString(b"".join(resource.sotw for resource in resources))
    assert [resource.type_url for resource in sotw.resources] == [ResourceKind.CLUSTER, ResourceKind.CLUSTER]


@given(st.lists(common.simple_changes, max_size=12), st.lists(strategies.intents(), min_size=1, max_size=3), st.data())
@settings(max_examples=60)
def test_advancing_equals_compiling_from_scratch(
    changes: list[Change], intents: list[Intent], data: st.DataObject
) -> None:
    snapshot, now, names = snapshots.EMPTY_SNAPSHOT, NO_RESOURCES, ("s1", "s2", "orders")
    for revision, change in enumerate(changes, 1):
        snapshot = snapshot.apply(Batch(revision, [change]))
        if data.draw(st.booleans()):
            now = now.advance(snapshot, data.draw(st.sampled_from(intents)), {})
            data.draw(st.sampled_from(PROFILES).map(now.gateway_resources))
            grpc_resources(now, names)
    intent = data.draw(st.sampled_from(intents))
    now = now.advance(snapshot, intent, {})
    fresh = compiled(snapshot, intent)
    assert [encoded_tables(now, profile) for profile in PROFILES] == [
        encoded_tables(fresh, profile) for profile in PROFILES
    ]
    assert grpc_resources(now, names) == grpc_resources(fresh, names)


@given(st.lists(common.listings(), max_size=6, unique_by=lambda item: item.key), strategies.intents(), st.randoms())
@settings(max_examples=40)
def test_the_order_of_instances_and_routes_makes_no_difference(
    listings: list[Listing], intent: Intent, random: object
) -> None:
    shuffled, routes = list(listings), list(intent.routes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    random.shuffle(routes)  # type: ignore[attr-defined]
    other = Intent(tuple(routes), MappingProxyType(dict(reversed(list(intent.upstreams.items())))))
    assert encoded_tables(compiled(loaded(*listings), intent), ZONED_PROFILE) == encoded_tables(
        compiled(loaded(*shuffled), other), ZONED_PROFILE
    )


SECURE = (
    listing("orders", "t1", 8443, scheme="https"),
    listing("orders", "t2", 8444),
    listing("users", "t3", 8445, scheme="grpcs", address="one.example"),
    listing("web", "t4", 8446, scheme="h2c", zone="b", weight=0, tags=("canary",)),
)


@needs_envoy
@given(strategies.intents(), st.lists(common.listings(), max_size=4, unique_by=lambda item: item.key))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_envoy_accepts_any_intent(tmp_path: Path, intent: Intent, listings: list[Listing]) -> None:
    profile = replace(ZONED_PROFILE, roots=certifi.where())
    snapshot = loaded(*SECURE, *listings)
    assert not validation_error(compiled(snapshot, intent, {"one.example": "10.0.0.9"}), profile, tmp_path)


@pytest.mark.parametrize("policy", [LbPolicy.ROUND_ROBIN, LbPolicy.LEAST_REQUEST])
def test_a_slow_start_is_set_for_both_policies_that_support_it(policy: LbPolicy) -> None:
    snapshot = loaded(listing("orders", "o1"))
    for length in (0.0, 2.5):
        intent = Intent((), {"orders": Upstream("orders", policy, slow_start=length)})
        cluster = decode_resource(compiled(snapshot, intent).gateway_resources(PROFILE)[ResourceKind.CLUSTER]["orders"])
        settings = getattr(cluster, f"{policy.value}_lb_config")
        assert settings.HasField("slow_start_config") is bool(length)
        assert settings.slow_start_config.slow_start_window.ToTimedelta().total_seconds() == length
