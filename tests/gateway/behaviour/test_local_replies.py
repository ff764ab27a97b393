"""The local replies of a real Envoy: every refusal has a helpful detail."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from adsum.core.errors import Invalid
from adsum.gateway.intent.actions import Target
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector
from tests.gateway.echo_services import echo_service, listing
from tests.gateway.envoy_gateway import EnvoyGateway, running_gateway
from tests.gateway.real_envoy import ENVOY_TIMEOUT, needs_envoy

LONG = "x" * 70_000


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EnvoyGateway]:
    route = Route("shop", hosts=("*.shop.example",), to=(Target(Selector("orders")),))
    with (
        echo_service("o1") as port,
        running_gateway(tmp_path_factory.mktemp("gateway"), [listing("orders", "o1", port)], route) as found,
    ):
        yield found


def _send(gateway: EnvoyGateway, head: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Returns the answer to exactly these bytes."""
    host, _, port = gateway.address.rpartition(":")
    with socket.create_connection((host, int(port)), ENVOY_TIMEOUT) as connection:
        connection.sendall((head.replace("\n", "\r\n") + "Connection: close\r\n\r\n").encode("latin-1"))
        answer = b"".join(iter(lambda: connection.recv(65_536), b"")).decode("latin-1")
    top, _, body = answer.partition("\r\n\r\n")
    status, *lines = top.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(status.split()[1]), headers, json.loads(body)


@needs_envoy
@pytest.mark.parametrize(
    "head",
    [
        "GET /orders/ HTTP/1.1\nHost: x\nHost: y\n",
        "GET /orders/ HTTP/1.1\nHost: evil.example\nHost: a.shop.example\n",
        "GET /orders/ HTTP/1.1\n",
        "GET /orders/caf\xc3\xa9 HTTP/1.1\nHost: x\n",
        "GET /orders/caf\xe9 HTTP/1.1\nHost: x\n",
        "GET /orders/%00 HTTP/1.1\nHost: x\n",
        "POST /orders/ HTTP/1.1\nHost: x\nContent-Length: 3\nContent-Length: 4\n",
        "POST /orders/ HTTP/1.1\nHost: x\nContent-Length: 3\nTransfer-Encoding: chunked\n",
    ],
)
def test_the_answer_to_a_malformed_request_describes_a_valid_one(gateway: EnvoyGateway, head: str) -> None:
    status, _, problem = _send(gateway, head)
    assert (status, problem["title"]) == (400, "Malformed request")
    for word in ("one host", "percent-encoded", "one length"):
        assert word in problem["detail"]


@needs_envoy
@pytest.mark.parametrize("host", ["x", "orders.localhost", "a.shop.example"])
def test_trace_reaches_no_service(gateway: EnvoyGateway, host: str) -> None:
    status, headers, problem = _send(gateway, f"TRACE /orders/ HTTP/1.1\nHost: {host}\nCookie: s=1\n")
    assert (status, problem["title"]) == (405, "Method not allowed")
    assert "TRACE" in problem["detail"]
    assert "GET" in headers["allow"]


@needs_envoy
@pytest.mark.parametrize("head", [f"GET /orders/ HTTP/1.1\nHost: x\nX-A: {LONG}\n", f"GET /{LONG} HTTP/1.1\nHost: x\n"])
def test_the_answer_to_too_large_headers_names_the_bound(gateway: EnvoyGateway, head: str) -> None:
    status, _, problem = _send(gateway, head)
    assert (status, problem["title"]) == (431, "Headers too large")
    assert "60 KiB" in problem["detail"]


@needs_envoy
def test_every_refusal_has_a_detail(gateway: EnvoyGateway) -> None:
    status, _, problem = _send(gateway, "OPTIONS * HTTP/1.1\nHost: x\n")
    assert status == 404
    assert problem["detail"] == "the gateway refuses this request: absolute_path_rejected"


@needs_envoy
def test_a_service_that_closes_during_an_upload_is_not_reported_as_unreachable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as threads:
        server.settimeout(ENVOY_TIMEOUT)

        def break_off() -> None:
            connection, _ = server.accept()
            connection.recv(10)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

        broken = threads.submit(break_off)
        with running_gateway(tmp_path, [listing("early", "e1", server.getsockname()[1])]) as gateway:
            status, headers, problem = _send(gateway, "POST /early/ HTTP/1.1\nHost: x\nContent-Length: 9\n")
        broken.result(ENVOY_TIMEOUT)
    assert (status, problem["title"]) == (503, "Connection lost")
    assert "retry-after" not in headers, "a retry would not help an upload"


def test_a_route_for_trace_is_refused() -> None:
    with pytest.raises(Invalid, match="CONNECT and TRACE can't be routed"):
        Route("t", methods=("TRACE",), to=(Target(Selector("orders")),))
