"""The registry accepts everything back that it sends to xDS clients: names, versions, nodes and counts."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from types import MappingProxyType

import pytest
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adsum.config.gateway import GatewayConfig
from adsum.core import model, validation
from adsum.core.catalog import snapshots
from adsum.core.catalog.changes import FullState
from adsum.core.catalog.decisions import MAX_SERVICES
from adsum.core.errors import Invalid
from adsum.core.model import Listing
from adsum.dialects.xds.streams import delta, responses
from adsum.dialects.xds.streams.request import MAX_REQUEST_BYTES, parse_delta, parse_sotw
from adsum.dialects.xds.streams.session import StreamSession
from adsum.dialects.xds.subscribers import GatewaySubscribers
from adsum.envoy.plan import default_node_name
from adsum.gateway.encoding.clusters import assignments
from adsum.gateway.intent.actions import Target
from adsum.gateway.intent.intent import MAX_SELECTORS, Intent
from adsum.gateway.intent.matches import MatchKind, PathMatch
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import MAX_SELECTOR_CONDITIONS, MAX_SELECTOR_NAME_LENGTH, Selector
from adsum.gateway.profile import MAX_FILE_PATH_LENGTH, GatewayProfile
from adsum.gateway.resources.compiled_resources import NO_RESOURCES
from adsum.gateway.resources.resources import VERSION_HASH_BYTES, Resource, ResourceKind, encode_resource
from tests.gateway import strategies
from tests.gateway.echo_services import listing
from tests.support import strategies as common

LONG_TAGS = tuple(letter * 60 for letter in "abcdefgh")


@st.composite
def long_selectors(draw: st.DrawFn) -> Selector:
    """Generates selectors up to the maximum length."""
    tags = draw(st.lists(common.texts(min_size=1), max_size=MAX_SELECTOR_CONDITIONS, unique=True))
    without = draw(st.lists(common.texts(min_size=1), max_size=MAX_SELECTOR_CONDITIONS, unique=True))
    pairs, missing = draw(common.metadata), draw(common.metadata)
    return Selector(
        draw(common.service_names),
        tuple(tags),
        pairs,
        tuple(tag for tag in without if tag not in tags),
        model.freeze({key: value for key, value in missing.items() if pairs.get(key) != value}),
    )


@st.composite
def long_intents(draw: st.DrawFn) -> Intent:
    """Generates intents, with routes to long selectors."""
    intent = draw(strategies.intents())
    chosen = draw(st.lists(long_selectors(), max_size=3))
    routes = [
        Route(f"long{n}", path=PathMatch(MatchKind.PREFIX, f"/{n}"), to=(Target(selector),))
        for n, selector in enumerate(chosen)
    ]
    return Intent((*intent.routes, *routes), MappingProxyType(dict(intent.upstreams)))


profiles = st.builds(
    GatewayProfile,
    st.lists(
        st.one_of(
            st.ip_addresses(v=4).map(lambda ip: f"{ip}:8080"), st.ip_addresses(v=6).map(lambda ip: f"[{ip}]:65535")
        ),
        min_size=1,
        max_size=8,
        unique=True,
    ).map(tuple),
    st.booleans(),
    st.sampled_from(["json", "text", "off"]),
    trusted_hops=st.integers(0, 16),
    zone=common.texts(),
    roots=common.texts(MAX_FILE_PATH_LENGTH - 1).map("/".__add__),
)


def _check_accepted(kind: ResourceKind, resources: Iterable[Resource], nonce: str = "1.1") -> None:
    """Checks that requests with the names and versions of these resources are accepted, in both variants."""
    versions = {resource.name: resource.version for resource in resources}
    delta = DeltaDiscoveryRequest(type_url=kind.value, response_nonce=nonce, initial_resource_versions=versions)
    delta.resource_names_subscribe.extend(versions)
    delta.resource_names_unsubscribe.extend(versions)
    message = parse_delta(delta.SerializeToString()).body
    assert message is not None
    assert dict(message.initial_versions) == versions
    whole = DiscoveryRequest(type_url=kind.value, response_nonce=nonce, version_info="7")
    whole.resource_names.extend(versions)
    assert parse_sotw(whole.SerializeToString()).body is not None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(long_intents(), st.lists(common.listings(), max_size=3, unique_by=lambda listing: listing.key), profiles)
def test_every_name_and_version_that_is_sent_is_accepted_back(
    intent: Intent, listings: list[Listing], profile: GatewayProfile
) -> None:
    snapshot = snapshots.load_snapshot(FullState("e", 1, [(1, listing) for listing in listings]))
    compiled = NO_RESOURCES.advance(snapshot, intent, {})
    for kind, table in compiled.gateway_resources(profile).items():
        _check_accepted(kind, table.values())
        assert all(name.isascii() for name in table)
    for service in snapshot.services:
        for kind in ResourceKind:
            found = compiled.grpc_resource(kind, service)
            _check_accepted(kind, [found] if found is not None else [])


def test_a_long_selector_has_a_short_name_with_the_same_beginning() -> None:
    selector = Selector("v", tags=LONG_TAGS)
    route = Route("chosen", path=PathMatch(MatchKind.PREFIX, "/chosen"), to=(Target(selector),))
    snapshot = snapshots.load_snapshot(
        FullState("e", 1, [(1, listing("v", "a", tags=LONG_TAGS)), (1, listing("v", "b"))])
    )
    tables = NO_RESOURCES.advance(snapshot, Intent((route,)), {}).gateway_resources(GatewayProfile(("127.0.0.1:8080",)))
    assert set(tables[ResourceKind.CLUSTER]) == set(tables[ResourceKind.ASSIGNMENT]) == {"v", selector.name}
    assert len(selector.name) == MAX_SELECTOR_NAME_LENGTH
    assert selector.name.startswith("v?tag=aaaa")
    assert selector.name.encode() in tables[ResourceKind.ROUTES]["routes"].delta


@settings(max_examples=40, deadline=None)
@given(long_selectors(), long_selectors())
def test_different_selectors_have_different_names(one: Selector, other: Selector) -> None:
    assert (one.name == other.name) is (one.text == other.text)


def test_no_selector_can_have_the_name_of_a_shortened_one() -> None:
    long = Selector("v", tags=LONG_TAGS)
    pretender = Selector("v", tags=(long.name.removeprefix("v?tag="),))
    assert pretender.name != long.name


@settings(max_examples=40, deadline=None)
@given(profiles)
def test_the_profile_of_a_gateway_survives_its_metadata(profile: GatewayProfile) -> None:
    request = DiscoveryRequest(type_url=ResourceKind.CLUSTER.value)
    request.node.id = "gw"
    request.node.user_agent_name = "envoy"
    json_format.ParseDict(profile.metadata(), request.node.metadata)
    node = parse_sotw(request.SerializeToString()).node()
    assert node is not None
    assert GatewayProfile.from_metadata(node.metadata) == profile


def test_a_gateway_with_the_maximum_of_resources_can_reconnect() -> None:
    names = [f"{n:0{validation.MAX_SERVICE_NAME_LENGTH}}" for n in range(MAX_SERVICES)]
    names += [f"{n:0{MAX_SELECTOR_NAME_LENGTH}}" for n in range(MAX_SELECTORS)]
    names += [f"{name}&h2" for name in names]  # The clusters of instances that speak HTTP/2.
    request = DeltaDiscoveryRequest(
        type_url=ResourceKind.ASSIGNMENT.value,
        resource_names_subscribe=names,
        initial_resource_versions=dict.fromkeys(names, "f" * 2 * VERSION_HASH_BYTES),
    )
    request.node.id = "x" * validation.MAX_NODE_ID_LENGTH
    message = request.SerializeToString()
    assert len(message) + MAX_FILE_PATH_LENGTH * 8 < MAX_REQUEST_BYTES
    body = parse_delta(message).body
    assert body is not None
    subscribers = GatewaySubscribers()
    assert StreamSession(delta, subscribers).receive(body) == ""


@pytest.mark.parametrize("name", ["v", "v" * 127, "v" * 128])
def test_an_assignment_without_instances_is_recognized_by_its_version(name: str) -> None:
    known = encode_resource(ResourceKind.ASSIGNMENT, name, assignments.assignment(name, (), {}), 1)
    assert responses.empty_versions(name) == (known.version, responses.empty_assignment(name).version)


def _node(id: str) -> str:
    message = DiscoveryRequest(type_url=ResourceKind.CLUSTER.value)
    message.node.id = id
    node = parse_sotw(message.SerializeToString()).node()
    assert node is not None
    return node.id


@pytest.mark.parametrize("host", ["", "web1", "x" * 255, "web\n1", "\u202ehost"])
def test_the_default_id_of_a_gateway_is_accepted(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: host)
    found = default_node_name(GatewayConfig().profile())
    assert _node(found) == found
    assert found.endswith("-8080")


@pytest.mark.parametrize("node", ["x" * validation.MAX_NODE_ID_LENGTH, "gateway éè"])
def test_every_valid_id_of_a_gateway_is_accepted(node: str) -> None:
    assert _node(GatewayConfig(node=node).node) == node


@pytest.mark.parametrize("node", ["x" * (validation.MAX_NODE_ID_LENGTH + 1), "a\nb", "a\u200bb"])
def test_an_id_that_the_registry_would_refuse_is_refused_by_the_option(node: str) -> None:
    with pytest.raises(Invalid) as refused:
        GatewayConfig(node=node)
    assert refused.value.field == "node"


@pytest.mark.parametrize("address", ["[" + "0" * 600 + "::1]:80", "999.1.1.1:80", "1.2.3.4.5:80", "[1.2.3.4:80"])
def test_a_listener_must_be_named_by_an_address(address: str) -> None:
    with pytest.raises(Invalid):
        GatewayProfile((address,))
