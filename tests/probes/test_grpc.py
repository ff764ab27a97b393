from __future__ import annotations

from typing import Any

import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse

from adsum.core.address_policy import AddressPolicy
from adsum.core.model import CheckKind, Outcome, Result
from adsum.probes.grpc import GrpcProbe
from tests.probes.servers import CERTIFICATE, HERE, check, grpc_serving, instance, respond_with, serving

PASS, FAIL = Result.PASS, Result.FAIL
SERVING, NOT_SERVING, UNKNOWN = (
    HealthCheckResponse.SERVING,
    HealthCheckResponse.NOT_SERVING,
    HealthCheckResponse.UNKNOWN,
)
STATUSES = {"": SERVING, "orders.Orders": NOT_SERVING, "orders.New": UNKNOWN}


async def probed(port: int, service: str = "", scheme: str = "grpc", **more: Any) -> Outcome:
    grpc_check = check(CheckKind.GRPC, grpc_service=service, **more)
    return await GrpcProbe(AddressPolicy()).probe(instance(port, scheme=scheme), grpc_check)


@pytest.mark.parametrize(
    ("service", "result", "note"),
    [
        ("", PASS, "the server is serving"),
        ("orders.Orders", FAIL, "orders.Orders is not serving"),
        ("orders.New", FAIL, "orders.New is unknown"),
        ("orders.Gone", FAIL, "the server doesn't know orders.Gone"),
    ],
)
async def test_the_health_of_the_checks_service_is_requested(service: str, result: Result, note: str) -> None:
    async with grpc_serving(STATUSES) as port:
        outcome = await probed(port, service)
    assert (outcome.result, outcome.note) == (result, note)


async def test_a_server_without_the_health_service_fails_with_a_description() -> None:
    async with grpc_serving(None) as port:
        outcome = await probed(port)
    assert (outcome.result, outcome.note) == (FAIL, "the server doesn't implement grpc.health.v1")


async def test_a_server_of_another_protocol_fails_with_a_description() -> None:
    async with serving(respond_with(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        outcome = await probed(server.port)
        assert outcome.result is FAIL
        assert outcome.note.startswith(f"no connection to {HERE}:{server.port}: ")


async def test_a_trusted_certificate_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    async with grpc_serving(STATUSES, tls=True) as port:
        assert (await probed(port, scheme="grpcs")).note == "the server is serving"
        assert (await probed(port, tls=True)).result is PASS


async def test_an_untrusted_certificate_fails() -> None:
    async with grpc_serving(STATUSES, tls=True) as port:
        outcome = await probed(port, tls=True)
        assert outcome.result is FAIL
        assert outcome.note.startswith(f"no connection to {HERE}:{port}: ")


async def test_no_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(respond_with()) as proxy, grpc_serving(STATUSES) as port:
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, f"http://{HERE}:{proxy.port}")
        assert (await probed(port)).result is PASS
        assert not proxy.connections
