"""Routes and upstreams over the native API."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from adsum.dialects.native.operations import intent as intent_operations
from adsum.gateway.intent import intent
from adsum.gateway.route_check.route_check import check_route
from tests.dialects.native.native_api import JSON, NativeApi

ROUTES, UPSTREAMS = "/api/v1/routes", "/api/v1/upstreams"
CHECK = "/api/v1/check-route"
SHOP: dict[str, Any] = {"hosts": ["shop.example"], "path": {"prefix": "/orders"}, "to": [{"service": "orders"}]}


async def names(api: NativeApi) -> list[str]:
    """Returns the names of all routes."""
    return [view["route"]["name"] for view in (await api.request("GET", ROUTES)).json["routes"]]


async def test_a_declared_route_is_stored_with_its_actor(api: NativeApi) -> None:
    put = await api.request("PUT", f"{ROUTES}/shop", SHOP, JSON | {"Adsum-Actor": "ann"})
    assert (put.status, put.json["revision"]) == (200, 1)
    read = await api.request("GET", f"{ROUTES}/shop")
    assert (read.json["actor"], read.json["claimed"], read.json["peer"]) == ("anonymous@10.1.2.3", "ann", "10.1.2.3")
    assert read.json["route"].items() >= {**SHOP, "name": "shop"}.items()
    assert await names(api) == ["shop"]


async def test_the_same_route_again_changes_nothing(api: NativeApi) -> None:
    await api.request("PUT", f"{ROUTES}/shop", SHOP)
    again = await api.request("PUT", f"{ROUTES}/shop", {**SHOP, "priority": 0, "methods": []})
    assert again.json["revision"] == 1


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"to": [{"service": "Orders"}]}, "to[0].service"),
        ({"to": []}, "to"),
        ({"path": {"prefix": "orders"}}, "path.prefix"),
        ({"path": {"regex": "/(a"}}, "path.regex"),
        ({"path": {"prefix": "/a", "exact": "/a"}}, "path"),
        ({"hosts": ["a b"]}, "hosts[0]"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": 1, "try_timeout": 2}, "try_timeout"),
        ({"redirect": {"scheme": "https"}}, "to"),
        ({"request_headers": {"set": {"Host": "x"}}}, "request_headers.set.host"),
        ({"hosst": ["a"]}, "hosst"),
    ],
)
async def test_an_invalid_route_is_refused_with_its_field_and_changes_nothing(
    api: NativeApi, wrong: dict[str, Any], field: str
) -> None:
    await api.request("PUT", f"{ROUTES}/shop", SHOP)
    refused = await api.request("PUT", f"{ROUTES}/shop", SHOP | wrong)
    assert (refused.status, refused.json["field"]) == (422, field)
    assert (await api.request("GET", f"{ROUTES}/shop")).json["route"].items() >= SHOP.items()
    assert api.registry.snapshot.revision == 1


async def test_routes_with_too_many_selectors_are_refused_with_their_field(
    api: NativeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intent, "MAX_SELECTORS", 2)
    chosen = [{"service": "orders", "tags": ["a"]}, {"service": "orders", "tags": ["b"]}]
    assert (await api.request("PUT", f"{ROUTES}/shop", SHOP | {"to": chosen})).status == 200
    refused = await api.request("PUT", f"{ROUTES}/more", SHOP | {"to": [{"service": "orders", "tags": ["c"]}]})
    assert (refused.status, refused.json["field"]) == (422, "to")
    body = {"routes": [{"name": "all", **SHOP, "to": [*chosen, {"service": "orders"}]}]}
    refused = await api.request("PUT", "/api/v1/intent", body)
    assert (refused.status, refused.json["field"]) == (422, "routes")
    assert await names(api) == ["shop"]
    assert (await api.request("PUT", f"{ROUTES}/more", SHOP | {"to": chosen[:1]})).status == 200


async def test_an_unknown_route_is_404_and_its_withdrawal_changes_nothing(api: NativeApi) -> None:
    missing = await api.request("GET", f"{ROUTES}/shop")
    assert (missing.status, missing.json["detail"]) == (404, "no route 'shop' is declared")
    assert (await api.request("DELETE", f"{ROUTES}/shop")).json["revision"] == 0
    await api.request("PUT", f"{ROUTES}/shop", SHOP)
    assert (await api.request("DELETE", f"{ROUTES}/shop?reason=old")).json["revision"] == 2
    assert (await api.request("GET", ROUTES)).json["routes"] == []


async def test_an_upstream_is_declared_by_service(api: NativeApi) -> None:
    await api.request("PUT", f"{UPSTREAMS}/orders", {"policy": "ring_hash", "outliers": {"consecutive": 3}})
    (only,) = (await api.request("GET", UPSTREAMS)).json["upstreams"]
    assert only["upstream"].items() >= {"service": "orders", "policy": "ring_hash"}.items()
    assert only["upstream"]["outliers"] == {"consecutive": 3}
    assert (await api.request("GET", f"{UPSTREAMS}/users")).status == 404
    refused = await api.request("PUT", f"{UPSTREAMS}/orders", {"policy": "random", "slow_start": 5})
    assert (refused.status, refused.json["field"]) == (422, "slow_start")
    await api.request("DELETE", f"{UPSTREAMS}/orders")
    assert (await api.request("GET", UPSTREAMS)).json["upstreams"] == []


async def test_the_intent_is_replaced_as_a_whole_or_not_at_all(api: NativeApi) -> None:
    await api.request("PUT", f"{ROUTES}/old", SHOP)
    routes = [{"name": "a", **SHOP}, {"name": "b", "to": [{"service": "users"}]}]
    upstreams = [{"service": "users", "policy": "maglev"}]
    done = await api.request("PUT", "/api/v1/intent", {"routes": routes, "upstreams": upstreams})
    assert done.json["revision"] == 2
    assert await names(api) == ["a", "b"]
    for wrong, field in (
        ([{"name": "c", "to": [{"service": "users"}], "path": {"prefix": "x"}}], "routes[0].path.prefix"),
        ([*routes, routes[0]], "routes[2].name"),
    ):
        refused = await api.request("PUT", "/api/v1/intent", {"routes": wrong})
        assert (refused.status, refused.json["field"]) == (422, field)
    assert api.registry.snapshot.revision == 2


async def test_a_check_returns_the_route_and_why_the_others_do_not_match(api: NativeApi) -> None:
    await api.register("orders", "o1")
    await api.request("PUT", f"{ROUTES}/shop", {**SHOP, "rewrite": "/", "methods": ["GET"]})
    url = "http://shop.example/orders/7?v=2"
    taken = (await api.request("POST", "/api/v1/check-route", {"url": url})).json
    assert (taken["route"], taken["path"], taken["to"]) == ("shop", "/7?v=2", [{"to": "orders", "share": 1.0}])
    other = (await api.request("POST", "/api/v1/check-route", {"url": "/orders/7", "method": "POST"})).json
    assert (other["default"], other["path"]) == (True, "/7")
    assert other["skipped"] == [{"route": "shop", "failed_condition": "host shop.example"}]
    unmatched = (await api.request("POST", "/api/v1/check-route", {"url": "/nothing"})).json
    assert (unmatched.get("route"), unmatched["status"]) == (None, 404)
    for unsent in ("/caf\u00e9", "/a b", "/orders?q=\u00e9"):
        refused = await api.request("POST", "/api/v1/check-route", {"url": unsent})
        assert (refused.status, "percent-encode" in refused.json["detail"]) == (422, True)
    refused = await api.request("POST", "/api/v1/check-route", {"url": "ftp://x/"})
    assert (refused.status, refused.json["field"]) == (422, "url")


async def test_an_empty_intent_needs_prune(api: NativeApi) -> None:
    await api.request("PUT", "/api/v1/routes/shop", {"to": [{"service": "web"}]})
    refused = await api.request("PUT", "/api/v1/intent", {})
    assert (refused.status, refused.json["field"]) == (422, "prune")
    assert (await api.request("GET", "/api/v1/routes/shop")).status == 200
    assert (await api.request("PUT", "/api/v1/intent?prune=true", {})).status == 200
    assert (await api.request("GET", "/api/v1/routes/shop")).status == 404


async def test_a_check_runs_outside_the_event_loop(api: NativeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.request("PUT", f"{ROUTES}/slow", {"path": {"regex": "/(a+)+b"}, "to": [{"service": "orders"}]})
    await api.request("PUT", f"{ROUTES}/other", {"path": {"regex": "/(.*)*a{20}"}, "to": [{"service": "users"}]})
    threads: list[int] = []

    def recorded_check(*args: Any, **more: Any) -> Any:
        threads.append(threading.get_ident())
        return check_route(*args, **more)

    monkeypatch.setattr(intent_operations, "check_route", recorded_check)
    checks = [api.request("POST", CHECK, {"url": "/" + "a" * 4_000 + "c"}) for _ in range(3)]
    responses = [(response.status, response.json["status"]) for response in await asyncio.gather(*checks)]
    assert responses == [(200, 404)] * 3
    (thread,) = set(threads)
    assert thread != threading.get_ident()


async def test_a_check_that_takes_too_long_is_refused(api: NativeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.request("PUT", f"{ROUTES}/shop", SHOP | {"hosts": []})
    monkeypatch.setattr(intent_operations, "ROUTE_CHECK_TIMEOUT", -1.0)
    refused = await api.request("POST", CHECK, {"url": "/orders"})
    assert (refused.status, refused.json["field"]) == (422, "url")


async def test_the_history_of_routes_has_actor_reason_and_changed_fields(api: NativeApi) -> None:
    await api.request("PUT", f"{ROUTES}/shop?reason=launch", SHOP, JSON | {"Adsum-Actor": "ann"})
    split = [{"service": "orders", "weight": 90}, {"service": "users", "weight": 10}]
    routes = [{"name": "shop", **SHOP, "to": split}]
    upstreams = [{"service": "users", "policy": "maglev"}]
    body = {"routes": routes, "upstreams": upstreams}
    await api.request("PUT", "/api/v1/intent?reason=canary", body, JSON | {"Adsum-Actor": "bob"})
    await api.request("DELETE", f"{ROUTES}/shop?reason=over", None, {"Adsum-Actor": "eve"})
    found = (await api.request("GET", "/api/v1/intent/history?document=route&name=shop")).json
    assert [(edit["revision"], edit["edit"], edit["claimed"], edit["reason"]) for edit in found["edits"]] == [
        (3, "withdrawn", "eve", "over"),
        (2, "changed", "bob", "canary"),
        (1, "declared", "ann", "launch"),
    ]
    assert (found["edits"][1]["before"], found["edits"][1]["after"]) == ({"to": SHOP["to"]}, {"to": split})
    assert found["edits"][0]["before"]["to"] == split
    assert found["edits"][2]["after"].items() >= SHOP.items()
    everything = (await api.request("GET", "/api/v1/intent/history?limit=2")).json["edits"]
    assert [(edit["document"], edit["name"]) for edit in everything] == [("route", "shop"), ("upstream", "users")]
    refused = await api.request("GET", "/api/v1/intent/history?document=listener")
    assert (refused.status, refused.json["field"]) == (422, "document")
