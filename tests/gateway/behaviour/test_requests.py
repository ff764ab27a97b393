"""Requests through a gateway: a real Envoy with compiled resources between callers and services."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from adsum.core.catalog import snapshots
from adsum.core.catalog.changes import FullState
from adsum.core.model import Listing, Status
from adsum.gateway.intent import default_routes
from adsum.gateway.intent.actions import HashPolicy, HeaderEdits, Mirror, RateLimit, Retries, Target
from adsum.gateway.intent.cors import Cors
from adsum.gateway.intent.intent import Intent
from adsum.gateway.intent.matches import MatchKind, PathMatch
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.intent.upstreams import OutlierSettings, Upstream
from adsum.gateway.profile import GatewayProfile
from adsum.gateway.resources.compiled_resources import NO_RESOURCES
from tests.gateway.echo_services import echo_service, listing
from tests.gateway.real_envoy import ENVOY_TIMEOUT, GatewayConnection, free_port, needs_envoy, running_envoy

pytestmark = needs_envoy


def route(name: str, service: str = "orders", **more: Any) -> Route:
    """Returns a route whose path is its name."""
    return Route(name, path=PathMatch(MatchKind.PREFIX, f"/{name}"), to=(Target(Selector(service)),), **more)


ROUTES = (
    route(
        "edits",
        request_headers=HeaderEdits({"x-set": "100%"}, {"x-add": "b"}, ("x-gone",)),
        response_headers=HeaderEdits(set={"x-answer": "%20"}),
    ),
    route("small", max_body=10),
    route("limited", rate_limit=RateLimit(3, 3_600.0)),
    route("pages", cors=Cors(("https://shop.example",), ("PUT",), ("x-a",), ("x-b",), 60.0, credentials=True)),
    route("sticky", "many", hash=HashPolicy(cookie="sid", ttl=60.0)),
    route("by-user", "many", hash=HashPolicy(header="x-user")),
    route("copied", "empty", mirror=Mirror(Selector("orders"))),
    route("sure", "failing", retries=Retries(unsafe=True)),
    route("once", "failing", retries=Retries(0)),
    route("held", "half", retry_body=4_000_000),
    Route(
        "split",
        path=PathMatch(MatchKind.PREFIX, "/split"),
        to=(
            Target(Selector("shared", without_tags=("canary",)), 90),
            Target(Selector("shared", ("canary",)), 10),
        ),
    ),
)


NEVER_OUT = OutlierSettings(consecutive=0)
INTENT = Intent(ROUTES, {name: Upstream(name, outliers=NEVER_OUT) for name in ("half", "failing", "broken")})


@pytest.fixture(scope="module")
def profile() -> GatewayProfile:
    return GatewayProfile((f"127.0.0.1:{free_port()}",), access_log="json")


@pytest.fixture(scope="module")
def folder(profile: GatewayProfile, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder with the log of the gateway, which runs during the tests."""
    folder = tmp_path_factory.mktemp("gateway")
    with ExitStack() as stack:

        def instance(service: str, id: str, status: int = 200, **more: Any) -> Listing:
            return listing(service, id, stack.enter_context(echo_service(id, status)), **more)

        listings = [
            instance("orders", "o1"),
            *(instance("many", f"m{n}") for n in range(8)),
            instance("half", "alive"),
            listing("half", "dead", free_port()),
            listing("dead", "d1", free_port()),
            listing("secret", "s1", free_port(), scheme="https"),
            instance("failing", "good"),
            instance("failing", "bad", 503),
            listing("sick", "s1", 9, status=Status.CRITICAL),
            listing("leaving", "l1", 9, status=Status.DRAINING),
            instance("reserved", "weighted"),
            instance("reserved", "reserve", weight=0),
            *(instance("shared", f"old{n}") for n in range(2)),
            instance("shared", "canary", tags=("canary",)),
            *(listing("broken", f"b{n}", stack.enter_context(echo_service(f"b{n}", 503, delay=0.2))) for n in range(2)),
        ]
        compiled = NO_RESOURCES.advance(
            snapshots.load_snapshot(FullState("e", 1, [(1, item) for item in listings])), INTENT, {}
        )
        with running_envoy(compiled, profile, folder):
            yield folder


@pytest.fixture
def call(folder: Path, profile: GatewayProfile) -> Iterator[Any]:
    caller = GatewayConnection(profile)

    def call(
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        host: str = "gateway.test",
        pairs: tuple[tuple[str, str], ...] = (),
        **headers: str,
    ) -> Any:
        pairs += tuple((name.replace("_", "-"), value) for name, value in headers.items())
        response, answer = caller(method, path, host, pairs, body)
        answer = json.loads(answer) if answer.startswith(b"{") else answer
        return response.status, {name.lower(): value for name, value in response.getheaders()}, answer

    yield call
    caller.close()


def logged(folder: Path, path: str, count: int) -> list[dict[str, Any]]:
    """Returns the log lines with that path, once there are `count` of them."""
    deadline = time.monotonic() + ENVOY_TIMEOUT
    lines: list[str] = []
    while len(lines) < count and time.monotonic() < deadline:
        time.sleep(0.05)
        lines = [line for line in (folder / "envoy.log").read_text().splitlines() if path in line]
    return [json.loads(line) for line in lines]


def test_a_service_sees_its_own_paths_and_the_removed_prefix(call: Any) -> None:
    status, _, answer = call("/orders/x/y?z=1")
    headers = {name.lower(): value for name, value in answer["headers"].items()}
    assert (status, answer["path"]) == (200, "/x/y?z=1")
    assert headers["x-forwarded-prefix"] == "/orders"
    assert headers["x-forwarded-host"] == headers["host"] == "gateway.test"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-for"]


def test_forwarding_headers_of_callers_are_dropped(call: Any) -> None:
    _, _, answer = call(
        "/orders/", x_forwarded_host="evil.example", x_forwarded_for="1.2.3.4", x_forwarded_prefix="/evil"
    )
    headers = {name.lower(): value for name, value in answer["headers"].items()}
    assert headers["x-forwarded-host"] == "gateway.test"
    assert headers["x-forwarded-prefix"] == "/orders"
    assert "1.2.3.4" not in headers["x-forwarded-for"]


SPOOFED = {
    "Forwarded": "for=6.6.6.6;host=evil",
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Host": "evil",
    "X-Forwarded-Port": "1",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Proto": "gopher",
    "X-Forwarded-Scheme": "gopher",
    "X-Forwarded-Ssl": "evil",
    "X-Original-Url": "/evil",
    "X-Real-Ip": "6.6.6.6",
    "X-Rewrite-Url": "/evil",
    "X_Forwarded_For": "6.6.6.6",
    "X_Forwarded-Prefix": "/evil",
    "x_user": "evil",
}


@pytest.mark.parametrize("path", ["/orders/", "/edits", "/"])
def test_callers_can_not_forge_their_origin_with_any_header(call: Any, path: str) -> None:
    host = "orders.localhost" if path == "/" else "gateway.test"
    _, _, answer = call(path, host=host, pairs=tuple(SPOOFED.items()))
    assert not [value for value in answer["headers"].values() if value in ("6.6.6.6", "1", "gopher") or "evil" in value]
    assert "x_user" not in answer["headers"]


def raw(profile: GatewayProfile, request: str) -> tuple[str, str]:
    """Returns the status line and the rest of the gateway's answer to exactly these bytes."""
    host, _, port = profile.listen[0].rpartition(":")
    with socket.create_connection((host, int(port)), ENVOY_TIMEOUT) as connection:
        connection.sendall(request.replace("\n", "\r\n").encode())
        answer = b"".join(iter(lambda: connection.recv(65_536), b"")).decode()
    status, _, rest = answer.partition("\r\n")
    return status, rest


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("offer", ["TLS/1.2", "TLS/1.3, HTTP/1.1", "h2c", "IRC/6.9", "web", "websockets", "WEB"])
def test_an_unknown_upgrade_is_ignored(profile: GatewayProfile, offer: str) -> None:
    head = f"GET /orders/a HTTP/1.1\nHost: x\nConnection: Upgrade, close\nUpgrade: {offer}\n\n"
    assert raw(profile, head)[0] == "HTTP/1.1 200 OK"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("head", ["GET /orders/a HTTP/1.0\nHost: x\n\n", "GET /orders/a HTTP/1.0\n\n"])
def test_http_1_0_is_answered(profile: GatewayProfile, head: str) -> None:
    status, rest = raw(profile, head)
    assert status.split()[1] == "200"
    assert '"path": "/a"' in rest


def test_the_dot_of_the_dns_root_is_ignored_in_a_host(call: Any) -> None:
    assert call("/x", host="orders.localhost.")[2]["path"] == "/x"
    assert call("/x", host="orders.localhost.:80")[2]["path"] == "/x"


def test_answers_to_cors_requests_vary_by_origin(call: Any) -> None:
    for more in ({}, {"origin": "https://shop.example"}, {"origin": "https://evil.example"}):
        assert call("/pages", **more)[1]["vary"] == "Origin"
    assert "vary" not in call("/orders/")[1]


@pytest.mark.parametrize("path", ["/half/", "/held"])
def test_a_body_up_to_retry_body_is_retried(call: Any, path: str) -> None:
    size = 900_000 if path == "/half/" else 3_000_000
    for n in range(12):
        assert call(path, "POST", b"x" * size)[0] == 200, n


def test_request_ids_and_traces_are_forwarded_unchanged(call: Any) -> None:
    trace, id = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "11111111-2222-3333-4444-555555555555"
    _, answered, answer = call("/orders/", traceparent=trace, x_request_id=id)
    headers = {name.lower(): value for name, value in answer["headers"].items()}
    assert headers["traceparent"] == trace
    assert headers["x-request-id"] == answered["x-request-id"] == id
    assert call("/orders/")[1]["x-request-id"]


@pytest.mark.parametrize("service", ["sick", "leaving", "empty"])
def test_a_service_without_a_healthy_instance_is_a_problem_with_its_name(call: Any, service: str) -> None:
    path = "/copied" if service == "empty" else f"/{service}/"
    status, headers, answer = call(path)
    assert (status, headers["content-type"], headers["retry-after"]) == (503, "application/problem+json", "1")
    assert answer["service"] == service
    assert answer["status"] == 503
    assert service in answer["detail"]
    assert answer["title"] == "No healthy instance"
    assert answer["route"] in (default_routes.PATH_ROUTE_NAME, "copied")


def test_the_answer_to_an_unknown_path_names_the_remedy(call: Any) -> None:
    status, headers, answer = call("/nowhere")
    assert (status, headers["content-type"]) == (404, "application/problem+json")
    assert "route check" in answer["detail"]


def test_an_unreachable_instance_is_a_problem_with_its_service(call: Any) -> None:
    status, _, answer = call("/dead/")
    assert (status, answer["service"], answer["title"]) == (503, "dead", "Instance unreachable")
    assert "127.0.0.1" not in json.dumps(answer)
    assert "reason" not in answer, "Envoy's reason for a failed connection can contain texts from certificates"


def test_callers_get_the_cause_when_a_gateway_has_no_authorities(call: Any) -> None:
    status, _, answer = call("/secret/")
    assert (status, answer["service"], answer["title"]) == (503, "secret", "Instance unreachable")
    assert "no file of certificate authorities" in answer["cause"]
    _, headers, _ = call("/secret/", content_type="application/grpc")
    assert headers["grpc-message"] == f"{answer['title']}: {answer['detail']}; {answer['cause']}"
    _, headers, answer = call("/sick/", content_type="application/grpc")
    assert headers["grpc-message"] == "No healthy instance: no instance of sick can take requests now"
    assert "cause" not in call("/sick/")[2]


def test_a_request_that_never_reached_a_service_is_retried_for_every_method(call: Any) -> None:
    for n in range(60):
        assert call("/half/", "POST", b"x")[0] == 200, n


def test_failures_are_retried_for_idempotent_methods(call: Any) -> None:
    assert {call("/failing/", method)[0] for method in ("GET", "PUT", "DELETE") for _ in range(10)} == {200}


def test_failures_of_other_methods_are_retried_only_if_unsafe(call: Any) -> None:
    assert {call("/failing/", "POST", b"x")[0] for _ in range(20)} == {200, 503}
    assert {call("/sure", "POST", b"x")[0] for _ in range(10)} == {200}
    assert {call("/once")[0] for _ in range(20)} == {200, 503}


def test_the_retry_budget_protects_a_failing_service(profile: GatewayProfile, folder: Path) -> None:
    callers, calls = 100, 8

    def work(_: int) -> set[int]:
        caller = GatewayConnection(profile)
        try:
            return {caller("GET", "/broken/thrice", "gateway.test")[0].status for _ in range(calls)}
        finally:
            caller.close()

    with ThreadPoolExecutor(callers) as pool:
        assert set().union(*pool.map(work, range(callers))) == {503}
    tries = [line["tries"] for line in logged(folder, "/broken/thrice", callers * calls)]
    assert sum(tries) < 2 * len(tries)
    assert max(tries) == 3, "while few requests are retried, a request is retried twice"


def test_headers_are_set_added_and_removed_literally(call: Any) -> None:
    _, answered, answer = call("/edits", x_set="a", x_add="a", x_gone="a")
    headers = {name.lower(): value for name, value in answer["headers"].items()}
    assert headers["x-set"] == "100%"
    assert headers["x-add"] in ("b", "a,b")
    assert "x-gone" not in headers
    assert answered["x-answer"] == "%20"


def test_a_body_beyond_the_limit_is_refused(call: Any) -> None:
    assert call("/small", "POST", b"x" * 10)[0] == 200
    status, headers, answer = call("/small", "POST", b"x" * 11)
    assert (status, headers["content-type"]) == (413, "application/problem+json")
    assert (answer["route"], answer["title"]) == ("small", "Body too large")


def test_a_rate_limit_counts_all_methods_of_its_route(call: Any) -> None:
    statuses = [
        call(path, method)[0] for path, method in (("/limited", "GET"), ("/limited/x", "POST"), ("/limited/y", "PUT"))
    ]
    assert statuses == [200, 200, 200]
    status, headers, answer = call("/limited/z", "DELETE")
    assert (status, headers["retry-after"], answer["title"]) == (429, "1", "Rate limited")
    assert call("/orders/")[0] == 200


def test_browsers_get_the_origins_that_may_call(call: Any) -> None:
    status, headers, _ = call("/pages", "OPTIONS", origin="https://shop.example", access_control_request_method="PUT")
    assert status == 200
    assert headers["access-control-allow-origin"] == "https://shop.example"
    assert headers["access-control-allow-credentials"] == "true"
    assert headers["access-control-max-age"] == "60"
    assert "access-control-allow-origin" not in call("/pages", origin="https://evil.example")[1]
    assert call("/pages", origin="https://shop.example")[1]["access-control-expose-headers"] == "x-b"


def test_a_caller_with_a_cookie_stays_with_an_instance(call: Any) -> None:
    _, headers, answer = call("/sticky")
    cookie = headers["set-cookie"].partition(";")[0]
    assert {call("/sticky", cookie=cookie)[2]["id"] for _ in range(10)} == {answer["id"]}


def test_the_value_of_a_header_decides_which_instance_gets_a_request(call: Any) -> None:
    assert len({call("/by-user", x_user="ann")[2]["id"] for _ in range(10)}) == 1
    assert len({call("/by-user", x_user=f"user{n}")[2]["id"] for n in range(40)}) > 3


def test_a_reserve_is_not_used_while_another_instance_is_usable(call: Any) -> None:
    assert {call("/reserved/")[2]["id"] for _ in range(20)} == {"weighted"}


def test_a_canary_gets_its_share_and_no_more(call: Any) -> None:
    calls = 600
    counts = Counter(call("/split")[2]["id"] for _ in range(calls))
    assert 0.04 < counts["canary"] / calls < 0.18
    assert min(counts["old0"], counts["old1"]) > calls / 4


def test_every_request_is_logged_as_a_line_of_json(call: Any, folder: Path) -> None:
    call("/orders/lines?x=1")
    (answer,) = logged(folder, "/orders/lines", 1)
    assert answer["path"] == "/orders/lines?x=1"
    assert (answer["service"], answer["instance"], answer["status"]) == ("orders", "o1", 200)
