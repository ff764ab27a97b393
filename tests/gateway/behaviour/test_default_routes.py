"""The default routes of many services at a real Envoy, where one pattern finds all services."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adsum.envoy.metrics.monitor import ADMIN_CLUSTER
from adsum.envoy.metrics.stats import REGISTRY_CLUSTER
from adsum.gateway.intent.upstreams import Upstream, UpstreamProtocol
from adsum.gateway.resources.resource_encoder import MAX_OWN_DEFAULT_ROUTES
from tests.gateway.echo_services import echo_service, listing
from tests.gateway.envoy_gateway import EnvoyGateway, running_gateway
from tests.gateway.real_envoy import needs_envoy

pytestmark = needs_envoy


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EnvoyGateway]:
    folder: Path = tmp_path_factory.mktemp("many")
    with echo_service("o1") as port, echo_service("u1") as other:
        crowd = [listing(f"s{n}", "x", 1) for n in range(MAX_OWN_DEFAULT_ROUTES)]
        mixed = [listing("mixed", "one", other), listing("mixed", "two", 1, scheme="h2c", weight=0)]
        called = [listing("orders", "o1", port), listing("calls", "c1", 1, scheme="grpc"), *mixed]
        with running_gateway(folder, [*crowd, *called], Upstream("settled", protocol=UpstreamProtocol.HTTP1)) as found:
            yield found


def test_a_service_is_found_by_its_path(many: EnvoyGateway) -> None:
    answer = many.get("/orders/a//b?c=d")
    assert (answer.id, answer.content["path"], answer.content["headers"]["x-forwarded-prefix"]) == (
        "o1",
        "/a//b?c=d",
        "/orders",
    )
    assert many.get("/orders?x=1").content["path"] == "/?x=1"
    assert many.get("/mixed/").id == "u1"


@pytest.mark.parametrize("host", ["orders.localhost", "ORDERS.localhost:8080"])
def test_a_service_is_found_by_its_host(many: EnvoyGateway, host: str) -> None:
    answer = many.get("/orders/a", host=host)
    assert (answer.id, answer.content["path"]) == ("o1", "/orders/a")


@pytest.mark.parametrize(
    ("path", "host"),
    [
        ("/nobody/", "any"),
        ("/orders_/", "any"),
        ("/orders.x/", "any"),
        ("/calls%3Fh2/", "any"),
        (f"/{REGISTRY_CLUSTER}/", "any"),
        (f"/{ADMIN_CLUSTER}/help", "any"),
        ("/-", "any"),
        ("/", "nobody.localhost"),
        ("/", "a.orders.localhost"),
        ("/", f"{ADMIN_CLUSTER}.localhost"),
    ],
)
def test_an_unknown_service_has_no_route(many: EnvoyGateway, path: str, host: str) -> None:
    answer = many.get(path, host=host)
    assert (answer.status, answer.content["title"]) == (404, "No such route")
    assert "route" not in answer.content


@pytest.mark.parametrize("service", ["calls", "settled", "s1"])
def test_a_known_service_without_an_answer_gets_503(many: EnvoyGateway, service: str) -> None:
    answer = many.get(f"/{service}/")
    assert (answer.status, answer.content["service"]) == (503, service)
