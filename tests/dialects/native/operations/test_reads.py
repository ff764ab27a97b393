from __future__ import annotations

import asyncio

import aiohttp
import pytest

from adsum import wire
from adsum.core.model import Outcome, Result
from tests.dialects.native.native_api import ApiAnswer, NativeApi
from tests.support.fakes import run_until_idle
from tests.support.registry_daemon import RunningDaemon

ORDERS = "/api/v1/services/orders"


async def test_a_service_is_read_with_epoch_revision_and_age(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1", address="10.0.0.1", zone="eu", tags=["blue"])
    await spoken.register("users", "u1")
    heard = await spoken.request("GET", ORDERS)
    assert heard.status == 200
    view = wire.decode(heard.body, wire.ServiceView)
    assert (view.epoch, view.service, view.revision) == ("e1", "orders", 1)
    assert [(each.id, each.address, each.zone, each.cause) for each in view.instances] == [
        ("o1", "10.0.0.1", "eu", "registered")
    ]
    assert heard.headers["adsum-epoch"] == "e1"
    assert heard.headers["adsum-revision"] == "2", "the catalog's, not the service's"
    assert heard.headers["adsum-age"] == "0"
    assert heard.headers["cache-control"] == "no-cache"


async def test_the_age_is_the_stores(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    spoken.store.age_seconds = 4.25
    assert (await spoken.request("GET", ORDERS)).headers["adsum-age"] == "4.250"


async def test_a_service_that_nobody_registered_is_empty(spoken: NativeApi) -> None:
    heard = await spoken.request("GET", "/api/v1/services/nobody")
    assert heard.status == 200
    assert heard.json == {"epoch": "e1", "service": "nobody", "revision": 0, "instances": []}


async def test_without_an_address_the_callers_is_listed(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    assert (await spoken.request("GET", ORDERS)).json["instances"][0]["address"] == "10.1.2.3"


async def test_head_has_the_headers_of_get(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    get, head = await spoken.request("GET", ORDERS), await spoken.request("HEAD", ORDERS)
    assert (head.status, head.headers) == (get.status, get.headers)


@pytest.mark.parametrize("shape", ['"{}"', 'W/"{}"', '"other", "{}"', "*"])
async def test_who_has_the_page_is_told_so_without_a_body(spoken: NativeApi, shape: str) -> None:
    await spoken.register("orders", "o1")
    etag = (await spoken.request("GET", ORDERS)).headers["etag"].strip('"')
    heard = await spoken.request("GET", ORDERS, headers={"If-None-Match": shape.format(etag)})
    assert (heard.status, heard.body) == (304, b"")
    assert heard.headers["etag"] == f'"{etag}"'
    assert "content-length" not in heard.headers


async def test_the_etag_changes_with_the_service_alone(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    etag = (await spoken.request("GET", ORDERS)).headers["etag"]
    await spoken.register("users", "u1")
    assert (await spoken.request("GET", ORDERS)).headers["etag"] == etag
    await spoken.register("orders", "o2")
    assert (await spoken.request("GET", ORDERS)).headers["etag"] != etag


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
async def test_filters_narrow_what_is_read(spoken: NativeApi, query: str, ids: list[str]) -> None:
    await spoken.register("orders", "a", zone="eu", tags=["blue"], metadata={"v": "1"})
    await spoken.register("orders", "b", zone="eu")
    await spoken.register("orders", "c", zone="us", tags=["blue", "new"], metadata={"v": "2"})
    await spoken.register("orders", "d")
    await spoken.request("PUT", f"{ORDERS}/instances/b/override", {"status": "draining"})
    for _ in range(2):
        heard = await spoken.request("GET", f"{ORDERS}?{query}")
        assert [each["id"] for each in heard.json["instances"]] == ids
    await spoken.deregister("orders", "a")
    heard = await spoken.request("GET", f"{ORDERS}?{query}")
    assert [each["id"] for each in heard.json["instances"]] == [id for id in ids if id != "a"]


async def test_pages_narrowed_in_other_ways_are_other_pages(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1", zone="eu", tags=["blue"])
    targets = (ORDERS, f"{ORDERS}?zone=eu", f"{ORDERS}?zone=us", f"{ORDERS}?tag=eu", f"{ORDERS}?metadata[zone]=eu")
    etags = [(await spoken.request("GET", target)).headers["etag"] for target in targets]
    assert len(set(etags)) == len(targets)
    for target, etag in zip(targets, etags, strict=True):
        for other in etags:
            heard = await spoken.request("GET", target, headers={"If-None-Match": other})
            assert heard.status == (304 if other == etag else 200)
    assert (await spoken.request("GET", f"{ORDERS}?tag=a&tag=b")).headers["etag"] == (
        await spoken.request("GET", f"{ORDERS}?tag=b&tag=a")
    ).headers["etag"]


async def test_the_list_counts_instances_by_status(spoken: NativeApi) -> None:
    await spoken.register("users", "u1")
    await spoken.register("orders", "o1")
    await spoken.register("orders", "o2")
    await spoken.request("PUT", f"{ORDERS}/instances/o1/override", {"status": "maintenance"})
    listed = wire.decode((await spoken.request("GET", "/api/v1/services")).body, wire.ServiceList)
    assert [(each.name, each.instances, each.status_counts) for each in listed.services] == [
        ("orders", 2, {"maintenance": 1, "passing": 1}),
        ("users", 1, {"passing": 1}),
    ]
    assert listed.revision == 4


async def test_one_instance_is_told_with_all_that_is_known(spoken: NativeApi) -> None:
    check = {"name": "web", "kind": "http", "path": "/health"}
    await spoken.register("orders", "o1", checks=[check], holder="h")
    spoken.outcomes["web"] = Outcome(Result.FAIL, "503 Service Unavailable", 0.25)
    heard = await spoken.request("GET", f"{ORDERS}/instances/o1")
    detail = wire.decode(heard.body, wire.InstanceDetail)
    assert (detail.instance.status, detail.lease, detail.ttl) == ("starting", "held", 15.0)
    assert (detail.checks[0].check.path, detail.checks[0].note) == ("/health", "503 Service Unavailable")


async def test_history_is_newest_first_and_can_be_narrowed(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    await spoken.register("users", "u1")
    await spoken.deregister("orders", "o1", "?reason=scaled+down")
    every = wire.decode((await spoken.request("GET", "/api/v1/changes")).body, wire.ChangeList)
    assert [(each.service, each.cause, each.reason) for each in every.changes] == [
        ("orders", "deregistered", "scaled down"),
        ("users", "registered", ""),
        ("orders", "registered", ""),
    ]
    narrow = await spoken.request("GET", "/api/v1/changes?service=orders&id=o1&limit=1")
    assert [each["cause"] for each in narrow.json["changes"]] == ["deregistered"]
    assert len((await spoken.request("GET", "/api/v1/changes?id=u1")).json["changes"]) == 1


async def _waits(spoken: NativeApi, query: str, headers: dict[str, str] | None = None) -> asyncio.Task[ApiAnswer]:
    task = asyncio.create_task(spoken.request("GET", f"{ORDERS}{query}", headers=headers))
    await run_until_idle()
    return task


async def test_a_long_poll_answers_when_the_service_changes(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    task = await _waits(spoken, "?after=1&wait=60")
    await spoken.register("users", "u1")
    await run_until_idle()
    assert not task.done(), "nothing of orders has changed"
    await spoken.register("orders", "o2")
    assert (await task).json["revision"] == 3


async def test_a_long_poll_that_waits_in_vain_answers_with_what_is(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    heard = await spoken.request("GET", f"{ORDERS}?after=1&wait=0.01")
    assert (heard.status, heard.json["revision"]) == (200, 1)


@pytest.mark.parametrize("after", ["0", "99"])
async def test_a_long_poll_answers_at_once_who_knows_less_or_another_history(spoken: NativeApi, after: str) -> None:
    await spoken.register("orders", "o1")
    assert (await spoken.request("GET", f"{ORDERS}?after={after}&wait=300")).status == 200


async def test_a_long_poll_waits_for_another_etag_too(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    etag = {"if-none-match": (await spoken.request("GET", ORDERS)).headers["etag"]}
    assert (await spoken.request("GET", f"{ORDERS}?wait=0.01", headers=etag)).status == 304
    assert (await spoken.request("GET", f"{ORDERS}?wait=300&tag=blue", headers=etag)).status == 200, "another page's"
    blue = {"if-none-match": (await spoken.request("GET", f"{ORDERS}?tag=blue")).headers["etag"]}
    task = await _waits(spoken, "?wait=60&tag=blue", blue)
    await spoken.register("orders", "o2", tags=["blue"])
    heard = await task
    assert (heard.status, [each["id"] for each in heard.json["instances"]]) == (200, ["o2"])


async def test_a_long_poll_of_the_list_waits_for_anything(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    task = asyncio.create_task(spoken.request("GET", "/api/v1/services?after=1&wait=60"))
    await run_until_idle()
    assert not task.done()
    await spoken.register("users", "u1")
    assert (await task).json["revision"] == 2


async def test_a_long_poll_is_sent_elsewhere_when_the_node_stops(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    task = await _waits(spoken, "?after=1&wait=300")
    spoken.registry.watches.end()
    heard = await task
    assert (heard.status, heard.json["detail"]) == (503, "the node is stopping")
    assert heard.headers["content-type"] == "application/problem+json"
    assert spoken.registry.watches.count == 0


async def test_etags_may_stand_in_several_lines(daemon: RunningDaemon) -> None:
    async with aiohttp.ClientSession(daemon.url) as session:
        async with session.get("/api/v1/services") as heard:
            etag = heard.headers["etag"]
        lines = [("If-None-Match", '"other"'), ("If-None-Match", etag)]
        async with session.get("/api/v1/services", headers=lines) as heard:
            assert heard.status == 304
