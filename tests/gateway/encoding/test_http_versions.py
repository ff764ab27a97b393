"""Each instance is spoken to by what it says of itself, whoever else is listed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import UpstreamTlsContext
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from hypothesis import given, settings
from hypothesis import strategies as st

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

SHAPE = GatewayProfile(("127.0.0.1:8080",), roots="/roots.pem")
ADDRESSES = {"a.example": "10.1.0.1", "b.example": "10.1.0.2"}
HTTP = listing("s", "http", 1)
GRPC = listing("s", "grpc", 2, scheme="grpc")
H2C = listing("s", "h2c", 3, scheme="h2c")


def loaded(*listings: Listing) -> snapshots.Snapshot:
    return snapshots.load_snapshot(FullState("e", 1, [(1, each) for each in listings]))


def compiled(*listings: Listing, intent: Intent = NO_INTENT) -> CompiledResources:
    return NO_RESOURCES.advance(loaded(*listings), intent, ADDRESSES)


def spoken_to(one: CompiledResources) -> dict[str, tuple[bool, str]]:
    """By id: whether an instance is spoken to in HTTP/2, and by which transport, as Envoy would find it."""
    tables = one.gateway_resources(SHAPE)
    ways: dict[str, tuple[bool, str]] = {}
    for name, resource in tables[ResourceKind.ASSIGNMENT].items():
        cluster = decode_resource(tables[ResourceKind.CLUSTER][name])
        options = HttpProtocolOptions()
        assert cluster.typed_extension_protocol_options[options.DESCRIPTOR.full_name].Unpack(options)
        http2 = options.explicit_http_config.HasField("http2_protocol_options")
        for endpoint in (each for locality in decode_resource(resource).endpoints for each in locality.lb_endpoints):
            id = endpoint.metadata.filter_metadata["adsum"]["id"]
            assert id not in ways
            ways[id] = http2, _transport(cluster, endpoint)
    return ways


def _transport(cluster: Any, endpoint: Any) -> str:
    assert not cluster.HasField("transport_socket")
    said = (
        dict(endpoint.metadata.filter_metadata[TRANSPORT_MATCH_KEY])
        if TRANSPORT_MATCH_KEY in endpoint.metadata.filter_metadata
        else {}
    )
    for each in cluster.transport_socket_matches:
        if dict(each.match).items() <= said.items():
            context = UpstreamTlsContext()
            if not each.transport_socket.typed_config.Unpack(context):
                return "plain"
            hostname = endpoint.endpoint.hostname if context.auto_host_sni else context.sni
            return f"{hostname} {str(context.common_tls_context).strip()} {context.auto_sni_san_validation}"
    assert not said, "an instance that speaks TLS would be sent plain text"
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


@given(st.lists(instances, min_size=1, max_size=6, unique_by=lambda each: each.instance.id), upstreams)
@settings(max_examples=150)
def test_nobody_who_comes_changes_how_another_is_spoken_to(listings: list[Listing], upstream: Upstream) -> None:
    intent = Intent((), {"s": upstream})
    alone = [spoken_to(compiled(each, intent=intent)) for each in listings]
    together = spoken_to(compiled(*listings, intent=intent))
    ways = {id: way for each in alone for id, way in each.items()}
    starting = {each.instance.id for each in listings if each.status is Status.STARTING}
    assert together == {id: way for id, way in ways.items() if id in together}
    assert ways.keys() - together.keys() <= starting, "only who has not passed a check yet is left out beside others"


@given(
    st.lists(st.lists(instances, max_size=5, unique_by=lambda each: each.instance.id), min_size=1, max_size=4),
    upstreams,
)
@settings(max_examples=60)
def test_following_whoever_comes_and_goes_comes_to_the_same_as_compiling_anew(
    steps: list[list[Listing]], upstream: Upstream
) -> None:
    route = Route("r", to=(Target(Selector("s", without_metadata={"v": "1"})),), mirror=Mirror(Selector("s"), 0.5))
    intent = Intent((route,), {"s": upstream})
    snapshot, now = snapshots.EMPTY_SNAPSHOT, NO_RESOURCES
    for revision, listings in enumerate(steps, 1):
        changes = [Change(each.key, each, each.provenance) for each in listings]
        left = snapshot.service("s").listings if revision > 1 else {}
        ids = {each.instance.id for each in listings}
        changes += [Change(each.key, None, each.provenance) for id, each in left.items() if id not in ids]
        snapshot = snapshot.apply(Batch(revision, changes)) if changes else snapshot
        now = now.advance(snapshot, intent, ADDRESSES)
        tables, anew = (
            now.gateway_resources(SHAPE),
            NO_RESOURCES.advance(snapshot, intent, ADDRESSES).gateway_resources(SHAPE),
        )
        for kind in ResourceKind:
            assert {name: each.version for name, each in tables[kind].items()} == {
                name: each.version for name, each in anew[kind].items()
            }
        targets = [
            entry.route
            for host in decode_resource(tables[ResourceKind.ROUTES]["routes"]).virtual_hosts
            for entry in host.routes
            if entry.HasField("route") and not entry.route.cluster_specifier_plugin
        ]
        named = {cluster for target in targets for cluster, _ in shared(target)}
        marks = {name for name in tables[ResourceKind.CLUSTER] if name.endswith("&only")}
        assert named <= tables[ResourceKind.CLUSTER].keys() - marks == tables[ResourceKind.ASSIGNMENT].keys()


def shared(target: Any) -> list[tuple[str, int]]:
    """The clusters that a route sends to, and their weights."""
    weighted = [(each.name, each.weight.value) for each in target.weighted_clusters.clusters]
    return weighted or [(target.cluster, 1)]


def routed(one: CompiledResources) -> Mapping[str, list[tuple[str, int]]]:
    """Where the default route by path sends gRPC calls, and everything else."""
    (anywhere,) = [
        each
        for each in decode_resource(one.gateway_resources(SHAPE)[ResourceKind.ROUTES]["routes"]).virtual_hosts
        if each.name == "*"
    ]
    found: dict[str, list[tuple[str, int]]] = {}
    for entry in anywhere.routes:
        if entry.match.prefix == "/s/":
            for kind in ("calls",) if entry.match.HasField("grpc") else ("calls", "requests"):
                found.setdefault(kind, shared(entry.route))
    return found


@pytest.mark.parametrize(
    ("listings", "requests", "calls"),
    [
        ([HTTP], [("s", 1)], [("s", 1)]),
        ([GRPC], [("s?h2", 1)], [("s?h2", 1)]),
        ([HTTP, GRPC], [("s", 1)], [("s?h2", 1)]),
        ([HTTP, H2C], [("s", 5_000), ("s?h2", 5_000)], [("s?h2", 1)]),
        ([HTTP, GRPC, replace(H2C, checks={"web": Status.CRITICAL})], [("s", 1)], [("s?h2", 1)]),
        ([replace(HTTP, checks={"web": Status.CRITICAL}), GRPC], [("s?h2", 1)], [("s?h2", 1)]),
        ([HTTP, replace(GRPC, checks={"web": Status.CRITICAL})], [("s", 1)], [("s", 1)]),
    ],
)
def test_requests_go_to_those_who_can_take_them(
    listings: list[Listing], requests: list[tuple[str, int]], calls: list[tuple[str, int]]
) -> None:
    assert routed(compiled(*listings)) == {"requests": requests, "calls": calls}


def _split(*listings: Listing) -> TrafficSplit:
    spoken = http_versions((each.instance for each in listings), UpstreamProtocol.AUTO)
    return traffic_split(spoken, listings, {})


def test_a_share_goes_by_weight_and_leaves_out_reserves_and_who_is_not_found() -> None:
    heavy = listing("s", "heavy", 9, weight=6)
    assert _split(heavy, H2C).requests == VersionWeights(6, 1)
    assert _split(heavy, H2C, listing("s", "reserve", 8, scheme="h2c", weight=0)).requests == VersionWeights(6, 1)
    assert _split(HTTP, H2C, listing("s", "lost", 7, address="lost.example", weight=5)).requests == VersionWeights(1, 1)
    assert _split(HTTP) == ALL_HTTP1
    assert _split(GRPC, H2C) == ALL_HTTP2
    assert list(HttpVersion) == [HttpVersion.HTTP1, HttpVersion.HTTP2]


def test_a_target_keeps_its_share_when_its_instances_differ() -> None:
    to = (Target(Selector("s"), 90), Target(Selector("other"), 10))
    one = compiled(HTTP, H2C, listing("other", "o", 4), intent=Intent((Route("r", to=to),)))
    entries = [
        each
        for host in decode_resource(one.gateway_resources(SHAPE)[ResourceKind.ROUTES]["routes"]).virtual_hosts
        for each in host.routes
    ]
    requests, *_ = [shared(each.route) for each in entries if each.name == "r" and not each.match.HasField("grpc")]
    assert requests == [("s", 450_000), ("s?h2", 450_000), ("other", 100_000)]


def test_a_status_reroutes_a_service_whose_instances_differ_and_no_other() -> None:
    snapshot = loaded(HTTP, H2C)
    before = NO_RESOURCES.advance(snapshot, NO_INTENT, {})
    tables = before.gateway_resources(SHAPE)
    sick = replace(HTTP, checks={"web": Status.CRITICAL})
    after = before.advance(snapshot.apply(Batch(2, [Change(sick.key, sick, sick.provenance)])), NO_INTENT, {})
    assert routed(after)["requests"] == [("s?h2", 1)]
    same = replace(HTTP, checks={"web": Status.WARNING})
    warned = before.advance(snapshot.apply(Batch(2, [Change(same.key, same, same.provenance)])), NO_INTENT, {})
    assert warned.gateway_resources(SHAPE)[ResourceKind.ROUTES] is tables[ResourceKind.ROUTES]
    assert (
        warned.gateway_resources(SHAPE)[ResourceKind.ASSIGNMENT]["s?h2"].version
        == tables[ResourceKind.ASSIGNMENT]["s?h2"].version
    )


def contexts(listings: Iterable[Listing], tls: UpstreamTls, roots: str = "/roots.pem") -> dict[str, UpstreamTlsContext]:
    """The TLS of a service's cluster, by the name of the match."""
    one = compiled(*listings, intent=Intent((), {"s": Upstream("s", tls=tls)}))
    cluster = decode_resource(one.gateway_resources(replace(SHAPE, roots=roots))[ResourceKind.CLUSTER]["s"])
    found = {}
    for each in cluster.transport_socket_matches:
        context = UpstreamTlsContext()
        if each.transport_socket.typed_config.Unpack(context):
            found[each.name] = context
    return found


def is_sealed(context: UpstreamTlsContext) -> bool:
    validation = context.common_tls_context.validation_context
    return list(validation.verify_certificate_hash) == ["00" * 32] and not validation.trusted_ca.filename


IPS = [listing("s", f"i{n}", address=address, scheme="https") for n, address in enumerate(("10.0.0.1", "::1"))]


def test_at_an_ip_the_certificate_is_held_to_that_ip() -> None:
    found = contexts(IPS, UpstreamTls())
    assert set(found) == {"ip 10.0.0.1", "ip ::1", "name", "ip"}
    assert is_sealed(found["ip"])
    assert is_sealed(found["name"])
    (name,) = found["ip ::1"].common_tls_context.validation_context.match_typed_subject_alt_names
    assert (name.san_type, name.matcher.exact) == (name.IP_ADDRESS, "::1")
    assert not found["ip ::1"].sni
    assert not found["ip ::1"].auto_host_sni


def test_what_holds_for_all_needs_no_ips() -> None:
    assert set(contexts(IPS, UpstreamTls(name="one.example"))) == {"name", "ip"}
    assert contexts(IPS, UpstreamTls(name="one.example"))["ip"].sni == "one.example"
    unverified = contexts(IPS, UpstreamTls(verify=False))["ip"]
    assert not unverified.common_tls_context.HasField("validation_context")


def test_without_authorities_nothing_is_sent_and_the_cluster_stands() -> None:
    assert all(map(is_sealed, contexts(IPS, UpstreamTls(), roots="").values()))


def test_ips_are_bounded_and_those_beyond_are_sealed() -> None:
    many = [
        listing("s", f"i{n}", address=f"10.{n >> 8}.{n & 255}.1", scheme="https") for n in range(MAX_VERIFIED_IPS + 5)
    ]
    assert len(contexts(many, UpstreamTls())) == MAX_VERIFIED_IPS + 2
    assert len(TlsPeers.from_instances(each.instance for each in many).ips) == MAX_VERIFIED_IPS + 5


@pytest.mark.parametrize(
    ("ip", "said"),
    [("10.0.0.1", "10.0.0.1"), ("2001:DB8:0::1", "2001:db8::1"), ("::ffff:a00:1", "::ffff:10.0.0.1")],
)
def test_an_ip_is_written_as_in_certificates(ip: str, said: str) -> None:
    assert canonical_ip(ip) == said


@pytest.mark.parametrize("status", [Status.STARTING, Status.PASSING])
def test_a_service_is_marked_for_as_long_as_all_of_its_instances_speak_http2(status: Status) -> None:
    mark = http2_only_marker("s")
    assert mark not in compiled(HTTP).gateway_resources(SHAPE)[ResourceKind.CLUSTER]
    alone = compiled(H2C)
    assert mark in alone.gateway_resources(SHAPE)[ResourceKind.CLUSTER]
    coming = replace(HTTP, checks={"web": status})
    both = loaded(H2C).apply(Batch(2, [Change(coming.key, coming, coming.provenance)]))
    mixed = alone.advance(both, NO_INTENT, ADDRESSES)
    assert mark not in mixed.gateway_resources(SHAPE)[ResourceKind.CLUSTER]
    again = mixed.advance(both.apply(Batch(3, [Change(coming.key, None, coming.provenance)])), NO_INTENT, ADDRESSES)
    assert mark in again.gateway_resources(SHAPE)[ResourceKind.CLUSTER]


@pytest.mark.parametrize(("drained", "cluster"), [(HTTP, "s"), (H2C, "s?h2")])
def test_the_half_that_nobody_leads_to_any_more_is_emptied_after_the_routes(drained: Listing, cluster: str) -> None:
    start = compiled(HTTP, H2C)
    assert not start.unrouted
    left = replace(drained, checks={"web": Status.CRITICAL})
    after = loaded(HTTP, H2C).apply(Batch(2, [Change(left.key, left, left.provenance)]))
    assert start.advance(after, NO_INTENT, ADDRESSES).unrouted == {cluster}
