"""Routes and upstreams over the native API."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from adsum.dialects.native.operations import intent as intent_operations
from adsum.dialects.native.worker import WorkerThread
from adsum.gateway.intent import intent
from adsum.gateway.route_check.route_check import check_route
from tests.dialects.native.native_api import JSON, NativeApi

ROUTES, UPSTREAMS = "/api/v1/routes", "/api/v1/upstreams"
CHECK = "/api/v1/check-route"
SHOP: dict[str, Any] = {"hosts": ["shop.example"], "path": {"prefix": "/orders"}, "to": [{"service": "orders"}]}


async def names(spoken: NativeApi) -> list[str]:
    """Of all routes."""
    return [each["route"]["name"] for each in (await spoken.request("GET", ROUTES)).json["routes"]]


async def test_a_declared_route_is_kept_with_who_declared_it(spoken: NativeApi) -> None:
    put = await spoken.request("PUT", f"{ROUTES}/shop", SHOP, JSON | {"Adsum-Actor": "ann"})
    assert (put.status, put.json["revision"]) == (200, 1)
    read = await spoken.request("GET", f"{ROUTES}/shop")
    assert (read.json["actor"], read.json["peer"]) == ("ann", "10.1.2.3")
    assert read.json["route"].items() >= {**SHOP, "name": "shop"}.items()
    assert await names(spoken) == ["shop"]


async def test_the_same_route_again_changes_nothing(spoken: NativeApi) -> None:
    await spoken.request("PUT", f"{ROUTES}/shop", SHOP)
    again = await spoken.request("PUT", f"{ROUTES}/shop", {**SHOP, "priority": 0, "methods": []})
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
async def test_a_wrong_route_is_refused_by_its_field_and_changes_nothing(
    spoken: NativeApi, wrong: dict[str, Any], field: str
) -> None:
    await spoken.request("PUT", f"{ROUTES}/shop", SHOP)
    refused = await spoken.request("PUT", f"{ROUTES}/shop", SHOP | wrong)
    assert (refused.status, refused.json["field"]) == (422, field)
    assert (await spoken.request("GET", f"{ROUTES}/shop")).json["route"].items() >= SHOP.items()
    assert spoken.registry.snapshot.revision == 1


async def test_routes_to_more_choices_than_gateways_can_be_told_of_are_refused_by_their_field(
    spoken: NativeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intent, "MAX_SELECTORS", 2)
    chosen = [{"service": "orders", "tags": ["a"]}, {"service": "orders", "tags": ["b"]}]
    assert (await spoken.request("PUT", f"{ROUTES}/shop", SHOP | {"to": chosen})).status == 200
    refused = await spoken.request("PUT", f"{ROUTES}/more", SHOP | {"to": [{"service": "orders", "tags": ["c"]}]})
    assert (refused.status, refused.json["field"]) == (422, "to")
    body = {"routes": [{"name": "all", **SHOP, "to": [*chosen, {"service": "orders"}]}]}
    refused = await spoken.request("PUT", "/api/v1/intent", body)
    assert (refused.status, refused.json["field"]) == (422, "routes")
    assert await names(spoken) == ["shop"]
    assert (await spoken.request("PUT", f"{ROUTES}/more", SHOP | {"to": chosen[:1]})).status == 200


async def test_what_was_never_declared_is_404_and_withdrawing_it_is_harmless(spoken: NativeApi) -> None:
    missing = await spoken.request("GET", f"{ROUTES}/shop")
    assert (missing.status, missing.json["detail"]) == (404, "no route 'shop' is declared")
    assert (await spoken.request("DELETE", f"{ROUTES}/shop")).json["revision"] == 0
    await spoken.request("PUT", f"{ROUTES}/shop", SHOP)
    assert (await spoken.request("DELETE", f"{ROUTES}/shop?reason=old")).json["revision"] == 2
    assert (await spoken.request("GET", ROUTES)).json["routes"] == []


async def test_an_upstream_is_declared_by_service(spoken: NativeApi) -> None:
    await spoken.request("PUT", f"{UPSTREAMS}/orders", {"policy": "ring_hash", "outliers": {"consecutive": 3}})
    (only,) = (await spoken.request("GET", UPSTREAMS)).json["upstreams"]
    assert only["upstream"].items() >= {"service": "orders", "policy": "ring_hash"}.items()
    assert only["upstream"]["outliers"] == {"consecutive": 3}
    assert (await spoken.request("GET", f"{UPSTREAMS}/users")).status == 404
    refused = await spoken.request("PUT", f"{UPSTREAMS}/orders", {"policy": "random", "slow_start": 5})
    assert (refused.status, refused.json["field"]) == (422, "slow_start")
    await spoken.request("DELETE", f"{UPSTREAMS}/orders")
    assert (await spoken.request("GET", UPSTREAMS)).json["upstreams"] == []


async def test_all_is_replaced_at_once_or_nothing(spoken: NativeApi) -> None:
    await spoken.request("PUT", f"{ROUTES}/old", SHOP)
    routes = [{"name": "a", **SHOP}, {"name": "b", "to": [{"service": "users"}]}]
    upstreams = [{"service": "users", "policy": "maglev"}]
    done = await spoken.request("PUT", "/api/v1/intent", {"routes": routes, "upstreams": upstreams})
    assert done.json["revision"] == 2
    assert await names(spoken) == ["a", "b"]
    for wrong, field in (
        ([{"name": "c", "to": [{"service": "users"}], "path": {"prefix": "x"}}], "routes[0].path.prefix"),
        ([*routes, routes[0]], "routes[2].name"),
    ):
        refused = await spoken.request("PUT", "/api/v1/intent", {"routes": wrong})
        assert (refused.status, refused.json["field"]) == (422, field)
    assert spoken.registry.snapshot.revision == 2


async def test_a_check_tells_the_route_and_why_not_the_others(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    await spoken.request("PUT", f"{ROUTES}/shop", {**SHOP, "rewrite": "/", "methods": ["GET"]})
    url = "http://shop.example/orders/7?v=2"
    taken = (await spoken.request("POST", "/api/v1/check-route", {"url": url})).json
    assert (taken["route"], taken["path"], taken["to"]) == ("shop", "/7?v=2", [{"to": "orders", "share": 1.0}])
    other = (await spoken.request("POST", "/api/v1/check-route", {"url": "/orders/7", "method": "POST"})).json
    assert (other["default"], other["path"]) == (True, "/7")
    assert other["skipped"] == [{"route": "shop", "failed_condition": "host shop.example"}]
    nobody = (await spoken.request("POST", "/api/v1/check-route", {"url": "/nothing"})).json
    assert (nobody.get("route"), nobody["status"]) == (None, 404)
    for unsent in ("/caf\u00e9", "/a b", "/orders?q=\u00e9"):
        refused = await spoken.request("POST", "/api/v1/check-route", {"url": unsent})
        assert (refused.status, "percent-encode" in refused.json["detail"]) == (422, True)
    refused = await spoken.request("POST", "/api/v1/check-route", {"url": "ftp://x/"})
    assert (refused.status, refused.json["field"]) == (422, "url")


async def test_an_empty_intent_is_refused_unless_it_is_meant(spoken: NativeApi) -> None:
    await spoken.request("PUT", "/api/v1/routes/shop", {"to": [{"service": "web"}]})
    refused = await spoken.request("PUT", "/api/v1/intent", {})
    assert (refused.status, refused.json["field"]) == (422, "prune")
    assert (await spoken.request("GET", "/api/v1/routes/shop")).status == 200
    assert (await spoken.request("PUT", "/api/v1/intent?prune=true", {})).status == 200
    assert (await spoken.request("GET", "/api/v1/routes/shop")).status == 404


async def test_a_question_about_a_route_is_answered_apart_from_the_loop(
    spoken: NativeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    await spoken.request("PUT", f"{ROUTES}/slow", {"path": {"regex": "/(a+)+b"}, "to": [{"service": "orders"}]})
    await spoken.request("PUT", f"{ROUTES}/other", {"path": {"regex": "/(.*)*a{20}"}, "to": [{"service": "users"}]})
    threads: list[int] = []

    def explained(*args: Any, **more: Any) -> Any:
        threads.append(threading.get_ident())
        return check_route(*args, **more)

    monkeypatch.setattr(intent_operations, "check_route", explained)
    asked = [spoken.request("POST", CHECK, {"url": "/" + "a" * 4_000 + "c"}) for _ in range(3)]
    answers = [(each.status, each.json["status"]) for each in await asyncio.gather(*asked)]
    assert answers == [(200, 404)] * 3
    (thread,) = set(threads)
    assert thread != threading.get_ident()


async def test_a_question_that_takes_too_long_is_refused(spoken: NativeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    await spoken.request("PUT", f"{ROUTES}/shop", SHOP | {"hosts": []})
    monkeypatch.setattr(intent_operations, "EXPLAIN_TIMEOUT", -1.0)
    refused = await spoken.request("POST", CHECK, {"url": "/orders"})
    assert (refused.status, refused.json["field"]) == (422, "url")


async def test_work_that_nobody_waits_for_ends() -> None:
    apart, began, ended = WorkerThread(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(go_on: Callable[[], None]) -> None:
        loop.call_soon_threadsafe(began.set)
        try:
            while True:
                go_on()
        finally:
            loop.call_soon_threadsafe(ended.set)

    task = asyncio.create_task(apart.run(work))
    await began.wait()
    task.cancel()
    await ended.wait()


async def test_history_says_who_changed_which_field_from_what_to_what_and_why(spoken: NativeApi) -> None:
    await spoken.request("PUT", f"{ROUTES}/shop?reason=launch", SHOP, JSON | {"Adsum-Actor": "ann"})
    split = [{"service": "orders", "weight": 90}, {"service": "users", "weight": 10}]
    routes = [{"name": "shop", **SHOP, "to": split}]
    upstreams = [{"service": "users", "policy": "maglev"}]
    body = {"routes": routes, "upstreams": upstreams}
    await spoken.request("PUT", "/api/v1/intent?reason=canary", body, JSON | {"Adsum-Actor": "bob"})
    await spoken.request("DELETE", f"{ROUTES}/shop?reason=over", None, {"Adsum-Actor": "eve"})
    found = (await spoken.request("GET", "/api/v1/intent/history?document=route&name=shop")).json
    assert [(each["revision"], each["edit"], each["actor"], each["reason"]) for each in found["edits"]] == [
        (3, "withdrawn", "eve", "over"),
        (2, "changed", "bob", "canary"),
        (1, "declared", "ann", "launch"),
    ]
    assert (found["edits"][1]["before"], found["edits"][1]["after"]) == ({"to": SHOP["to"]}, {"to": split})
    assert found["edits"][0]["before"]["to"] == split
    assert found["edits"][2]["after"].items() >= SHOP.items()
    everything = (await spoken.request("GET", "/api/v1/intent/history?limit=2")).json["edits"]
    assert [(each["document"], each["name"]) for each in everything] == [("route", "shop"), ("upstream", "users")]
    refused = await spoken.request("GET", "/api/v1/intent/history?document=listener")
    assert (refused.status, refused.json["field"]) == (422, "document")
