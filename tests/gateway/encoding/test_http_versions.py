"""Gateways reach each instance by its own scheme and address, independently of the other instances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import UpstreamTlsContext
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from adsum.core.catalog import snapshots
from adsum.core.catalog.changes import Batch, Change, FullState
from adsum.core.model import Listing, Status
from adsum.gateway.encoding.clusters.http_versions import (
    ALL_HTTP1,
    ALL_HTTP2,
    HttpVersion,
    TrafficSplit,
    VersionWeights,
    http2_only_marker,
    http_versions,
    traffic_split,
)
from adsum.gateway.encoding.clusters.tls import MAX_VERIFIED_IPS, TRANSPORT_MATCH_KEY, TlsPeers, canonical_ip
from adsum.gateway.intent.actions import Mirror, Target
from adsum.gateway.intent.intent import NO_INTENT, Intent
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.intent.upstreams import Upstream, UpstreamProtocol, UpstreamTls
from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources.compiled_resources import NO_RESOURCES, CompiledResources
from adsum.gateway.resources.resources import ResourceKind
from tests.gateway.echo_services import listing
from tests.gateway.real_envoy import decode_resource

PROFILE = GatewayProfile(("127.0.0.1:8080",), roots="/roots.pem")
ADDRESSES = {"a.example": "10.1.0.1", "b.example": "10.1.0.2"}
HTTP = listing("s", "http", 1)
GRPC = listing("s", "grpc", 2, scheme="grpc")
H2C = listing("s", "h2c", 3, scheme="h2c")


def loaded(*listings: Listing) -> snapshots.Snapshot:
    return snapshots.load_snapshot(FullState("e", 1, [(1, item) for item in listings]))


def compiled(*listings: Listing, intent: Intent = NO_INTENT) -> CompiledResources:
    return NO_RESOURCES.advance(loaded(*listings), intent, ADDRESSES)


def transports(one: CompiledResources) -> dict[str, tuple[bool, str]]:
    """Returns for each instance whether Envoy reaches it over HTTP/2, and its transport."""
    tables = one.gateway_resources(PROFILE)
    found: dict[str, tuple[bool, str]] = {}
    for name, resource in tables[ResourceKind.ASSIGNMENT].items():
        cluster = decode_resource(tables[ResourceKind.CLUSTER][name])
        options = HttpProtocolOptions()
        assert cluster.typed_extension_protocol_options[options.DESCRIPTOR.full_name].Unpack(options)
        http2 = options.explicit_http_config.HasField("http2_protocol_options")
        localities = decode_resource(resource).endpoints
        for endpoint in chain.from_iterable(locality.lb_endpoints for locality in localities):
            id = endpoint.metadata.filter_metadata["adsum"]["id"]
            assert id not in found
            found[id] = http2, _transport(cluster, endpoint)
    return found


def _transport(cluster: Any, endpoint: Any) -> str:
    assert not cluster.HasField("transport_socket")
    metadata = (
        dict(endpoint.metadata.filter_metadata[TRANSPORT_MATCH_KEY])
        if TRANSPORT_MATCH_KEY in endpoint.metadata.filter_metadata
        else {}
    )
    for match in cluster.transport_socket_matches:
        if dict(match.match).items() <= metadata.items():
            context = UpstreamTlsContext()
            if not match.transport_socket.typed_config.Unpack(context):
                return "plain"
            hostname = endpoint.endpoint.hostname if context.auto_host_sni else context.sni
            return f"{hostname} {str(context.common_tls_context).strip()} {context.auto_sni_san_validation}"
    assert not metadata, "an instance with TLS would receive plain text"
    return "plain"


instances = st.builds(
    lambda n, scheme, address, status, weight: listing(
        "s", f"i{n}", 1000 + n, scheme=scheme, address=address, status=status, weight=weight
    ),
    st.integers(0, 9),
    st.sampled_from(["http", "https", "grpc", "grpcs", "h2", "h2c", "wss"]),
    st.sampled_from(["10.0.0.1", "10.0.0.2", "::1", "a.example", "b.example"]),
    st.sampled_from(Status),
    st.integers(1, 3),
)
upstreams = st.builds(
    lambda protocol, tls: Upstream("s", protocol=protocol, tls=tls),
    st.sampled_from(UpstreamProtocol),
    st.sampled_from(
        [UpstreamTls(), UpstreamTls(ca="/ca.pem"), UpstreamTls(name="one.example"), UpstreamTls(verify=False)]
    ),
)


@given(st.lists(instances, min_size=1, max_size=6, unique_by=lambda item: item.instance.id), upstreams)
@settings(max_examples=150)
def test_no_instance_changes_how_another_is_reached(listings: list[Listing], upstream: Upstream) -> None:
    intent = Intent((), {"s": upstream})
    alone = [transports(compiled(item, intent=intent)) for item in listings]
    together = transports(compiled(*listings, intent=intent))
    separately = {id: transport for found in alone for id, transport in found.items()}
    starting = {item.instance.id for item in listings if item.status is Status.STARTING}
    assert together == {id: transport for id, transport in separately.items() if id in together}
    assert separately.keys() - together.keys() <= starting, "only starting instances are left out beside others"


@given(
    st.lists(st.lists(instances, max_size=5, unique_by=lambda item: item.instance.id), min_size=1, max_size=4),
    upstreams,
)
@settings(max_examples=60)
def test_advancing_over_mixed_instances_equals_compiling_from_scratch(
    steps: list[list[Listing]], upstream: Upstream
) -> None:
    route = Route("r", to=(Target(Selector("s", without_metadata={"v": "1"})),), mirror=Mirror(Selector("s"), 0.5))
    intent = Intent((route,), {"s": upstream})
    snapshot, now = snapshots.EMPTY_SNAPSHOT, NO_RESOURCES
    for revision, listings in enumerate(steps, 1):
        changes = [Change(item.key, item, item.provenance) for item in listings]
        left = snapshot.service("s").listings if revision > 1 else {}
        ids = {item.instance.id for item in listings}
        changes += [Change(item.key, None, item.provenance) for id, item in left.items() if id not in ids]
        snapshot = snapshot.apply(Batch(revision, changes)) if changes else snapshot
        now = now.advance(snapshot, intent, ADDRESSES)
        tables = now.gateway_resources(PROFILE)
        fresh = NO_RESOURCES.advance(snapshot, intent, ADDRESSES).gateway_resources(PROFILE)
        for kind in ResourceKind:
            assert {name: resource.version for name, resource in tables[kind].items()} == {
                name: resource.version for name, resource in fresh[kind].items()
            }
        targets = [
            entry.route
            for host in decode_resource(tables[ResourceKind.ROUTES]["routes"]).virtual_hosts
            for entry in host.routes
            if entry.HasField("route") and not entry.route.cluster_specifier_plugin
        ]
        named = {cluster for target in targets for cluster, _ in target_clusters(target)}
        markers = {name for name in tables[ResourceKind.CLUSTER] if name.endswith("&only")}
        assert named <= tables[ResourceKind.CLUSTER].keys() - markers == tables[ResourceKind.ASSIGNMENT].keys()


def target_clusters(target: Any) -> list[tuple[str, int]]:
    """Returns the clusters of a route action, and their weights."""
    weighted = [(cluster.name, cluster.weight.value) for cluster in target.weighted_clusters.clusters]
    return weighted or [(target.cluster, 1)]


def default_route_clusters(one: CompiledResources) -> Mapping[str, list[tuple[str, int]]]:
    """Returns the clusters to which the default route by path sends gRPC calls, and those of other requests."""
    (any_host,) = [
        host
        for host in decode_resource(one.gateway_resources(PROFILE)[ResourceKind.ROUTES]["routes"]).virtual_hosts
        if host.name == "*"
    ]
    found: dict[str, list[tuple[str, int]]] = {}
    for entry in any_host.routes:
        if entry.match.prefix == "/s/":
            for kind in ("calls",) if entry.match.HasField("grpc") else ("calls", "requests"):
                found.setdefault(kind, target_clusters(entry.route))
    return found


@pytest.mark.parametrize(
    ("listings", "requests", "calls"),
    [
        ([HTTP], [("s", 1)], [("s", 1)]),
        ([GRPC], [("s?h2", 1)], [("s?h2", 1)]),
        ([HTTP, GRPC], [("s", 1)], [("s?h2", 1)]),
        ([HTTP, H2C], [("s", 5_000), ("s?h2", 5_000)], [("s?h2", 1)]),
        ([HTTP, GRPC, structs.replace(H2C, checks={"web": Status.CRITICAL})], [("s", 1)], [("s?h2", 1)]),
        ([structs.replace(HTTP, checks={"web": Status.CRITICAL}), GRPC], [("s?h2", 1)], [("s?h2", 1)]),
        ([HTTP, structs.replace(GRPC, checks={"web": Status.CRITICAL})], [("s", 1)], [("s", 1)]),
    ],
)
def test_requests_go_to_instances_that_can_take_them(
    listings: list[Listing], requests: list[tuple[str, int]], calls: list[tuple[str, int]]
) -> None:
    assert default_route_clusters(compiled(*listings)) == {"requests": requests, "calls": calls}


def _split(*listings: Listing) -> TrafficSplit:
    versions = http_versions((item.instance for item in listings), UpstreamProtocol.AUTO)
    return traffic_split(versions, listings, {})


def test_a_split_is_by_weight_without_reserves_and_unresolved_instances() -> None:
    heavy = listing("s", "heavy", 9, weight=6)
    assert _split(heavy, H2C).requests == VersionWeights(6, 1)
    assert _split(heavy, H2C, listing("s", "reserve", 8, scheme="h2c", weight=0)).requests == VersionWeights(6, 1)
    assert _split(HTTP, H2C, listing("s", "lost", 7, address="lost.example", weight=5)).requests == VersionWeights(1, 1)
    assert _split(HTTP) == ALL_HTTP1
    assert _split(GRPC, H2C) == ALL_HTTP2
    assert list(HttpVersion) == [HttpVersion.HTTP1, HttpVersion.HTTP2]


def test_a_target_keeps_its_share_when_its_instances_speak_both_versions() -> None:
    to = (Target(Selector("s"), 90), Target(Selector("other"), 10))
    one = compiled(HTTP, H2C, listing("other", "o", 4), intent=Intent((Route("r", to=to),)))
    entries = [
        entry
        for host in decode_resource(one.gateway_resources(PROFILE)[ResourceKind.ROUTES]["routes"]).virtual_hosts
        for entry in host.routes
    ]
    requests, *_ = [
        target_clusters(entry.route) for entry in entries if entry.name == "r" and not entry.match.HasField("grpc")
    ]
    assert requests == [("s", 450_000), ("s?h2", 450_000), ("other", 100_000)]


def test_routes_change_only_with_a_status_that_changes_a_split() -> None:
    snapshot = loaded(HTTP, H2C)
    before = NO_RESOURCES.advance(snapshot, NO_INTENT, {})
    tables = before.gateway_resources(PROFILE)
    sick = structs.replace(HTTP, checks={"web": Status.CRITICAL})
    after = before.advance(snapshot.apply(Batch(2, [Change(sick.key, sick, sick.provenance)])), NO_INTENT, {})
    assert default_route_clusters(after)["requests"] == [("s?h2", 1)]
    same = structs.replace(HTTP, checks={"web": Status.WARNING})
    warned = before.advance(snapshot.apply(Batch(2, [Change(same.key, same, same.provenance)])), NO_INTENT, {})
    assert warned.gateway_resources(PROFILE)[ResourceKind.ROUTES] is tables[ResourceKind.ROUTES]
    assert (
        warned.gateway_resources(PROFILE)[ResourceKind.ASSIGNMENT]["s?h2"].version
        == tables[ResourceKind.ASSIGNMENT]["s?h2"].version
    )


def contexts(listings: Iterable[Listing], tls: UpstreamTls, roots: str = "/roots.pem") -> dict[str, UpstreamTlsContext]:
    """Returns the TLS contexts of the service's cluster, by the name of the match."""
    one = compiled(*listings, intent=Intent((), {"s": Upstream("s", tls=tls)}))
    cluster = decode_resource(one.gateway_resources(replace(PROFILE, roots=roots))[ResourceKind.CLUSTER]["s"])
    found = {}
    for match in cluster.transport_socket_matches:
        context = UpstreamTlsContext()
        if match.transport_socket.typed_config.Unpack(context):
            found[match.name] = context
    return found


def accepts_no_certificate(context: UpstreamTlsContext) -> bool:
    validation = context.common_tls_context.validation_context
    return list(validation.verify_certificate_hash) == ["00" * 32] and not validation.trusted_ca.filename


IPS = [listing("s", f"i{n}", address=address, scheme="https") for n, address in enumerate(("10.0.0.1", "::1"))]


def test_the_certificate_at_an_ip_is_verified_against_that_ip() -> None:
    found = contexts(IPS, UpstreamTls())
    assert set(found) == {"ip 10.0.0.1", "ip ::1", "name", "ip"}
    assert accepts_no_certificate(found["ip"])
    assert accepts_no_certificate(found["name"])
    (name,) = found["ip ::1"].common_tls_context.validation_context.match_typed_subject_alt_names
    assert (name.san_type, name.matcher.exact) == (name.IP_ADDRESS, "::1")
    assert not found["ip ::1"].sni
    assert not found["ip ::1"].auto_host_sni


def test_one_name_for_all_instances_needs_no_ips() -> None:
    assert set(contexts(IPS, UpstreamTls(name="one.example"))) == {"name", "ip"}
    assert contexts(IPS, UpstreamTls(name="one.example"))["ip"].sni == "one.example"
    unverified = contexts(IPS, UpstreamTls(verify=False))["ip"]
    assert not unverified.common_tls_context.HasField("validation_context")


def test_without_authorities_no_certificate_is_accepted() -> None:
    assert all(map(accepts_no_certificate, contexts(IPS, UpstreamTls(), roots="").values()))


def test_certificates_of_ips_past_the_bound_are_not_accepted() -> None:
    many = [
        listing("s", f"i{n}", address=f"10.{n >> 8}.{n & 255}.1", scheme="https") for n in range(MAX_VERIFIED_IPS + 5)
    ]
    assert len(contexts(many, UpstreamTls())) == MAX_VERIFIED_IPS + 2
    assert len(TlsPeers.from_instances(item.instance for item in many).ips) == MAX_VERIFIED_IPS + 5


@pytest.mark.parametrize(
    ("ip", "canonical"),
    [("10.0.0.1", "10.0.0.1"), ("2001:DB8:0::1", "2001:db8::1"), ("::ffff:a00:1", "::ffff:10.0.0.1")],
)
def test_an_ip_has_the_form_that_envoy_gives_to_ips_in_certificates(ip: str, canonical: str) -> None:
    assert canonical_ip(ip) == canonical


@pytest.mark.parametrize("status", [Status.STARTING, Status.PASSING])
def test_a_service_has_the_marker_while_all_its_instances_speak_http2(status: Status) -> None:
    marker = http2_only_marker("s")
    assert marker not in compiled(HTTP).gateway_resources(PROFILE)[ResourceKind.CLUSTER]
    alone = compiled(H2C)
    assert marker in alone.gateway_resources(PROFILE)[ResourceKind.CLUSTER]
    coming = structs.replace(HTTP, checks={"web": status})
    both = loaded(H2C).apply(Batch(2, [Change(coming.key, coming, coming.provenance)]))
    mixed = alone.advance(both, NO_INTENT, ADDRESSES)
    assert marker not in mixed.gateway_resources(PROFILE)[ResourceKind.CLUSTER]
    again = mixed.advance(both.apply(Batch(3, [Change(coming.key, None, coming.provenance)])), NO_INTENT, ADDRESSES)
    assert marker in again.gateway_resources(PROFILE)[ResourceKind.CLUSTER]


@pytest.mark.parametrize(("drained", "cluster"), [(HTTP, "s"), (H2C, "s?h2")])
def test_the_instances_of_one_version_are_unrouted_when_none_is_usable(drained: Listing, cluster: str) -> None:
    start = compiled(HTTP, H2C)
    assert not start.unrouted
    left = structs.replace(drained, checks={"web": Status.CRITICAL})
    after = loaded(HTTP, H2C).apply(Batch(2, [Change(left.key, left, left.provenance)]))
    assert start.advance(after, NO_INTENT, ADDRESSES).unrouted == {cluster}
