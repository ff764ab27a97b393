"""The session of one stream without a network: which responses it sends, and when."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest

from adsum.dialects.xds import subscribers
from adsum.dialects.xds.streams import delta, sotw
from adsum.dialects.xds.streams.delta import MAX_RESPONSE_BYTES
from adsum.dialects.xds.streams.errors import StreamRefused
from adsum.dialects.xds.streams.request import MAX_GATEWAY_NAMES
from adsum.dialects.xds.streams.session import DEPENDENCY_TIMEOUT, StreamSession
from adsum.dialects.xds.subscribers import (
    NAME_OVERHEAD_BYTES,
    GatewaySubscribers,
    GrpcSubscribers,
    NameBudget,
    Subscriber,
)
from adsum.gateway.encoding.clusters.http_versions import HttpVersion
from adsum.gateway.resources.resources import ResourceKind
from tests.dialects.xds.fakes import (
    CDS,
    EDS,
    LDS,
    RDS,
    Contents,
    FakeCompiled,
    FakeXdsClient,
    content,
    resource,
    resources,
)

ONE: Contents = {CDS: {"a": 1}, EDS: {"a": 1}, LDS: {"main": 1}, RDS: {"main": 1}}
TWO: Contents = {CDS: {"a": 1, "b": 1}, EDS: {"a": 1, "b": 2}, LDS: {"main": 1}, RDS: {"main": 2}}


class SessionWorld:
    """A group of subscribers, and one client in it."""

    def __init__(self, variant: ModuleType) -> None:
        self.subscribers = GatewaySubscribers()
        self.variant = variant
        self.client = self.new()

    def new(self) -> FakeXdsClient:
        return FakeXdsClient(self.variant, StreamSession(self.variant, self.subscribers))

    def publish(self, contents: Contents, *unrouted: str) -> set[Subscriber]:
        number = self.subscribers.publication + 1
        return self.subscribers.publish(resources(contents), number, 10 * number, set(unrouted))

    def connect(self) -> None:
        """Subscribes as Envoy does: to all clusters, then to what they name."""
        client = self.client
        client.request(CDS)
        client.settle()
        client.request(EDS, *client.resources[CDS])
        client.request(LDS)
        client.settle()
        client.request(RDS, "main")
        client.settle()

    def check_resources(self, contents: Contents) -> None:
        expected = {
            kind: {name: content(resource) for name, resource in table.items()}
            for kind, table in resources(contents).items()
        }
        assert self.client.resources == expected


@pytest.fixture(params=[delta, sotw], ids=["delta", "sotw"])
def world(request: pytest.FixtureRequest) -> SessionWorld:
    return SessionWorld(request.param)


def _kinds(client: FakeXdsClient, since: int = 0) -> list[ResourceKind]:
    return [response.kind for response in client.responses[since:]]


def test_nothing_is_answered_before_the_catalog_is_loaded(world: SessionWorld) -> None:
    world.client.request(CDS)
    world.client.request(EDS, "a")
    assert world.client.receive() is None
    assert not world.client.session.is_current
    world.publish(ONE)
    assert {response.kind for response in world.client.settle()} == {CDS, EDS}


def test_a_client_that_subscribes_to_all_gets_all(world: SessionWorld) -> None:
    world.publish(ONE)
    world.connect()
    world.check_resources(ONE)
    assert world.client.session.is_current


def test_a_change_is_sent_to_its_subscribers_and_nothing_else(world: SessionWorld) -> None:
    world.publish(ONE)
    world.connect()
    before = len(world.client.responses)
    assert world.publish({**ONE, EDS: {"a": 3}}) == {world.client.session}
    assert _kinds(world.client, before) == []
    world.client.settle()
    assert _kinds(world.client, before) == [EDS]
    assert world.publish({**ONE, EDS: {"a": 3, "x": 1}}) == set(), "no client subscribes to x"


def test_unchanged_resources_are_not_sent_again(world: SessionWorld) -> None:
    world.publish(ONE)
    world.connect()
    assert world.publish(ONE) == set()
    assert world.client.settle() == []
    assert world.client.session.is_current


def test_routes_wait_until_the_clusters_that_they_name_are_warm(world: SessionWorld) -> None:
    world.publish(ONE)
    world.connect()
    client, before = world.client, len(world.client.responses)
    world.publish(TWO)
    assert client.receive() is not None
    assert client.receive() is None, "the routes wait for a subscription to the new cluster's assignment"
    client.ack(CDS)
    assert client.receive() is None
    client.request(EDS, *([] if client.is_delta else "a"), "b", nonce="" if client.is_delta else client.nonces[EDS])
    for _ in range(2):
        client.receive()
    assert _kinds(client, before) == [CDS, EDS, RDS]
    assert list(client.responses[before + 1].resources) == ["b"]
    world.check_resources(TWO)


def test_an_assignment_that_lost_its_last_instance_is_sent_after_the_routes(world: SessionWorld) -> None:
    world.publish(TWO)
    world.connect()
    client, before = world.client, len(world.client.responses)
    left = {**TWO, EDS: {"a": 2, "b": 0}, RDS: {"main": 3}}
    world.publish(left, "b")
    assert client.receive() is not None
    assert client.receive() is None
    assert list(client.responses[before].resources) == ["a"]
    client.ack(EDS)
    assert client.receive() is not None
    assert client.receive() is None, "the assignment waits until the routes are acknowledged"
    assert _kinds(client, before) == [EDS, RDS]
    assert not client.session.is_current
    client.ack(RDS, error="no")
    client.settle()
    assert _kinds(client, before) == [EDS, RDS, EDS], "also if the routes are rejected"
    world.check_resources(left)
    back = {**TWO, RDS: {"main": 4}}
    world.publish(back)
    client.settle()
    assert _kinds(client, before)[3:] == [EDS, RDS]
    world.check_resources(back)


def test_an_empty_assignment_does_not_wait_for_routes_that_are_unchanged_or_deferred(
    world: SessionWorld,
) -> None:
    world.publish(TWO)
    world.connect()
    client, before = world.client, len(world.client.responses)
    world.publish({**TWO, EDS: {"a": 1, "b": 0}}, "b")
    client.settle()
    assert _kinds(client, before) == [EDS]
    more = {CDS: {"a": 1, "b": 1, "c": 1}, EDS: {"a": 0, "b": 0, "c": 1}, LDS: {"main": 1}, RDS: {"main": 4}}
    world.publish(more, "a", "b")
    client.settle()
    assert _kinds(client, before)[1:] == [CDS, EDS], "the routes wait for the new cluster's assignment"
    assert client.session.is_current is False
    client.now = DEPENDENCY_TIMEOUT
    client.settle()
    assert _kinds(client, before)[3:] == [RDS]


def test_routes_wait_for_an_assignment_that_can_not_be_sent_yet(world: SessionWorld) -> None:
    world.publish(ONE)
    world.connect()
    client, before = world.client, len(world.client.responses)
    world.publish({**ONE, EDS: {"a": 2}})
    client.receive()
    world.publish({**ONE, EDS: {"a": 3}, RDS: {"main": 3}})
    assert client.receive() is None, "the assignment waits for its ACK, and the routes for it"
    client.ack(EDS)
    client.settle()
    assert _kinds(client, before) == [EDS, EDS, RDS]


def test_routes_are_sent_after_their_filters_and_wait_for_pending_ones(
    world: SessionWorld,
) -> None:
    filters = ResourceKind.FILTER
    world.publish({**ONE, filters: {"limits": 1}})
    world.connect()
    client = world.client
    client.request(filters, "limits")
    client.settle()
    before = len(client.responses)
    world.publish({**ONE, filters: {"limits": 2}, RDS: {"main": 2}})
    client.receive()
    world.publish({**ONE, filters: {"limits": 3}, RDS: {"main": 3}})
    assert client.receive() is None, "the filter waits for its ACK, and the routes for it"
    client.ack(filters)
    client.settle()
    assert _kinds(client, before) == [filters, filters, RDS]


def test_a_client_that_never_subscribes_to_the_assignment_gets_its_routes_after_a_timeout(world: SessionWorld) -> None:
    world.publish(ONE)
    world.connect()
    world.publish(TWO)
    client = world.client
    client.settle()
    assert client.session.has_deferred
    client.now += DEPENDENCY_TIMEOUT
    assert [response.kind for response in client.settle()] == [RDS]


def test_removals_come_last_and_in_the_opposite_order(world: SessionWorld) -> None:
    world.publish(TWO)
    world.connect()
    client, before = world.client, len(world.client.responses)
    world.publish({CDS: {"a": 1, "c": 1}, EDS: {"a": 1, "c": 1}, LDS: {"main": 1}, RDS: {"main": 3}})
    first = client.receive()
    assert first is not None
    assert "b" in client.resources[CDS], "the routes still name it"
    client.ack(CDS)
    client.request(EDS, "a", "b", "c") if not client.is_delta else client.request(EDS, "c")
    client.settle()
    assert _kinds(client, before) == [CDS, EDS, RDS, EDS, CDS]
    assert "b" not in client.resources[CDS]
    response = client.responses[-2]
    assert list(response.resources) == ["b"], (
        "an empty assignment is sent, since clients ignore removals of assignments"
    )
    assert response.removed == []


def test_the_assignment_of_a_changed_cluster_is_sent_again(world: SessionWorld) -> None:
    world.publish(ONE)
    world.connect()
    before = len(world.client.responses)
    world.publish({**ONE, CDS: {"a": 2}})
    world.client.settle()
    assert _kinds(world.client, before) == [CDS, EDS]
    assert list(world.client.responses[-1].resources) == ["a"]


def test_one_response_of_a_kind_is_in_flight_and_versions_in_between_are_skipped(world: SessionWorld) -> None:
    world.publish(ONE)
    world.connect()
    client, before = world.client, len(world.client.responses)
    world.publish({**ONE, EDS: {"a": 2}})
    assert client.receive() is not None
    for count in (3, 4, 5):
        world.publish({**ONE, EDS: {"a": count}})
        assert client.receive() is None
    client.ack(EDS)
    client.settle()
    assert len(client.responses) == before + 2
    world.check_resources({**ONE, EDS: {"a": 5}})


def test_a_rejected_configuration_is_not_sent_again_until_it_changes(world: SessionWorld) -> None:
    world.publish(ONE)
    world.connect()
    client = world.client
    world.publish({**ONE, EDS: {"a": 7}})
    client.receive()
    assert client.ack(EDS, error="  too\n many ") == "too many"
    assert client.settle() == []
    assert not client.session.is_current, "the client does not route by the rejected assignment"
    assert client.session.subscriptions[EDS].rejection == "too many"
    world.publish({**ONE, EDS: {"a": 8}})
    client.settle()
    assert world.client.session.subscriptions[EDS].rejection == ""
    assert world.client.session.is_current
    world.check_resources({**ONE, EDS: {"a": 8}})


def test_all_resources_of_a_rejected_response_are_sent_again_when_one_changes(world: SessionWorld) -> None:
    world.publish(TWO)
    world.connect()
    client = world.client
    world.publish({**TWO, EDS: {"a": 7, "b": 7}})
    response = client.receive()
    assert response is not None
    assert set(response.resources) == {"a", "b"}
    client.ack(EDS, error="a is wrong")
    world.publish({**TWO, EDS: {"a": 8, "b": 7}})
    response = client.receive()
    assert response is not None
    assert set(response.resources) == {"a", "b"}


def test_a_client_that_rejects_another_kind_still_counts_as_current(world: SessionWorld) -> None:
    world.publish(ONE)
    world.connect()
    world.publish({**ONE, RDS: {"main": 9}})
    world.client.receive()
    world.client.ack(RDS, error="no")
    assert world.client.session.is_current


@pytest.mark.parametrize("nonce", ["stale", "0", "1.99"])
def test_an_answer_with_another_nonce_than_the_last_acknowledges_nothing(world: SessionWorld, nonce: str) -> None:
    world.publish(ONE)
    world.connect()
    world.publish({**ONE, EDS: {"a": 2}})
    client = world.client
    client.receive()
    assert client.request(EDS, "a", nonce=nonce, error="lies") == ""
    assert client.session.subscriptions[EDS].in_flight is not None
    assert not client.session.is_current


def test_a_name_that_does_not_exist_is_answered_at_once(world: SessionWorld) -> None:
    world.publish(ONE)
    client = world.client
    client.request(CDS, "x")
    response = client.receive()
    assert response is not None
    assert response.resources == {}
    assert response.removed == (["x"] if client.is_delta else [])
    client.ack(CDS)
    client.request(EDS, "x")
    response = client.receive()
    assert response is not None
    assert list(response.resources) == ["x"], "an empty assignment"
    client.ack(EDS)
    assert client.settle() == []
    world.publish({**ONE, CDS: {"x": 1}, EDS: {"x": 1}})
    client.settle()
    assert set(client.resources[EDS]) == {"x"}


def test_unsubscribed_names_are_not_sent(world: SessionWorld) -> None:
    world.publish(TWO)
    client = world.client
    client.request(EDS, "a", "b")
    client.settle()
    if client.is_delta:
        client.request(EDS, resource_names_unsubscribe=["b"])
    else:
        client.request(EDS, "a", nonce=client.nonces[EDS])
    assert world.publish({**TWO, EDS: {"a": 1, "b": 9}}) == set()
    assert client.settle() == []
    client.request(EDS, "b") if client.is_delta else client.request(EDS, "a", "b", nonce=client.nonces[EDS])
    response = client.receive()
    assert response is not None
    assert list(response.resources) == ["b"]


def test_a_wildcard_subscribes_to_all_until_it_is_removed(world: SessionWorld) -> None:
    world.publish(TWO)
    client = world.client
    client.request(CDS, "*", "a")
    client.settle()
    assert set(client.resources[CDS]) == {"a", "b"}
    if client.is_delta:
        client.request(CDS, resource_names_unsubscribe=["*"])
    else:
        client.request(CDS, "a", nonce=client.nonces[CDS])
        client.settle()
    before = len(client.responses)
    assert world.publish({**TWO, CDS: {"a": 1, "b": 9}}) == set()
    world.publish({**TWO, CDS: {"a": 9, "b": 9}})
    client.settle()
    assert list(client.responses[before].resources) == ["a"]


def test_no_names_after_names_unsubscribe_from_all(world: SessionWorld) -> None:
    world.publish(TWO)
    client = world.client
    client.request(CDS, "a")
    client.settle()
    if client.is_delta:
        client.request(CDS, resource_names_unsubscribe=["a"])
    else:
        client.request(CDS, nonce=client.nonces[CDS])
    assert client.settle() == []
    assert not client.session.subscriptions[CDS].wildcard
    assert world.publish({**TWO, CDS: {"a": 5}}) == set()


def test_assignments_and_routes_have_no_implicit_wildcard(world: SessionWorld) -> None:
    world.publish(ONE)
    world.client.request(EDS)
    world.client.request(RDS)
    assert world.client.settle() == []


def test_a_wildcard_is_answered_even_if_there_is_nothing(world: SessionWorld) -> None:
    world.publish({})
    world.client.request(CDS)
    response = world.client.receive()
    assert response is not None
    assert (response.kind, response.resources) == (CDS, {})
    world.client.ack(CDS)
    assert world.client.receive() is None


def test_nonces_never_repeat(world: SessionWorld) -> None:
    world.publish(TWO)
    client = world.client
    for names in (["a"], ["a", "b"], ["b"], ["a", "b"]):
        client.request(EDS, *names, nonce=client.nonces.get(EDS, ""))
        client.settle()
    for n in range(3):
        world.publish({**TWO, EDS: {"a": n + 3, "b": n + 3}})
        client.settle()
    nonces = [response.nonce for response in client.responses]
    assert len(set(nonces)) == len(nonces)


def test_streams_that_get_the_same_response_get_the_same_bytes(world: SessionWorld) -> None:
    others = [world.new() for _ in range(3)]
    world.publish(ONE)
    for client in others:
        client.request(EDS, "a")
        client.settle()
    world.publish({**ONE, EDS: {"a": 5}})
    assert len({client.session.next_response(0.0) for client in others}) == 1


def test_a_client_that_left_is_not_notified(world: SessionWorld) -> None:
    world.publish(ONE)
    world.connect()
    world.client.session.close()
    assert world.publish(TWO) == set()


def test_too_many_names_end_the_stream(world: SessionWorld) -> None:
    world.client.request(EDS, *(f"a{n}" for n in range(MAX_GATEWAY_NAMES)))
    with pytest.raises(StreamRefused) as refused:
        world.client.request(EDS, *(f"b{n}" for n in range(MAX_GATEWAY_NAMES)), "one-more")
    assert refused.value.code == "INVALID_ARGUMENT"


# Clients that have resources when they connect.


def _versions(contents: Contents, kind: ResourceKind) -> dict[str, str]:
    return {name: resource.version for name, resource in resources(contents)[kind].items()}


def test_initial_versions_that_are_current_are_not_sent_again() -> None:
    world = SessionWorld(delta)
    world.publish(ONE)
    client = world.client
    client.request(CDS, initial_resource_versions=_versions(ONE, CDS))
    client.request(EDS, "a", initial_resource_versions=_versions(ONE, EDS))
    assert [(response.kind, response.resources) for response in client.settle()] == [(CDS, {})]
    assert client.session.is_current


def test_initial_versions_that_are_gone_are_removed_and_outdated_ones_are_sent() -> None:
    world = SessionWorld(delta)
    world.publish({**ONE, EDS: {"a": 5}})
    client = world.client
    client.request(CDS, initial_resource_versions=_versions(TWO, CDS))
    client.request(EDS, "a", "b", initial_resource_versions=_versions(TWO, EDS))
    responses = client.settle()
    assert [(response.kind, sorted(response.resources), response.removed) for response in responses] == [
        (CDS, [], []),
        (EDS, ["a"], []),
        (EDS, ["b"], []),
        (CDS, [], ["b"]),
    ]


def _initial(client: FakeXdsClient, contents: Contents, kind: ResourceKind) -> Mapping[str, Any]:
    """Returns the fields of a request of a client that has these resources."""
    return {"initial_resource_versions": _versions(contents, kind)} if client.is_delta else {"version_info": "7"}


SOME: Contents = {CDS: {"a": 1}, EDS: {"a": 1}, LDS: {"main": 1}, RDS: {"main": 1}}
"""The part of `MANY` that is registered again first."""
MANY: Contents = {CDS: {"a": 1, "b": 1}, EDS: {"a": 3, "b": 2}, LDS: {"main": 1}, RDS: {"main": 2}}


def _is_current(client: FakeXdsClient) -> bool:
    return client.session.is_current


def _reconnect(world: SessionWorld) -> FakeXdsClient:
    """Connects a client that has `MANY` to a registry that has started empty."""
    client = world.client
    world.subscribers.is_settling = True
    world.publish({LDS: {"main": 1}, RDS: {"main": 0}})
    client.request(CDS, **_initial(client, MANY, CDS))
    assert client.receive() is None
    client.request(EDS, "a", "b", **_initial(client, MANY, EDS))
    client.request(LDS, **_initial(client, MANY, LDS))
    return client


def test_a_client_keeps_its_instances_while_an_empty_registry_fills_up(world: SessionWorld) -> None:
    client = _reconnect(world)
    assert client.receive() is None
    world.publish(SOME)
    assert client.receive() is None, "one of three is registered again, and the client keeps all three"
    world.subscribers.is_settling = False
    client.settle()
    assert client.resources[EDS]["a"] == content(resources(SOME)[EDS]["a"]), "the others were not registered again"


def test_assignments_are_sent_again_once_all_instances_are_back() -> None:
    world = SessionWorld(delta)
    client = _reconnect(world)
    world.publish(SOME)
    assert client.settle() == []
    world.publish(MANY)
    assert [response.resources for response in client.settle() if response.kind is EDS] == [], (
        "the client has this version"
    )
    world.publish({**MANY, EDS: {"a": 4, "b": 2}})
    assert [list(response.resources) for response in client.settle()] == [["a"]]


def test_an_instance_that_leaves_is_removed_at_once_even_while_others_are_missing(world: SessionWorld) -> None:
    client = _reconnect(world)
    world.publish(SOME)
    assert _is_current(client), "no instance that left is in what the client keeps"
    world.subscribers.departed_services = {"a"}
    world.publish({**SOME, EDS: {"a": 2}})
    assert not _is_current(client)
    response = client.receive()
    assert response is not None
    assert (response.kind, list(response.resources)) == (EDS, ["a"])
    assert not _is_current(client)
    client.ack(EDS)
    assert _is_current(client)
    assert client.receive() is None, "the other assignment is still withheld"


def test_an_assignment_without_callable_instances_is_withheld_while_others_are_missing(world: SessionWorld) -> None:
    client = _reconnect(world)
    world.publish(SOME)
    world.subscribers.departed_services = {"a"}
    world.publish({**SOME, EDS: {"a": 0}})
    assert client.receive() is None, "no instance is back that takes calls"
    assert not _is_current(client), "the client may still call the instance that left"
    world.publish({**SOME, EDS: {"a": 2}})
    client.settle()
    assert _is_current(client)


def test_an_assignment_of_a_selector_belongs_to_its_service(world: SessionWorld) -> None:
    world.subscribers.departed_services = {"a"}
    assert world.subscribers.has_departures("a?tag=x")
    assert not world.subscribers.has_departures("ab")


def test_an_initial_assignment_that_is_empty_is_not_withheld() -> None:
    world = SessionWorld(delta)
    world.subscribers.is_settling = True
    world.publish(SOME)
    client = world.client
    versions = {"a": resources({EDS: {"a": 0}})[EDS]["a"].version}
    client.request(CDS, initial_resource_versions=_versions(SOME, CDS))
    client.request(EDS, "a", initial_resource_versions=versions)
    assert [list(response.resources) for response in client.settle() if response.kind is EDS] == [["a"]]


def test_a_new_subscription_is_answered_while_others_are_withheld(world: SessionWorld) -> None:
    client = _reconnect(world)
    world.publish(SOME)
    client.request(EDS, *(() if client.is_delta else ("a", "b")), "new")
    response = client.receive()
    assert response is not None
    assert list(response.resources) == ["new"]


def test_another_epoch_takes_nothing_from_connected_clients(world: SessionWorld) -> None:
    world.publish(MANY)
    world.connect()
    before = len(world.client.responses)
    world.subscribers.is_settling = True
    world.client.session.begin_epoch()
    world.publish(SOME)
    assert world.client.settle() == []
    world.publish(MANY)
    world.client.settle()
    assert EDS not in _kinds(world.client, before)
    world.subscribers.is_settling = False
    world.check_resources(MANY)


def test_a_grpc_client_keeps_its_instances_and_gets_new_subscriptions() -> None:
    clients = GrpcSubscribers()
    known = resources({kind: {"a": 1, "new": 1} for kind in (CDS, EDS, LDS, RDS)})
    compiled = FakeCompiled(known)
    clients.is_settling = True
    clients.publish(compiled, None, 1, 1)
    client = FakeXdsClient(sotw, StreamSession(sotw, clients))
    for kind in (LDS, RDS, CDS, EDS):
        client.request(kind, "a", version_info="7")
    assert [response.kind for response in client.settle()] == [CDS, LDS, RDS]
    for kind in (LDS, RDS, CDS, EDS):
        client.request(kind, "a", "new", nonce=client.nonces.get(kind, ""))
    client.settle()
    assert list(client.resources[EDS]) == ["new"]
    clients.is_settling = False
    client.settle()
    assert set(client.resources[EDS]) == {"a", "new"}


def test_a_service_has_a_subscriber_while_a_grpc_client_names_it() -> None:
    clients = GrpcSubscribers()
    client = FakeXdsClient(sotw, StreamSession(sotw, clients))
    client.request(EDS, "a")
    assert [clients.has_subscriber(name) for name in ("a", "b")] == [True, False]
    client.request(EDS, "b", nonce=client.nonces.get(EDS, ""))
    assert [clients.has_subscriber(name) for name in ("a", "b")] == [False, True]


def test_what_is_not_registered_again_is_removed_after_settling(world: SessionWorld) -> None:
    world.subscribers.is_settling = True
    world.publish({LDS: {"main": 1}, RDS: {"main": 0}})
    client = world.client
    client.request(CDS, **_initial(client, ONE, CDS))
    client.request(EDS, "a", **_initial(client, ONE, EDS))
    assert client.receive() is None
    world.subscribers.is_settling = False
    responses = client.settle()
    assert [response.kind for response in responses if response.kind is EDS] == [EDS]
    assert client.resources[CDS] == {}


def test_a_client_without_resources_is_answered_while_settling(world: SessionWorld) -> None:
    world.subscribers.is_settling = True
    world.publish({LDS: {"main": 1}, RDS: {"main": 0}})
    world.client.request(CDS)
    assert world.client.receive() is not None


def test_a_large_response_is_split() -> None:
    world = SessionWorld(delta)
    names = [f"{n:04}-{'x' * 480}" for n in range(1 + 2 * MAX_RESPONSE_BYTES // 1_000)]
    world.subscribers.publish({CDS: {name: resource(CDS, name, 1) for name in names}}, 1, 1)
    world.client.request(CDS)
    responses = world.client.settle()
    assert len(responses) > 1
    assert all(sum(map(len, response.resources.values())) <= MAX_RESPONSE_BYTES for response in responses)
    assert set(world.client.resources[CDS]) == set(names)


def test_a_gateway_may_subscribe_to_both_clusters_of_ten_thousand_services_and_selections() -> None:
    assert len(HttpVersion) * 20_000 <= MAX_GATEWAY_NAMES


def test_the_bytes_of_all_subscribed_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = NameBudget()
    monkeypatch.setattr(subscribers, "MAX_NAME_BYTES", 4 * (NAME_OVERHEAD_BYTES + 1))
    gateways, clients = GatewaySubscribers(budget), GrpcSubscribers(budget)
    one, other = FakeXdsClient(delta, StreamSession(delta, gateways)), FakeXdsClient(sotw, StreamSession(sotw, clients))
    one.request(EDS, "a", "b")
    other.request(EDS, "a", "b")
    assert budget.size == 4 * (NAME_OVERHEAD_BYTES + 1)
    with pytest.raises(StreamRefused, match="too many names"):
        one.request(EDS, "c")
    one.session.close()
    assert budget.size == 2 * (NAME_OVERHEAD_BYTES + 1)
    other.request(EDS, "a", "c", "d", "e", nonce=other.nonces.get(EDS, ""))
    assert budget.size == 4 * (NAME_OVERHEAD_BYTES + 1)
    other.session.close()
    assert budget.size == 0


def test_only_changed_names_are_compared_if_they_are_known() -> None:
    group = GatewaySubscribers()
    client = FakeXdsClient(delta, StreamSession(delta, group))
    group.publish(resources({CDS: {"a": 1, "b": 1, "c": 1}}), 1, 1)
    client.request(CDS)
    client.settle()
    first = dict(client.resources[CDS])
    later = resources({CDS: {"a": 2, "b": 2}})
    assert group.publish(later, 2, 2, changed_names=lambda _, after: {"b", "c", "d"} if after is later[CDS] else None)
    client.settle()
    assert client.resources[CDS].keys() == {"a", "b"}
    assert client.resources[CDS]["a"] == first["a"]
    assert client.resources[CDS]["b"] != first["b"]
