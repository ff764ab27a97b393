"""Clusters that a client rejects: nothing waits for them, and callers of their services get the reason."""

from __future__ import annotations

from types import ModuleType

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster

from adsum.dialects.xds.streams import delta, sotw
from adsum.dialects.xds.streams.request import MAX_REJECTION_LENGTH
from adsum.dialects.xds.streams.resource_view import MAX_CAUSE_LENGTH, REJECTED_RETRY_INTERVAL
from adsum.dialects.xds.streams.session import StreamSession
from adsum.dialects.xds.subscribers import MAX_LISTED_SERVICES, GatewaySubscribers, GrpcSubscribers
from adsum.gateway.resources.resources import ResourceKind, encode_resource
from tests.dialects.xds.fakes import (
    CDS,
    EDS,
    LDS,
    RDS,
    Contents,
    FakeCompiled,
    FakeXdsClient,
    resources,
)
from tests.dialects.xds.streams.rejecting_client import WRONG, RejectingClient, is_substitute

CAUSE = "the gateway refuses the settings of this service: Invalid path: no-such-file.pem"


def _world(**clusters: int) -> Contents:
    """Returns the contents of these clusters, with routes that differ by their number."""
    return {CDS: clusters, EDS: dict.fromkeys(clusters, 1), LDS: {"main": 1}, RDS: {"main": len(clusters)}}


@pytest.fixture(params=[delta, sotw], ids=["delta", "sotw"])
def client(request: pytest.FixtureRequest) -> RejectingClient:
    client = RejectingClient(request.param)
    client.publish(_world(a=1))
    client.connect()
    client.wrong = {"typo": 1}
    return client


def test_a_rejected_cluster_delays_no_other_service_and_no_drain(client: RejectingClient) -> None:
    client.publish(_world(a=1, typo=1))
    client.settle()
    assert client.session.is_current, "a drain need not wait"
    client.publish(_world(a=1, typo=1, b=1))
    kinds = [response.kind for response in client.settle()]
    assert kinds == [CDS, EDS, RDS], "no time has passed"
    assert client.session.is_current


def test_a_cluster_beside_a_rejected_one_gets_its_assignment_before_the_routes(client: RejectingClient) -> None:
    client.publish(_world(a=1, typo=1, b=1))
    kinds = [response.kind for response in client.settle()]
    assert kinds.index(RDS) > kinds.index(EDS)
    assert "b" in client.resources[EDS]


def test_callers_of_a_rejected_cluster_get_the_reason_without_paths_of_the_gateway(
    client: RejectingClient,
) -> None:
    client.publish(_world(a=1, typo=1))
    client.settle()
    assert client.cause("typo") == CAUSE
    assert client.cluster("typo").metadata.filter_metadata["adsum"]["service"] == "typo"
    assert not client.cluster("typo").load_assignment.endpoints
    assert client.session.rejection(CDS) == f"Error adding/updating cluster(s) typo: {WRONG}", (
        "operators see the whole reason"
    )


def test_callers_of_two_rejected_clusters_get_the_reason_of_their_own(client: RejectingClient) -> None:
    client.wrong = {"typo": 1, "z": 1}
    client.publish(_world(a=1, typo=1, z=1))
    client.settle()
    assert client.cause("typo") == CAUSE
    assert client.cause("z") == CAUSE


def test_a_rejected_cluster_is_sent_once_more_and_then_not_until_it_changes(client: RejectingClient) -> None:
    client.publish(_world(a=1, typo=1))
    client.settle()
    assert client.refusals == 2
    client.publish(_world(a=1, typo=1, b=1))
    client.settle()
    assert client.refusals == 2, "another service's change does not send it again"
    client.publish(_world(a=1, typo=2, b=1))
    client.settle()
    assert client.refusals == 2
    assert client.cause("typo") == ""
    assert "typo" in client.resources[EDS]
    assert client.session.rejection(CDS) == ""


def test_a_rejected_cluster_is_sent_again_after_a_while_and_accepted_once_valid(client: RejectingClient) -> None:
    client.publish(_world(a=1, typo=1))
    client.settle()
    assert client.session.has_deferred, "it is sent again without a change"
    client.now += REJECTED_RETRY_INTERVAL
    client.settle()
    assert (client.refusals, client.cause("typo")) == (3, CAUSE)
    client.wrong = {}
    client.now += REJECTED_RETRY_INTERVAL - 1.0
    client.settle()
    assert client.cause("typo") == CAUSE
    client.now += 1.0
    client.settle()
    assert client.cause("typo") == ""
    assert "typo" in client.resources[EDS]
    assert client.session.is_current
    assert not client.session.has_deferred


def test_a_cluster_whose_change_is_rejected_keeps_its_version(client: RejectingClient) -> None:
    client.wrong = {"a": 2}
    client.publish(_world(a=2))
    client.settle()
    assert client.refusals == 1
    assert not is_substitute(client.cluster("a"))
    assert client.session.is_current
    assert client.session.rejection(CDS)


def test_a_substitute_is_sent_once_beside_a_cluster_whose_change_is_rejected(client: RejectingClient) -> None:
    client.wrong = {"a": 2, "typo": 1}
    client.publish(_world(a=2))
    client.settle()
    client.publish(_world(a=2, typo=1))
    client.settle()
    assert client.used["a"].alt_stat_name == "1"
    assert is_substitute(client.used["typo"])
    assert client.cause("typo") == CAUSE
    assert client.session.is_current


def test_a_rejected_cluster_that_is_gone_is_neither_sent_nor_shown(client: RejectingClient) -> None:
    client.publish(_world(a=1, typo=1))
    client.settle()
    client.publish(_world(a=1))
    client.settle()
    assert "typo" not in client.resources[CDS]
    assert client.session.rejection(CDS) == ""
    assert not client.session.has_deferred


def test_a_cluster_with_a_late_subscription_gets_no_substitute(client: RejectingClient) -> None:
    client.publish(_world(a=1, typo=1))
    client.settle()
    subscribed = client.names[EDS]
    client.request(
        EDS, *([] if client.is_delta else subscribed), "typo", nonce="" if client.is_delta else client.nonces[EDS]
    )
    client.wrong = {}
    client.settle()
    assert client.cause("typo") == ""


def test_a_reason_that_names_no_cluster_is_not_shown_to_callers(client: RejectingClient) -> None:
    client.publish(_world(a=1, typo=1))
    for _ in range(2):
        client.receive()
        client.ack(CDS, error="x" * MAX_REJECTION_LENGTH)
    client.receive()
    assert client.cause("typo") == "the gateway refuses the settings of this service"
    assert len(client.cause("typo")) <= MAX_CAUSE_LENGTH


@pytest.mark.parametrize("variant", [delta, sotw], ids=["delta", "sotw"])
def test_a_grpc_client_that_rejects_a_cluster_gets_no_substitute_and_waits_for_nothing(variant: ModuleType) -> None:
    subscribers = GrpcSubscribers()
    found = FakeCompiled(resources({**_world(a=1, b=1), LDS: {"a": 1, "b": 1}, RDS: {"a": 1, "b": 1}}))
    subscribers.publish(found, None, 1, 1)
    client = FakeXdsClient(variant, StreamSession(variant, subscribers))
    client.request(CDS, "a")
    client.receive()
    client.ack(CDS, error="no")
    assert client.receive() is None
    client.request(LDS, "b")
    assert [response.kind for response in client.settle()] == [LDS]


def test_a_status_names_the_services_that_a_gateway_can_not_use() -> None:
    subscribers = GatewaySubscribers()
    names = [f"s{n}" for n in range(MAX_LISTED_SERVICES + 2)]
    unusable = {name: encode_resource(CDS, name, Cluster(name=name), 1, "no authorities") for name in names}
    subscribers.publish({CDS: {**unusable, "fine": encode_resource(CDS, "fine", Cluster(name="fine"), 1)}}, 1, 1)
    session = StreamSession(delta, subscribers)
    assert session.rejection(CDS) == "s0, s1, s2, s3, s4 and 2 more: no authorities"
    assert session.rejection(ResourceKind.ROUTES) == ""
    subscribers.publish({CDS: {"fine": encode_resource(CDS, "fine", Cluster(name="fine"), 1)}}, 2, 2)
    assert session.rejection(CDS) == ""
