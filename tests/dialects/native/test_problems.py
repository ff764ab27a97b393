from __future__ import annotations

import pytest

from adsum.core import errors
from adsum.core.errors import AdsumError
from adsum.dialects.native import problems
from adsum.dialects.native.api.operation import MAX_BODY_BYTES
from adsum.registry.registry import UNREADY_AFTER
from tests.dialects.native.native_api import JSON, NativeApi

O1 = "/api/v1/services/orders/instances/o1"
CHECK = {"name": "web", "kind": "http"}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, ""),
        (b"[]", 400, ""),
        (b"\xff", 400, ""),
        (b"[" * 50_000, 400, ""),
        ({}, 422, "port"),
        ({"port": 0}, 422, "port"),
        ({"port": 65_536}, 422, "port"),
        ({"port": "80"}, 422, "port"),
        ({"port": 80, "prot": 1}, 422, "prot"),
        ({"port": 80, "weight": -1}, 422, "weight"),
        ({"port": 80, "weight": 1.5}, 422, "weight"),
        ({"port": 80, "ttl": 0.5}, 422, "ttl"),
        ({"port": 80, "grace": -1}, 422, "grace"),
        ({"port": 80, "address": "::"}, 422, "address"),
        ({"port": 80, "address": "10.0.0"}, 422, "address"),
        ({"port": 80, "scheme": "HTTP"}, 422, "scheme"),
        ({"port": 80, "zone": "a\nb"}, 422, "zone"),
        ({"port": 80, "tags": ["a", "a"]}, 422, "tags"),
        ({"port": 80, "tags": ["a", ""]}, 422, "tags[1]"),
        ({"port": 80, "tags": ["t"] * 65}, 422, "tags"),
        ({"port": 80, "metadata": {"k": 1}}, 422, "metadata[...]"),
        ({"port": 80, "metadata": {"k": "a\0"}}, 422, "metadata.k"),
        ({"port": 80, "checks": [{**CHECK, "interval": 0}]}, 422, "checks[0].interval"),
        ({"port": 80, "checks": [CHECK, CHECK]}, 422, "checks"),
        ({"port": 80, "checks": [{**CHECK, "kind": "exec"}]}, 422, "checks[0].kind"),
        ({"port": 80, "checks": [{**CHECK, "expect": [[300, 200]]}]}, 422, "checks[0].expect"),
    ],
)
async def test_an_invalid_registration_is_refused_with_the_field(
    api: NativeApi, body: object, status: int, field: str
) -> None:
    response = await api.request("PUT", O1, body)
    assert (response.status, response.json.get("field", "")) == (status, field)
    assert response.json["status"] == status
    assert response.headers["content-type"] == "application/problem+json"
    assert api.registry.snapshot.instance_count == 0


@pytest.mark.parametrize(
    ("target", "status", "field"),
    [
        ("/api/v1/services/Orders", 422, "service"),
        ("/api/v1/services/-o", 422, "service"),
        (f"/api/v1/services/{'o' * 64}", 422, "service"),
        ("/api/v1/services/orders/instances/%00", 422, "id"),
        ("/api/v1/services/orders%2Finstances%2Fo1", 422, "service"),
        ("/api/v1/services/%2e%2e", 422, "service"),
        ("/api/v1/services/orders%ff", 422, "service"),
        ("/api/v1/services/orders%", 422, "service"),
        (f"/api/v1/services/orders/instances/{'i' * 129}", 422, "id"),
        ("/api/v1/services/orders?colour=blue", 400, "colour"),
        ("/api/v1/services/orders?metadata=1", 400, "metadata"),
        ("/api/v1/services/orders?tag[x]=1", 400, "tag[x]"),
        ("/api/v1/services/orders?zone=a&zone=b", 400, "zone"),
        ("/api/v1/services/orders?metadata[a]=1&metadata[a]=2", 400, "metadata[a]"),
        ("/api/v1/services/orders?status=well", 422, "status"),
        ("/api/v1/services/orders?wait=301", 422, "wait"),
        ("/api/v1/services/orders?wait=nan", 422, "wait"),
        ("/api/v1/services/orders?after=-1", 422, "after"),
        ("/api/v1/services/orders?after=x", 422, "after"),
        ("/api/v1/services/orders?zone=%ff", 400, ""),
        ("/api/v1/changes?limit=0", 422, "limit"),
        ("/api/v1/changes?limit=1001", 422, "limit"),
        ("/api/v1/status?x=1", 400, "x"),
        ("/api/v1/watch?service=Orders", 422, "service"),
        ("/api/v1/watch?acks=perhaps", 422, "acks"),
        ("/api/v1/watch?since=e1", 422, "since"),
        ("/api/v1/watch?since=e1:x", 422, "since"),
        ("/api/v1/watch?" + "&".join(f"service=s{n}" for n in range(513)), 422, "service"),
        ("/api/v1/watch?" + "&".join(f"service=s{n}" for n in range(1_025)), 400, ""),
    ],
)
async def test_an_invalid_query_is_refused_with_the_parameter(
    api: NativeApi, target: str, status: int, field: str
) -> None:
    response = await api.request("GET", target)
    assert (response.status, response.json.get("field", "")) == (status, field), response.json
    assert api.registry.watches.count == 0


@pytest.mark.parametrize("last", ["7", "e1:", ":7", "e1:-1", "e1:7.0", "e1:" + "9" * 20, "e1:٣"])
async def test_an_invalid_last_event_id_is_refused(api: NativeApi, last: str) -> None:
    response = await api.request("GET", "/api/v1/watch", headers={"Last-Event-ID": last.encode().decode("latin-1")})
    assert (response.status, response.json["field"]) == (400, "Last-Event-ID")


@pytest.mark.parametrize(
    "headers", [{}, {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}]
)
async def test_a_body_without_the_content_type_of_json_is_refused(api: NativeApi, headers: dict[str, str]) -> None:
    assert (await api.request("PUT", O1, b'{"port":1}', headers)).status == 415


async def test_a_charset_in_the_content_type_is_accepted(api: NativeApi) -> None:
    response = await api.request("PUT", O1, b'{"port":1}', {"content-type": "Application/JSON; charset=utf-8"})
    assert response.status == 201


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_its_limit_is_refused(api: NativeApi, declared: bool) -> None:
    body = b'{"port":1}'.ljust(MAX_BODY_BYTES + 1)
    length = {"content-length": str(len(body))} if declared else {}
    assert (await api.request("PUT", O1, body, JSON | length)).status == 413
    fits = body[:MAX_BODY_BYTES]
    assert (await api.request("PUT", O1, fits, JSON)).status == 201


async def test_unknown_paths_and_instances_are_404(api: NativeApi) -> None:
    for method, target in [
        ("GET", O1),
        ("POST", f"{O1}/renew"),
        ("DELETE", f"{O1}/override"),
        ("GET", "/api/v1"),
        ("GET", "/api/v1/services/"),
        ("GET", "/api/v1/services//instances/o1"),
        ("GET", "/" + "x/" * 2_000),
        ("GET", "/favicon.ico"),
    ]:
        response = await api.request(method, target)
        assert (response.status, response.json["title"]) == (404, "Not Found"), target


async def test_another_method_is_405_with_the_allowed_ones(api: NativeApi) -> None:
    for method in ("POST", "PATCH", "OPTIONS", "TRACE", "BREW"):
        response = await api.request(method, O1)
        assert (response.status, response.headers["allow"]) == (405, "DELETE, GET, HEAD, PUT")


async def test_a_watch_has_no_head(api: NativeApi) -> None:
    response = await api.request("HEAD", "/api/v1/watch")
    assert (response.status, response.headers["allow"]) == (405, "GET")


async def test_before_the_catalog_is_loaded_only_operations_without_it_are_served() -> None:
    api = NativeApi()
    assert (await api.request("GET", "/healthz")).status == 200
    assert (await api.request("GET", "/metrics")).status == 200
    assert (await api.request("GET", "/api/v1/status")).status == 200
    for target in ("/readyz", "/api/v1/services", "/api/v1/services/orders", "/api/v1/watch"):
        response = await api.request("GET", target)
        assert response.status == 503, target
        assert response.headers["retry-after"] == "1"
    await api.registry.start()
    assert (await api.request("GET", "/readyz")).body == b"ready\n"
    await api.registry.stop()
    assert (await api.request("GET", "/readyz")).status == 503


async def test_a_stale_or_isolated_node_is_not_ready_and_says_why(api: NativeApi) -> None:
    api.store.trouble = "etcd refuses: permission denied"
    for attribute, reason in (
        ("age_seconds", "reads go on"),
        ("isolated", "nothing can be written here for 16 s now: etcd refuses: permission den"),
    ):
        setattr(api.store, attribute, UNREADY_AFTER + 0.9)
        response = await api.request("GET", "/readyz")
        assert (response.status, reason in response.json["detail"]) == (503, True), response.body
        setattr(api.store, attribute, UNREADY_AFTER)
        assert (await api.request("GET", "/readyz")).body == b"ready\n"
        setattr(api.store, attribute, 0.0)


async def test_a_bug_is_answered_with_500_and_logged_with_a_traceback(
    api: NativeApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def history(*_: object) -> list[object]:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(api.registry, "history", history)
    response = await api.request("GET", "/api/v1/changes")
    assert response.status == 500
    assert b"secret" not in response.body
    assert "ZeroDivisionError" in caplog.text
    assert api.observer.refusals[-1][0] == "read_changes"


def test_every_error_that_a_caller_can_cause_has_a_status() -> None:
    internal = {"AdsumError", "StoreConflict", "StoreOpenFailed", "ProbeUnavailable"}
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AdsumError)}
    assert {kind for kind in kinds if kind.__name__ not in internal} <= problems.STATUSES.keys()
