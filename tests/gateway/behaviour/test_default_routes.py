"""The default routes of many services, which one pattern finds, on a real Envoy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adsum.envoy.metrics.monitor import ADMIN
from adsum.envoy.metrics.stats import REGISTRY
from adsum.gateway.intent.upstreams import Protocol, Upstream
from adsum.gateway.resources.compiled_resources import FEW
from tests.gateway.echo_services import listing, serving
from tests.gateway.envoy_gateway import Gateway, gateway
from tests.gateway.real_envoy import needs_envoy

pytestmark = needs_envoy


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp("many")
    with serving("o1") as port, serving("u1") as other:
        crowd = [listing(f"s{n}", "x", 1) for n in range(FEW)]
        mixed = [listing("mixed", "one", other), listing("mixed", "two", 1, scheme="h2c", weight=0)]
        called = [listing("orders", "o1", port), listing("calls", "c1", 1, scheme="grpc"), *mixed]
        with gateway(folder, [*crowd, *called], Upstream("settled", protocol=Protocol.HTTP1)) as found:
            yield found


def test_a_service_is_found_by_its_path(many: Gateway) -> None:
    answer = many.get("/orders/a//b?c=d")
    assert (answer.id, answer.said["path"], answer.said["headers"]["x-forwarded-prefix"]) == (
        "o1",
        "/a//b?c=d",
        "/orders",
    )
    assert many.get("/orders?x=1").said["path"] == "/?x=1"
    assert many.get("/mixed/").id == "u1"


@pytest.mark.parametrize("host", ["orders.localhost", "ORDERS.localhost:8080"])
def test_a_service_is_found_by_its_host(many: Gateway, host: str) -> None:
    answer = many.get("/orders/a", host=host)
    assert (answer.id, answer.said["path"]) == ("o1", "/orders/a")


@pytest.mark.parametrize(
    ("path", "host"),
    [
        ("/nobody/", "any"),
        ("/orders_/", "any"),
        ("/orders.x/", "any"),
        ("/calls%3Fh2/", "any"),
        (f"/{REGISTRY}/", "any"),
        (f"/{ADMIN}/help", "any"),
        ("/-", "any"),
        ("/", "nobody.localhost"),
        ("/", "a.orders.localhost"),
        ("/", f"{ADMIN}.localhost"),
    ],
)
def test_what_is_no_service_has_no_route(many: Gateway, path: str, host: str) -> None:
    answer = many.get(path, host=host)
    assert (answer.status, answer.said["title"]) == (404, "No such route")
    assert "route" not in answer.said


@pytest.mark.parametrize("service", ["calls", "settled", "s1"])
def test_a_service_that_nobody_answers_for_is_known_nevertheless(many: Gateway, service: str) -> None:
    answer = many.get(f"/{service}/")
    assert (answer.status, answer.said["service"]) == (503, service)
