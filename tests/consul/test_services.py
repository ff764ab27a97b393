from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from msgspec.structs import replace

from adsum.consul import services
from adsum.core.errors import Invalid
from adsum.core.identity import holder_digest
from adsum.core.model import Check, CheckKind, Endpoint, Instance, Registration, Status, freeze
from tests.support.strategies import instances

RECORDED = b"""[{
  "Node": {"ID": "40e4a748-2192-161a-0510-9bf59fe950b5", "Node": "foobar", "Address": "10.1.10.12", "Datacenter": "dc1",
    "TaggedAddresses": {"lan": "10.1.10.12", "wan": "10.1.10.12"}, "Meta": {"instance_type": "m3.large"}},
  "Service": {"ID": "redis", "Service": "redis", "Tags": ["primary"], "Address": "10.1.10.12",
    "TaggedAddresses": {"lan": {"address": "10.1.10.12", "port": 8000}}, "Meta": {"redis_version": "4.0"}, "Port": 8000,
    "Weights": {"Passing": 10, "Warning": 2}, "EnableTagOverride": false, "Namespace": "default"},
  "Checks": [
    {"Node": "foobar", "CheckID": "service:redis", "Name": "Service 'redis' check", "Status": "passing", "Notes": "",
     "Output": "", "ServiceID": "redis", "ServiceName": "redis", "ServiceTags": ["primary"], "Namespace": "default"},
    {"Node": "foobar", "CheckID": "serfHealth", "Name": "Serf Health Status", "Status": "passing", "Notes": "",
     "Output": "", "ServiceID": "", "ServiceName": "", "ServiceTags": [], "Namespace": "default"}]
}]"""
"""The sample of the documentation of `/v1/health/service/:service`."""


def entries(text: bytes) -> list[services.HealthEntry]:
    return msgspec.json.decode(text, type=list[services.HealthEntry])


def listed(registration: Registration) -> bytes:
    """Returns the agent's entry of a registration."""
    body = services.registration_body(registration)
    service = {name: body[name] for name in ("ID", "Address", "Port", "Tags", "Meta", "Weights")}
    return msgspec.json.encode([{"Node": {"Node": "n1", "Address": "10.0.0.1"}, "Service": service, "Checks": None}])


def test_services_of_other_programs_are_decoded() -> None:
    found = services.decode_entries("redis", entries(RECORDED))
    instance = Instance(
        "redis",
        "redis@foobar",
        "10.1.10.12",
        8000,
        weight=10,
        tags=("primary",),
        metadata=freeze({"redis_version": "4.0"}),
    )
    assert found == {"redis@foobar": Endpoint(instance, Status.PASSING)}


@given(instances)
def test_a_registered_instance_decodes_to_itself(instance: Instance) -> None:
    try:
        text = listed(Registration(instance, holder="h"))
    except Invalid as error:
        assert error.field.startswith("metadata")  # noqa: PT017 - that is what Consul can't list
        return
    assert services.decode_entries(instance.service, entries(text)) == {
        instance.id: Endpoint(instance, holder_digest=holder_digest("h"))
    }


@pytest.mark.parametrize(
    ("checks", "status", "weight"),
    [
        ('{"CheckID":"a","Status":"passing"}', Status.PASSING, 10),
        ('{"CheckID":"a","Status":"warning"},{"CheckID":"b","Status":"passing"}', Status.WARNING, 2),
        ('{"CheckID":"a","Status":"warning"},{"CheckID":"b","Status":"critical"}', Status.CRITICAL, 10),
        ('{"CheckID":"serfHealth","Status":"critical"},{"CheckID":"b","Status":"warning"}', Status.CRITICAL, 10),
        ('{"CheckID":"_node_maintenance","Status":"critical"}', Status.MAINTENANCE, 10),
        (
            '{"CheckID":"_service_maintenance:redis","Status":"critical","Notes":"adsum: draining: x"}',
            Status.DRAINING,
            10,
        ),
        ('{"CheckID":"_service_maintenance:redis","Status":"critical","Notes":"why"}', Status.MAINTENANCE, 10),
    ],
)
def test_the_worst_check_decides_the_status(checks: str, status: Status, weight: int) -> None:
    text = b"%s%s]}]" % (RECORDED.partition(b'"Checks": [')[0] + b'"Checks": [', checks.encode())
    (endpoint,) = services.decode_entries("redis", entries(text)).values()
    assert (endpoint.status, endpoint.weight) == (status, weight)


def test_a_service_without_an_address_has_that_of_its_node() -> None:
    text = b'[{"Node":{"Node":"n","Address":"10.0.0.7"},"Service":{"ID":"app#1 x","Address":"","Port":80,"Meta":null}}]'
    (endpoint,) = services.decode_entries("app", entries(text)).values()
    assert (endpoint.id, endpoint.authority) == ("app-1-x@n", "10.0.0.7:80")


def test_services_that_cannot_be_called_are_left_out() -> None:
    text = b'[{"Node":{"Node":"n","Address":"10.0.0.7"},"Service":{"ID":"a","Address":"no host","Port":0}}]'
    assert services.decode_entries("app", entries(text)) == {}


INSTANCE = Instance("orders", "o1", "fd00::1", 8000)


def test_the_agent_runs_the_checks() -> None:
    checks = (
        Check("web", CheckKind.HTTP, interval=5.0, path="/health", headers=freeze({"Host": "x"}), port=81),
        Check("rpc", CheckKind.GRPC, grpc_service="orders.v1", tls=True),
        Check("dial", CheckKind.TCP, rise=1, fall=4),
    )
    web, rpc, dial, renews = services.registration_body(Registration(INSTANCE, 15.0, 10.0, checks, holder="h"))[
        "Checks"
    ]
    assert (web["HTTP"], web["Method"], web["Header"], web["Interval"]) == (
        "http://[fd00::1]:81/health",
        "GET",
        {"Host": ["x"]},
        "5000ms",
    )
    assert (rpc["GRPC"], rpc["GRPCUseTLS"]) == ("[fd00::1]:8000/orders.v1", True)
    assert (dial["TCP"], dial["SuccessBeforePassing"], dial["FailuresBeforeCritical"]) == ("[fd00::1]:8000", 1, 4)
    assert (renews["CheckID"], renews["TTL"], renews["Status"]) == ("adsum-orders:o1:h", "15000ms", "passing")
    assert renews["DeregisterCriticalServiceAfter"] == "60000ms", "Consul accepts no less"


def test_checks_of_an_instance_with_tls_use_tls() -> None:
    checks = (Check("web", CheckKind.HTTP), Check("rpc", CheckKind.GRPC), Check("side", CheckKind.HTTP, port=81))
    instance = replace(INSTANCE, scheme="https")
    web, rpc, side, _ = services.registration_body(Registration(instance, 15.0, 10.0, checks, holder="h"))["Checks"]
    assert (web["HTTP"], web["TLSSkipVerify"], rpc["GRPCUseTLS"]) == ("https://[fd00::1]:8000/", True, True)
    assert (side["HTTP"], side["TLSSkipVerify"]) == ("http://[fd00::1]:81/", False)


@pytest.mark.parametrize(
    ("registration", "field"),
    [
        (Registration(replace(INSTANCE, metadata=freeze({"a.b": "1"}))), "metadata.a.b"),
        (Registration(replace(INSTANCE, metadata=freeze({"adsum-id": "1"}))), "metadata.adsum-id"),
        (Registration(replace(INSTANCE, metadata=freeze({"a": "x" * 513}))), "metadata.a"),
        (Registration(replace(INSTANCE, metadata=freeze({f"a{n}": "x" for n in range(64)}))), "metadata"),
        (Registration(INSTANCE, checks=(Check("w", CheckKind.HTTP, expect=((200, 404),)),)), "checks[0].expect"),
    ],
)
def test_an_instance_that_consul_cannot_represent_is_refused(registration: Registration, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        services.registration_body(registration)
    assert refused.value.field == field
