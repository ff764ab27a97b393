"""One stream, without a wire: what is said when, and what never is."""

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
    """An audience and one client in it."""

    def __init__(self, variant: ModuleType) -> None:
        self.audience = GatewaySubscribers()
        self.variant = variant
        self.client = self.new()

    def new(self) -> FakeXdsClient:
        return FakeXdsClient(self.variant, StreamSession(self.variant, self.audience))

    def publish(self, contents: Contents, *vacated: str) -> set[Subscriber]:
        number = self.audience.publication + 1
        return self.audience.publish(resources(contents), number, 10 * number, set(vacated))

    def connect(self) -> None:
        """As Envoy does: all clusters, then what they name."""
        client = self.client
        client.request(CDS)
        client.settle()
        client.request(EDS, *client.resources[CDS])
        client.request(LDS)
        client.settle()
        client.request(RDS, "main")
        client.settle()

    def sees(self, contents: Contents) -> None:
        expected = {
            kind: {name: content(each) for name, each in of.items()} for kind, of in resources(contents).items()
        }
        assert self.client.resources == expected


@pytest.fixture(params=[delta, sotw], ids=["delta", "sotw"])
def world(request: pytest.FixtureRequest) -> SessionWorld:
    return SessionWorld(request.param)


def _kinds(client: FakeXdsClient, since: int = 0) -> list[ResourceKind]:
    return [said.kind for said in client.responses[since:]]


def test_nothing_is_answered_before_the_catalog_is_loaded(world: SessionWorld) -> None:
    world.client.request(CDS)
    world.client.request(EDS, "a")
    assert world.client.receive() is None
    assert not world.client.session.is_current
    world.publish(ONE)
    assert {said.kind for said in world.client.settle()} == {CDS, EDS}


def test_a_client_that_asks_for_all_sees_all(world: SessionWorld) -> None:
    world.publish(ONE)
    world.connect()
    world.sees(ONE)
    assert world.client.session.is_current


def test_a_change_is_said_to_whom_it_concerns_and_alone(world: SessionWorld) -> None:
    world.publish(ONE)
    world.connect()
    before = len(world.client.responses)
    assert world.publish({**ONE, EDS: {"a": 3}}) == {world.client.session}
    assert _kinds(world.client, before) == []
    world.client.settle()
    assert _kinds(world.client, before) == [EDS]
    assert world.publish({**ONE, EDS: {"a": 3, "x": 1}}) == set(), "nobody asked for x"


def test_what_did_not_change_is_not_said_again(world: SessionWorld) -> None:
    world.publish(ONE)
    world.connect()
    assert world.publish(ONE) == set()
    assert world.client.settle() == []
    assert world.client.session.is_current


def test_routes_wait_until_what_they_name_was_said(world: SessionWorld) -> None:
    world.publish(ONE)
    world.connect()
    client, before = world.client, len(world.client.responses)
    world.publish(TWO)
    assert client.receive() is not None
    assert client.receive() is None, "the routes wait for the new cluster's assignment to be asked for"
    client.ack(CDS)
    assert client.receive() is None
    client.request(EDS, *([] if client.is_delta else "a"), "b", nonce="" if client.is_delta else client.nonces[EDS])
    for _ in range(2):
        client.receive()
    assert _kinds(client, before) == [CDS, EDS, RDS]
    assert list(client.responses[before + 1].resources) == ["b"]
    world.sees(TWO)


def test_an_assignment_that_nobody_is_left_in_is_said_once_routes_lead_elsewhere(world: SessionWorld) -> None:
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
    world.sees(left)
    back = {**TWO, RDS: {"main": 4}}
    world.publish(back)
    client.settle()
    assert _kinds(client, before)[3:] == [EDS, RDS]
    world.sees(back)


def test_an_assignment_that_nobody_is_left_in_waits_for_no_routes_that_stay_or_wait_themselves(
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


def test_routes_wait_for_what_can_not_be_said_yet(world: SessionWorld) -> None:
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


def test_routes_come_after_the_filters_that_they_wake_and_wait_for_those_that_can_not_be_said_yet(
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


def test_a_client_that_never_asks_for_the_assignment_gets_its_routes_nevertheless(world: SessionWorld) -> None:
    world.publish(ONE)
    world.connect()
    world.publish(TWO)
    client = world.client
    client.settle()
    assert client.session.has_deferred
    client.now += DEPENDENCY_TIMEOUT
    assert [said.kind for said in client.settle()] == [RDS]


def test_what_is_gone_is_removed_last_and_in_the_opposite_order(world: SessionWorld) -> None:
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
    emptied = client.responses[-2]
    assert list(emptied.resources) == ["b"], "an assignment is emptied, since its removal is ignored"
    assert emptied.removed == []


def test_a_changed_cluster_has_its_assignment_said_again(world: SessionWorld) -> None:
    world.publish(ONE)
    world.connect()
    before = len(world.client.responses)
    world.publish({**ONE, CDS: {"a": 2}})
    world.client.settle()
    assert _kinds(world.client, before) == [CDS, EDS]
    assert list(world.client.responses[-1].resources) == ["a"]


def test_of_each_kind_one_response_is_on_its_way_and_what_lies_between_is_skipped(world: SessionWorld) -> None:
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
    world.sees({**ONE, EDS: {"a": 5}})


def test_a_rejected_configuration_is_not_sent_again_until_it_changes(world: SessionWorld) -> None:
    world.publish(ONE)
    world.connect()
    client = world.client
    world.publish({**ONE, EDS: {"a": 7}})
    client.receive()
    assert client.ack(EDS, error="  too\n many ") == "too many"
    assert client.settle() == []
    assert not client.session.is_current, "it does not route by it"
    assert client.session.subscriptions[EDS].rejection == "too many"
    world.publish({**ONE, EDS: {"a": 8}})
    client.settle()
    assert world.client.session.subscriptions[EDS].rejection == ""
    assert world.client.session.is_current
    world.sees({**ONE, EDS: {"a": 8}})


def test_what_was_rejected_together_with_the_culprit_is_sent_again_with_its_remedy(world: SessionWorld) -> None:
    world.publish(TWO)
    world.connect()
    client = world.client
    world.publish({**TWO, EDS: {"a": 7, "b": 7}})
    said = client.receive()
    assert said is not None
    assert set(said.resources) == {"a", "b"}
    client.ack(EDS, error="a is wrong")
    world.publish({**TWO, EDS: {"a": 8, "b": 7}})
    said = client.receive()
    assert said is not None
    assert set(said.resources) == {"a", "b"}


def test_a_rejection_of_other_kinds_does_not_keep_it_from_following_endpoints(world: SessionWorld) -> None:
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


def test_what_is_asked_for_by_name_and_not_there_is_answered_at_once(world: SessionWorld) -> None:
    world.publish(ONE)
    client = world.client
    client.request(CDS, "x")
    said = client.receive()
    assert said is not None
    assert said.resources == {}
    assert said.removed == (["x"] if client.is_delta else [])
    client.ack(CDS)
    client.request(EDS, "x")
    said = client.receive()
    assert said is not None
    assert list(said.resources) == ["x"], "an empty one"
    client.ack(EDS)
    assert client.settle() == []
    world.publish({**ONE, CDS: {"x": 1}, EDS: {"x": 1}})
    client.settle()
    assert set(client.resources[EDS]) == {"x"}


def test_unsubscribed_names_are_said_no_more(world: SessionWorld) -> None:
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
    said = client.receive()
    assert said is not None
    assert list(said.resources) == ["b"]


def test_a_star_asks_for_all_until_it_is_taken_back(world: SessionWorld) -> None:
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


def test_no_names_after_names_ask_for_none(world: SessionWorld) -> None:
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


def test_assignments_and_routes_without_names_ask_for_nothing(world: SessionWorld) -> None:
    world.publish(ONE)
    world.client.request(EDS)
    world.client.request(RDS)
    assert world.client.settle() == []


def test_all_of_nothing_is_answered_too(world: SessionWorld) -> None:
    world.publish({})
    world.client.request(CDS)
    said = world.client.receive()
    assert said is not None
    assert (said.kind, said.resources) == (CDS, {})
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
    nonces = [said.nonce for said in client.responses]
    assert len(set(nonces)) == len(nonces)


def test_streams_that_are_told_the_same_are_told_the_same_bytes(world: SessionWorld) -> None:
    others = [world.new() for _ in range(3)]
    world.publish(ONE)
    for client in others:
        client.request(EDS, "a")
        client.settle()
    world.publish({**ONE, EDS: {"a": 5}})
    assert len({client.session.next_response(0.0) for client in others}) == 1


def test_a_client_that_left_is_told_nothing(world: SessionWorld) -> None:
    world.publish(ONE)
    world.connect()
    world.client.session.close()
    assert world.publish(TWO) == set()


def test_too_many_names_end_the_stream(world: SessionWorld) -> None:
    world.client.request(EDS, *(f"a{n}" for n in range(MAX_GATEWAY_NAMES)))
    with pytest.raises(StreamRefused) as refused:
        world.client.request(EDS, *(f"b{n}" for n in range(MAX_GATEWAY_NAMES)), "one-more")
    assert refused.value.code == "INVALID_ARGUMENT"


# What a client brings along.


def _versions(contents: Contents, kind: ResourceKind) -> dict[str, str]:
    return {name: each.version for name, each in resources(contents)[kind].items()}


def test_what_a_client_has_already_is_not_sent_again() -> None:
    world = SessionWorld(delta)
    world.publish(ONE)
    client = world.client
    client.request(CDS, initial_resource_versions=_versions(ONE, CDS))
    client.request(EDS, "a", initial_resource_versions=_versions(ONE, EDS))
    assert [(said.kind, said.resources) for said in client.settle()] == [(CDS, {})]
    assert client.session.is_current


def test_what_a_client_has_and_is_gone_is_removed_and_what_is_other_is_sent() -> None:
    world = SessionWorld(delta)
    world.publish({**ONE, EDS: {"a": 5}})
    client = world.client
    client.request(CDS, initial_resource_versions=_versions(TWO, CDS))
    client.request(EDS, "a", "b", initial_resource_versions=_versions(TWO, EDS))
    said = client.settle()
    assert [(each.kind, sorted(each.resources), each.removed) for each in said] == [
        (CDS, [], []),
        (EDS, ["a"], []),
        (EDS, ["b"], []),
        (CDS, [], ["b"]),
    ]


def _brought(client: FakeXdsClient, contents: Contents, kind: ResourceKind) -> Mapping[str, Any]:
    """As a client says that it has this already."""
    return {"initial_resource_versions": _versions(contents, kind)} if client.is_delta else {"version_info": "7"}


SOME: Contents = {CDS: {"a": 1}, EDS: {"a": 1}, LDS: {"main": 1}, RDS: {"main": 1}}
"""Of `MULTI_VALUE_TYPES`, those that are back first."""
MANY: Contents = {CDS: {"a": 1, "b": 1}, EDS: {"a": 3, "b": 2}, LDS: {"main": 1}, RDS: {"main": 2}}


def _is_current(client: FakeXdsClient) -> bool:
    return client.session.is_current


def _comes_back(world: SessionWorld) -> FakeXdsClient:
    """A client that knew `MULTI_VALUE_TYPES` comes to a registry that has begun with nothing."""
    client = world.client
    world.audience.is_settling = True
    world.publish({LDS: {"main": 1}, RDS: {"main": 0}})
    client.request(CDS, **_brought(client, MANY, CDS))
    assert client.receive() is None
    client.request(EDS, "a", "b", **_brought(client, MANY, EDS))
    client.request(LDS, **_brought(client, MANY, LDS))
    return client


def test_a_registry_that_began_with_nothing_narrows_nobody_to_those_that_are_back_first(world: SessionWorld) -> None:
    client = _comes_back(world)
    assert client.receive() is None
    world.publish(SOME)
    assert client.receive() is None, "one of three is back, and the client keeps the three"
    world.audience.is_settling = False
    client.settle()
    assert client.resources[EDS]["a"] == content(resources(SOME)[EDS]["a"]), "the others did not come back"


def test_all_is_said_again_once_everything_is_back() -> None:
    world = SessionWorld(delta)
    client = _comes_back(world)
    world.publish(SOME)
    assert client.settle() == []
    world.publish(MANY)
    assert [said.resources for said in client.settle() if said.kind is EDS] == [], "it has them already"
    world.publish({**MANY, EDS: {"a": 4, "b": 2}})
    assert [list(said.resources) for said in client.settle()] == [["a"]]


def test_who_leaves_is_left_out_at_once_whoever_has_not_come_back(world: SessionWorld) -> None:
    client = _comes_back(world)
    world.publish(SOME)
    assert _is_current(client), "nobody who left is in what it keeps"
    world.audience.departed_services = {"a"}
    world.publish({**SOME, EDS: {"a": 2}})
    assert not _is_current(client)
    said = client.receive()
    assert said is not None
    assert (said.kind, list(said.resources)) == (EDS, ["a"])
    assert not _is_current(client)
    client.ack(EDS)
    assert _is_current(client)
    assert client.receive() is None, "the other one is still kept as it was"


def test_nobody_is_left_without_an_instance_because_one_left_before_the_others_came_back(world: SessionWorld) -> None:
    client = _comes_back(world)
    world.publish(SOME)
    world.audience.departed_services = {"a"}
    world.publish({**SOME, EDS: {"a": 0}})
    assert client.receive() is None, "nobody is back who could take the calls"
    assert not _is_current(client), "it may go on calling the one that left, and has not said that it does not"
    world.publish({**SOME, EDS: {"a": 2}})
    client.settle()
    assert _is_current(client)


def test_an_assignment_of_a_selector_is_its_services(world: SessionWorld) -> None:
    world.audience.departed_services = {"a"}
    assert world.audience.has_departures("a?tag=x")
    assert not world.audience.has_departures("ab")


def test_an_assignment_that_was_empty_keeps_nobody_waiting() -> None:
    world = SessionWorld(delta)
    world.audience.is_settling = True
    world.publish(SOME)
    client = world.client
    versions = {"a": resources({EDS: {"a": 0}})[EDS]["a"].version}
    client.request(CDS, initial_resource_versions=_versions(SOME, CDS))
    client.request(EDS, "a", initial_resource_versions=versions)
    assert [list(said.resources) for said in client.settle() if said.kind is EDS] == [["a"]]


def test_a_name_that_a_client_asks_for_anew_is_answered_while_others_are_kept(world: SessionWorld) -> None:
    client = _comes_back(world)
    world.publish(SOME)
    client.request(EDS, *(() if client.is_delta else ("a", "b")), "new")
    said = client.receive()
    assert said is not None
    assert list(said.resources) == ["new"]


def test_another_epoch_takes_nothing_from_those_that_are_connected(world: SessionWorld) -> None:
    world.publish(MANY)
    world.connect()
    before = len(world.client.responses)
    world.audience.is_settling = True
    world.client.session.begin_epoch()
    world.publish(SOME)
    assert world.client.settle() == []
    world.publish(MANY)
    world.client.settle()
    assert EDS not in _kinds(world.client, before)
    world.audience.is_settling = False
    world.sees(MANY)


def test_a_grpc_client_keeps_its_instances_and_gets_what_it_asks_for_anew() -> None:
    clients = GrpcSubscribers()
    known = resources({kind: {"a": 1, "new": 1} for kind in (CDS, EDS, LDS, RDS)})
    compiled = FakeCompiled(known)
    clients.is_settling = True
    clients.publish(compiled, None, 1, 1)
    client = FakeXdsClient(sotw, StreamSession(sotw, clients))
    for kind in (LDS, RDS, CDS, EDS):
        client.request(kind, "a", version_info="7")
    assert [said.kind for said in client.settle()] == [CDS, LDS, RDS]
    for kind in (LDS, RDS, CDS, EDS):
        client.request(kind, "a", "new", nonce=client.nonces.get(kind, ""))
    client.settle()
    assert list(client.resources[EDS]) == ["new"]
    clients.is_settling = False
    client.settle()
    assert set(client.resources[EDS]) == {"a", "new"}


def test_it_is_known_which_services_grpc_clients_ask_for() -> None:
    clients = GrpcSubscribers()
    client = FakeXdsClient(sotw, StreamSession(sotw, clients))
    client.request(EDS, "a")
    assert [clients.has_subscriber(name) for name in ("a", "b")] == [True, False]
    client.request(EDS, "b", nonce=client.nonces.get(EDS, ""))
    assert [clients.has_subscriber(name) for name in ("a", "b")] == [False, True]


def test_what_does_not_come_back_is_taken_away_in_the_end(world: SessionWorld) -> None:
    world.audience.is_settling = True
    world.publish({LDS: {"main": 1}, RDS: {"main": 0}})
    client = world.client
    client.request(CDS, **_brought(client, ONE, CDS))
    client.request(EDS, "a", **_brought(client, ONE, EDS))
    assert client.receive() is None
    world.audience.is_settling = False
    said = client.settle()
    assert [each.kind for each in said if each.kind is EDS] == [EDS]
    assert client.resources[CDS] == {}


def test_a_new_client_need_not_wait_for_that(world: SessionWorld) -> None:
    world.audience.is_settling = True
    world.publish({LDS: {"main": 1}, RDS: {"main": 0}})
    world.client.request(CDS)
    assert world.client.receive() is not None


def test_a_large_answer_comes_in_parts() -> None:
    world = SessionWorld(delta)
    names = [f"{n:04}-{'x' * 480}" for n in range(1 + 2 * MAX_RESPONSE_BYTES // 1_000)]
    world.audience.publish({CDS: {name: resource(CDS, name, 1) for name in names}}, 1, 1)
    world.client.request(CDS)
    said = world.client.settle()
    assert len(said) > 1
    assert all(sum(map(len, each.resources.values())) <= MAX_RESPONSE_BYTES for each in said)
    assert set(world.client.resources[CDS]) == set(names)


def test_a_gateway_may_name_a_cluster_of_each_version_for_ten_thousand_services_and_as_many_choices() -> None:
    assert len(HttpVersion) * 20_000 <= MAX_GATEWAY_NAMES


def test_the_names_of_all_clients_together_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    held = NameBudget()
    monkeypatch.setattr(subscribers, "MAX_NAME_BYTES", 4 * (NAME_OVERHEAD_BYTES + 1))
    gateways, clients = GatewaySubscribers(held), GrpcSubscribers(held)
    one, other = FakeXdsClient(delta, StreamSession(delta, gateways)), FakeXdsClient(sotw, StreamSession(sotw, clients))
    one.request(EDS, "a", "b")
    other.request(EDS, "a", "b")
    assert held.size == 4 * (NAME_OVERHEAD_BYTES + 1)
    with pytest.raises(StreamRefused, match="too many names"):
        one.request(EDS, "c")
    one.session.close()
    assert held.size == 2 * (NAME_OVERHEAD_BYTES + 1)
    other.request(EDS, "a", "c", "d", "e", nonce=other.nonces.get(EDS, ""))
    assert held.size == 4 * (NAME_OVERHEAD_BYTES + 1)
    other.session.close()
    assert held.size == 0


def test_only_what_moved_is_compared_if_that_is_known() -> None:
    audience = GatewaySubscribers()
    client = FakeXdsClient(delta, StreamSession(delta, audience))
    audience.publish(resources({CDS: {"a": 1, "b": 1, "c": 1}}), 1, 1)
    client.request(CDS)
    client.settle()
    first = dict(client.resources[CDS])
    later = resources({CDS: {"a": 2, "b": 2}})
    assert audience.publish(
        later, 2, 2, changed_names=lambda _, after: {"b", "c", "d"} if after is later[CDS] else None
    )
    client.settle()
    assert client.resources[CDS].keys() == {"a", "b"}
    assert client.resources[CDS]["a"] == first["a"]
    assert client.resources[CDS]["b"] != first["b"]
