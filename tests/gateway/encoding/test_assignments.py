from __future__ import annotations

from typing import Any

import pytest
from envoy.config.core.v3 import health_check_pb2

from adsum.core.model import Status
from adsum.gateway.encoding.clusters.assignments import HEALTH_BY_STATUS, AssignmentReader, assignment
from tests.gateway.echo_services import listing

PASSING, WARNING, CRITICAL = Status.PASSING, Status.WARNING, Status.CRITICAL


def localities(message: Any) -> list[tuple[int, str, list[tuple[str, int]]]]:
    """Returns the priority, the zone, and the endpoints with their health of each locality."""
    return [
        (
            locality.priority,
            locality.locality.zone,
            [
                (f"{endpoint.endpoint.address.socket_address.port_value}", endpoint.health_status)
                for endpoint in locality.lb_endpoints
            ],
        )
        for locality in message.endpoints
    ]


def ports(message: Any) -> list[str]:
    return [port for _, _, endpoints in localities(message) for port, _ in endpoints]


@pytest.mark.parametrize("status", Status)
def test_every_status_has_its_envoy_health(status: Status) -> None:
    names = {PASSING: "HEALTHY", WARNING: "DEGRADED", CRITICAL: "UNHEALTHY", Status.STARTING: "UNHEALTHY"}
    (locality,) = assignment("orders", [listing("orders", "o1", status=status)], {}).endpoints
    health = locality.lb_endpoints[0].health_status
    assert health == HEALTH_BY_STATUS[status]
    assert health_check_pb2.HealthStatus.Name(health) == names.get(status, "DRAINING")


def test_every_status_has_a_health() -> None:
    assert set(HEALTH_BY_STATUS) == set(Status)


def test_an_assignment_has_weights_and_zones() -> None:
    message = assignment(
        "orders", [listing("orders", "a", 1, weight=3, zone="x"), listing("orders", "b", 2, zone="y")], {}
    )
    assert [(locality.locality.zone, locality.load_balancing_weight.value) for locality in message.endpoints] == [
        ("x", 3),
        ("y", 1),
    ]
    assert message.endpoints[0].lb_endpoints[0].load_balancing_weight.value == 3


def test_a_zone_without_usable_instances_has_a_weight() -> None:
    (locality,) = assignment("orders", [listing("orders", "a", status=CRITICAL, zone="x")], {}).endpoints
    assert locality.load_balancing_weight.value == 1


def test_the_zone_of_the_gateway_has_the_first_priority() -> None:
    listings = [listing("orders", "a", 1, zone="x"), listing("orders", "b", 2, zone="y"), listing("orders", "c", 3)]
    message = assignment("orders", listings, {}, "y")
    assert [(priority, zone) for priority, zone, _ in localities(message)] == [(0, "y"), (1, ""), (1, "x")]
    assert message.policy.overprovisioning_factor.value == 140


def test_priorities_have_no_gaps() -> None:
    message = assignment("orders", [listing("orders", "a", 1, zone="x")], {}, "y")
    assert [priority for priority, _, _ in localities(message)] == [0]


def test_a_reserve_is_used_only_without_other_usable_instances() -> None:
    reserve = listing("orders", "r", 9, weight=0)
    assert ports(assignment("orders", [listing("orders", "a", 1), reserve], {})) == ["1"]
    assert ports(assignment("orders", [listing("orders", "a", 1, status=WARNING), reserve], {})) == ["1"]
    assert ports(assignment("orders", [listing("orders", "a", 1, status=CRITICAL), reserve], {})) == ["1", "9"]
    assert ports(assignment("orders", [reserve], {})) == ["9"]


def test_of_two_instances_at_one_address_the_healthier_one_is_sent() -> None:
    twice = [listing("orders", "old", 1, status=CRITICAL, zone="x"), listing("orders", "new", 1, zone="y")]
    assert localities(assignment("orders", twice, {})) == [(0, "y", [("1", HEALTH_BY_STATUS[PASSING])])]


def test_host_names_are_replaced_by_their_ips_or_left_out() -> None:
    listings = [listing("orders", "a", 1, address="a.example"), listing("orders", "b", 2, address="b.example")]
    message = assignment("orders", listings, {"a.example": "10.0.0.1"})
    (locality,) = message.endpoints
    (endpoint,) = locality.lb_endpoints
    assert endpoint.endpoint.address.socket_address.address == "10.0.0.1"
    assert endpoint.endpoint.hostname == "a.example"
    assert endpoint.metadata.filter_metadata["adsum"]["id"] == "a"


def test_grpc_gets_degraded_endpoints_as_healthy_ones_of_a_lower_priority() -> None:
    listings = [listing("orders", "a", 1), listing("orders", "b", 2, status=WARNING)]
    message = assignment("orders", listings, {}, reader=AssignmentReader.GRPC)
    assert localities(message) == [
        (0, "", [("1", HEALTH_BY_STATUS[PASSING])]),
        (1, "", [("2", HEALTH_BY_STATUS[PASSING])]),
    ]
    alone = assignment("orders", listings[1:], {}, reader=AssignmentReader.GRPC)
    assert localities(alone) == [(0, "", [("2", HEALTH_BY_STATUS[PASSING])])]


def test_instances_with_tls_are_left_out_for_grpc() -> None:
    listings = [
        listing("orders", "secure", 1, scheme="grpcs"),
        listing("orders", "plain", 2, scheme="grpc", weight=0),
    ]
    assert ports(assignment("orders", listings, {}, reader=AssignmentReader.GRPC)) == ["2"]
    assert ports(assignment("orders", listings, {})) == ["1"]


def test_a_starting_instance_is_left_out_while_others_can_be_called() -> None:
    starting, passing = listing("orders", "a", 1, status=Status.STARTING), listing("orders", "b", 2)
    leaving = listing("orders", "c", 3, status=Status.DRAINING)
    assert ports(assignment("orders", [starting, passing, leaving], {})) == ["2", "3"]
    assert ports(assignment("orders", [starting, leaving], {})) == ["1", "3"], (
        "starting instances are tried if there are no others"
    )
