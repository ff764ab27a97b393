from __future__ import annotations

import asyncio

import aiohttp
import pytest

from adsum import wire
from adsum.core.model import Outcome, Result
from tests.dialects.native.native_api import ApiResult, NativeApi
from tests.support.fakes import run_until_idle
from tests.support.registry_daemon import RunningDaemon

ORDERS = "/api/v1/services/orders"


async def test_a_service_is_read_with_epoch_revision_and_age(api: NativeApi) -> None:
    await api.register("orders", "o1", address="10.0.0.1", zone="eu", tags=["blue"])
    await api.register("users", "u1")
    response = await api.request("GET", ORDERS)
    assert response.status == 200
    view = wire.decode(response.body, wire.ServiceView)
    assert (view.epoch, view.service, view.revision) == ("e1", "orders", 1)
    assert [(instance.id, instance.address, instance.zone, instance.cause) for instance in view.instances] == [
        ("o1", "10.0.0.1", "eu", "registered")
    ]
    assert response.headers["adsum-epoch"] == "e1"
    assert response.headers["adsum-revision"] == "2", "the revision of the catalog, not of the service"
    assert response.headers["adsum-age"] == "0"
    assert response.headers["cache-control"] == "no-cache"


async def test_the_age_is_that_of_the_store(api: NativeApi) -> None:
    await api.register("orders", "o1")
    api.store.age_seconds = 4.25
    assert (await api.request("GET", ORDERS)).headers["adsum-age"] == "4.250"


async def test_a_service_without_registrations_is_empty(api: NativeApi) -> None:
    response = await api.request("GET", "/api/v1/services/unknown")
    assert response.status == 200
    assert response.json == {"epoch": "e1", "service": "unknown", "revision": 0, "instances": []}


async def test_without_an_address_that_of_the_caller_is_listed(api: NativeApi) -> None:
    await api.register("orders", "o1")
    assert (await api.request("GET", ORDERS)).json["instances"][0]["address"] == "10.1.2.3"


async def test_head_has_the_headers_of_get(api: NativeApi) -> None:
    await api.register("orders", "o1")
    get, head = await api.request("GET", ORDERS), await api.request("HEAD", ORDERS)
    assert (head.status, head.headers) == (get.status, get.headers)


@pytest.mark.parametrize("shape", ['"{}"', 'W/"{}"', '"other", "{}"', "*"])
async def test_a_caller_that_has_the_page_gets_304_without_a_body(api: NativeApi, shape: str) -> None:
    await api.register("orders", "o1")
    etag = (await api.request("GET", ORDERS)).headers["etag"].strip('"')
    response = await api.request("GET", ORDERS, headers={"If-None-Match": shape.format(etag)})
    assert (response.status, response.body) == (304, b"")
    assert response.headers["etag"] == f'"{etag}"'
    assert "content-length" not in response.headers


async def test_the_etag_changes_only_with_the_service(api: NativeApi) -> None:
    await api.register("orders", "o1")
    etag = (await api.request("GET", ORDERS)).headers["etag"]
    await api.register("users", "u1")
    assert (await api.request("GET", ORDERS)).headers["etag"] == etag
    await api.register("orders", "o2")
    assert (await api.request("GET", ORDERS)).headers["etag"] != etag


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("zone=eu", ["a", "b"]),
        ("zone=", ["d"]),
        ("tag=blue", ["a", "c"]),
        ("tag=blue&tag=new", ["c"]),
        ("metadata[v]=1", ["a"]),
        ("metadata%5Bv%5D=1&zone=us", []),
        ("status=draining", ["b"]),
        ("status=draining&status=passing", ["a", "b", "c", "d"]),
        ("status=critical", []),
    ],
)
async def test_filters_select_instances(api: NativeApi, query: str, ids: list[str]) -> None:
    await api.register("orders", "a", zone="eu", tags=["blue"], metadata={"v": "1"})
    await api.register("orders", "b", zone="eu")
    await api.register("orders", "c", zone="us", tags=["blue", "new"], metadata={"v": "2"})
    await api.register("orders", "d")
    await api.request("PUT", f"{ORDERS}/instances/b/override", {"status": "draining"})
    for _ in range(2):
        response = await api.request("GET", f"{ORDERS}?{query}")
        assert [instance["id"] for instance in response.json["instances"]] == ids
    await api.deregister("orders", "a")
    response = await api.request("GET", f"{ORDERS}?{query}")
    assert [instance["id"] for instance in response.json["instances"]] == [id for id in ids if id != "a"]


async def test_each_filter_has_an_etag_of_its_own(api: NativeApi) -> None:
    await api.register("orders", "o1", zone="eu", tags=["blue"])
    targets = (ORDERS, f"{ORDERS}?zone=eu", f"{ORDERS}?zone=us", f"{ORDERS}?tag=eu", f"{ORDERS}?metadata[zone]=eu")
    etags = [(await api.request("GET", target)).headers["etag"] for target in targets]
    assert len(set(etags)) == len(targets)
    for target, etag in zip(targets, etags, strict=True):
        for other in etags:
            response = await api.request("GET", target, headers={"If-None-Match": other})
            assert response.status == (304 if other == etag else 200)
    assert (await api.request("GET", f"{ORDERS}?tag=a&tag=b")).headers["etag"] == (
        await api.request("GET", f"{ORDERS}?tag=b&tag=a")
    ).headers["etag"]


async def test_the_list_counts_instances_by_status(api: NativeApi) -> None:
    await api.register("users", "u1")
    await api.register("orders", "o1")
    await api.register("orders", "o2")
    await api.request("PUT", f"{ORDERS}/instances/o1/override", {"status": "maintenance"})
    page = wire.decode((await api.request("GET", "/api/v1/services")).body, wire.ServiceList)
    assert [(service.name, service.instances, service.status_counts) for service in page.services] == [
        ("orders", 2, {"maintenance": 1, "passing": 1}),
        ("users", 1, {"passing": 1}),
    ]
    assert page.revision == 4


async def test_an_instance_is_read_with_its_lease_and_checks(api: NativeApi) -> None:
    check = {"name": "web", "kind": "http", "path": "/health"}
    await api.register("orders", "o1", checks=[check], holder="h")
    api.outcomes["web"] = Outcome(Result.FAIL, "503 Service Unavailable", 0.25)
    response = await api.request("GET", f"{ORDERS}/instances/o1")
    detail = wire.decode(response.body, wire.InstanceDetail)
    assert (detail.instance.status, detail.lease, detail.ttl) == ("starting", "held", 15.0)
    assert (detail.checks[0].check.path, detail.checks[0].note) == ("/health", "503 Service Unavailable")


async def test_history_is_newest_first_and_can_be_filtered(api: NativeApi) -> None:
    await api.register("orders", "o1")
    await api.register("users", "u1")
    await api.deregister("orders", "o1", "?reason=scaled+down")
    page = wire.decode((await api.request("GET", "/api/v1/changes")).body, wire.ChangeList)
    assert [(change.service, change.cause, change.reason) for change in page.changes] == [
        ("orders", "deregistered", "scaled down"),
        ("users", "registered", ""),
        ("orders", "registered", ""),
    ]
    filtered = await api.request("GET", "/api/v1/changes?service=orders&id=o1&limit=1")
    assert [change["cause"] for change in filtered.json["changes"]] == ["deregistered"]
    assert len((await api.request("GET", "/api/v1/changes?id=u1")).json["changes"]) == 1


async def _long_poll(api: NativeApi, query: str, headers: dict[str, str] | None = None) -> asyncio.Task[ApiResult]:
    task = asyncio.create_task(api.request("GET", f"{ORDERS}{query}", headers=headers))
    await run_until_idle()
    return task


async def test_a_long_poll_answers_when_the_service_changes(api: NativeApi) -> None:
    await api.register("orders", "o1")
    task = await _long_poll(api, "?after=1&wait=60")
    await api.register("users", "u1")
    await run_until_idle()
    assert not task.done(), "nothing of orders has changed"
    await api.register("orders", "o2")
    assert (await task).json["revision"] == 3


async def test_a_long_poll_without_a_change_answers_with_the_current_state(api: NativeApi) -> None:
    await api.register("orders", "o1")
    response = await api.request("GET", f"{ORDERS}?after=1&wait=0.01")
    assert (response.status, response.json["revision"]) == (200, 1)


@pytest.mark.parametrize("after", ["0", "99"])
async def test_a_long_poll_answers_a_caller_with_an_older_or_foreign_revision_at_once(
    api: NativeApi, after: str
) -> None:
    await api.register("orders", "o1")
    assert (await api.request("GET", f"{ORDERS}?after={after}&wait=300")).status == 200


async def test_a_long_poll_waits_for_another_etag(api: NativeApi) -> None:
    await api.register("orders", "o1")
    etag = {"if-none-match": (await api.request("GET", ORDERS)).headers["etag"]}
    assert (await api.request("GET", f"{ORDERS}?wait=0.01", headers=etag)).status == 304
    assert (await api.request("GET", f"{ORDERS}?wait=300&tag=blue", headers=etag)).status == 200, (
        "the tag of another page"
    )
    blue = {"if-none-match": (await api.request("GET", f"{ORDERS}?tag=blue")).headers["etag"]}
    task = await _long_poll(api, "?wait=60&tag=blue", blue)
    await api.register("orders", "o2", tags=["blue"])
    response = await task
    assert (response.status, [instance["id"] for instance in response.json["instances"]]) == (200, ["o2"])


async def test_a_long_poll_of_the_list_waits_for_any_change(api: NativeApi) -> None:
    await api.register("orders", "o1")
    task = asyncio.create_task(api.request("GET", "/api/v1/services?after=1&wait=60"))
    await run_until_idle()
    assert not task.done()
    await api.register("users", "u1")
    assert (await task).json["revision"] == 2


async def test_a_long_poll_ends_with_503_when_the_node_stops(api: NativeApi) -> None:
    await api.register("orders", "o1")
    task = await _long_poll(api, "?after=1&wait=300")
    api.registry.watches.end()
    response = await task
    assert (response.status, response.json["detail"]) == (503, "the node is stopping")
    assert response.headers["content-type"] == "application/problem+json"
    assert api.registry.watches.count == 0


async def test_several_if_none_match_headers_are_joined(daemon: RunningDaemon) -> None:
    async with aiohttp.ClientSession(daemon.url) as session:
        async with session.get("/api/v1/services") as response:
            etag = response.headers["etag"]
        lines = [("If-None-Match", '"other"'), ("If-None-Match", etag)]
        async with session.get("/api/v1/services", headers=lines) as response:
            assert response.status == 304
