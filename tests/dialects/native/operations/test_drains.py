"""Drains that wait for consumers, and what consumers and other nodes report meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT, lost_after
from tests.dialects.native.native_api import NativeApi
from tests.support.fakes import run_until_idle

O1 = "/api/v1/services/orders/instances/o1"
O2 = "/api/v1/services/orders/instances/o2"
LOST_AFTER = lost_after(DEFAULT_HEARTBEAT)


async def test_a_consumer_that_never_acknowledged_delays_no_drain(api: NativeApi) -> None:
    await api.register("orders", "o1")
    async with api.watch("?service=orders&acks=true&name=silent") as silent:
        await silent.next_group()
        await api.clock.advance(LOST_AFTER)
        response = (await api.request("PUT", f"{O1}/override", {"status": "draining", "wait": 30})).json
    assert [consumer["name"] for consumer in response["lost"]] == ["silent"]
    assert "unacknowledged" not in response


async def test_a_drain_responds_when_cooperating_consumers_have_acknowledged_it(api: NativeApi) -> None:
    await api.register("orders", "o1")
    async with api.watch("?service=orders&acks=true") as consumer, api.watch("?service=orders"):
        opened = (await consumer.next_group())[0].data
        acknowledge = f"/api/v1/watches/{opened['watch']}/acknowledge"
        assert (await api.request("POST", acknowledge, {"revision": 1})).status == 204
        drain = asyncio.create_task(api.request("PUT", f"{O1}/override", {"status": "draining", "wait": 60}))
        group = await consumer.next_group()
        assert group[0].data["changed"][0]["status"] == "draining"
        await run_until_idle()
        assert not drain.done()
        assert (await api.request("POST", acknowledge, {"revision": group[-1].data["revision"]})).status == 204
        assert (await drain).json == {"epoch": "e1", "revision": 2}
        again = await api.request("PUT", f"{O1}/override", {"status": "draining", "wait": 60})
        assert again.json["revision"] == 2, "the consumers have acknowledged it already"


async def test_a_repeated_drain_waits_for_the_revision_of_the_first(api: NativeApi) -> None:
    await api.register("orders", "o1")
    async with api.watch("?service=orders&acks=true") as consumer:
        token = (await consumer.next_group())[0].data["watch"]
        await api.request("PUT", f"{O1}/override", {"status": "draining"})
        await api.request("POST", f"/api/v1/watches/{token}/acknowledge", {"revision": 2})
        await api.register("users", "u1")
        response = await api.request("PUT", f"{O1}/override", {"status": "draining", "wait": 60})
        assert response.json == {"epoch": "e1", "revision": 3}


async def test_a_drain_reports_and_logs_consumers_that_have_not_acknowledged(
    api: NativeApi, caplog: pytest.LogCaptureFixture
) -> None:
    await api.register("orders", "o1")
    async with api.watch("?acks=true&consumer=c1&name=web") as silent:
        await silent.next_group()
        began = api.clock.wall()
        drain = asyncio.create_task(api.request("PUT", f"{O1}/override", {"status": "draining", "wait": 5}))
        await api.clock.advance(4.9)
        assert not drain.done()
        await api.clock.advance(0.2)
        response = await drain
    assert response.json["unacknowledged"] == 1
    reason = "it is connected, and has not acknowledged"
    assert response.json["waiting"] == [
        {"name": "web", "address": "10.1.2.3", "node": "n1", "reason": reason, "since": began}
    ]
    (line,) = (record.getMessage() for record in caplog.records if record.name == "adsum.native")
    assert line == (
        f"orders/o1 is draining; after 5 s, 1 had not acknowledged it: 'web' at 10.1.2.3 (known to n1): {reason}"
    )


async def test_a_drain_waits_for_disconnected_consumers_and_names_lost_ones(api: NativeApi) -> None:
    await api.register("orders", "o1")
    async with api.watch("?service=orders&acks=true&consumer=c1&name=web") as consumer:
        await consumer.next_group()
    drain = asyncio.create_task(api.request("PUT", f"{O1}/override", {"status": "draining", "wait": 10}))
    await api.clock.advance(7.4)
    assert not drain.done()
    await api.clock.advance(0.4)
    response = (await drain).json
    assert "unacknowledged" not in response
    assert (response["lost_count"], [consumer["name"] for consumer in response["lost"]]) == (1, ["web"])


async def test_a_consumer_that_reconnects_and_acknowledges_ends_the_wait(api: NativeApi) -> None:
    await api.register("orders", "o1")
    watch = "?service=orders&acks=true&consumer=c1"
    async with api.watch(watch) as consumer:
        await consumer.next_group()
    drain = asyncio.create_task(api.request("PUT", f"{O1}/override", {"status": "draining", "wait": 10}))
    await run_until_idle()
    async with api.watch(watch) as consumer:
        token = (await consumer.next_group())[0].data["watch"]
        await run_until_idle()
        assert not drain.done()
        await api.request("POST", f"/api/v1/watches/{token}/acknowledge", {"revision": 2})
        assert (await drain).json == {"epoch": "e1", "revision": 2}


@pytest.mark.parametrize("query", ["", "?service=users&service=orders"])
async def test_a_good_bye_ends_the_wait_for_its_consumer(api: NativeApi, query: str) -> None:
    await api.register("orders", "o1")
    async with api.watch("?service=orders&acks=true&consumer=c1") as consumer:
        await consumer.next_group()
        drain = asyncio.create_task(api.request("PUT", f"{O1}/override", {"status": "draining", "wait": 10}))
        await run_until_idle()
        response = await api.request("DELETE", f"/api/v1/consumers/c1{query}")
        assert (response.status, response.body) == (204, b"")
        assert (await drain).json == {"epoch": "e1", "revision": 2}
    again = await api.request("PUT", f"{O1}/override", {"status": "draining", "reason": "again", "wait": 10})
    assert again.json == {"epoch": "e1", "revision": 3}, "a later end of its watch changes nothing"


async def test_a_good_bye_counts_only_for_its_service_and_consumer(api: NativeApi) -> None:
    await api.register("orders", "o1")
    async with api.watch("?service=orders&acks=true&consumer=c1") as consumer:
        await consumer.next_group()
    for path in ("c1?service=users", "stranger", "stranger"):
        assert (await api.request("DELETE", f"/api/v1/consumers/{path}")).status == 204
    assert (await api.request("GET", "/api/v1/services/orders/unacknowledged?revision=1")).json["unacknowledged"] == 1


@pytest.mark.parametrize("waiting", ["drain", "query of another node", "query for a later revision"])
async def test_a_stopping_node_ends_waits_for_consumers_with_503(api: NativeApi, waiting: str) -> None:
    await api.register("orders", "o1")
    async with api.watch("?acks=true") as silent:
        await silent.next_group()
        if waiting == "drain":
            pending = api.request("PUT", f"{O1}/override", {"status": "draining", "wait": 60})
        else:
            revision = 1 if waiting == "query of another node" else 9
            pending = api.request("GET", f"/api/v1/services/orders/unacknowledged?revision={revision}&wait=60")
        task = asyncio.create_task(pending)
        await run_until_idle()
        assert not task.done()
        api.registry.watches.end()
        response = await task
    assert (response.status, response.headers["content-type"]) == (503, "application/problem+json")
    assert (response.headers["retry-after"], response.json["field"]) == ("1", "wait")
    drained = "orders/o1 is draining, but the node is stopping; ask another node"
    assert response.json["detail"].startswith(drained if waiting == "drain" else "the node is stopping")
    if waiting == "drain":
        assert (await api.request("GET", O1)).json["instance"]["status"] == "draining"


async def test_the_time_of_the_write_counts_as_waiting(api: NativeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.register("orders", "o1")
    commit = api.store.commit

    async def slow(*args: Any) -> int:
        await api.clock.sleep(3.0)
        return await commit(*args)

    monkeypatch.setattr(api.store, "commit", slow)
    async with api.watch("?acks=true") as silent:
        await silent.next_group()
        drain = asyncio.create_task(api.request("PUT", f"{O1}/override", {"status": "draining", "wait": 5}))
        await api.clock.advance(5.1)
        assert drain.done()


async def test_another_node_gets_what_this_node_knows_of_its_consumers(
    sharded_api: NativeApi,
) -> None:
    async with (
        sharded_api.watch("?acks=true&consumer=behind"),
        sharded_api.watch("?acks=true&consumer=aware") as aware,
    ):
        token = (await aware.next_group())[0].data["watch"]
        await sharded_api.request("POST", f"/api/v1/watches/{token}/acknowledge", {"revision": 2})
        await sharded_api.request("DELETE", "/api/v1/consumers/gone")
        query = "/api/v1/services/orders/unacknowledged?revision=2&consumer=aware&consumer=gone&consumer=unknown"
        response = await sharded_api.request("GET", query, headers={"Adsum-Forwarded-To": "n1"})
        assert response.json | {"waiting": []} == {
            "epoch": "e1",
            "revision": 2,
            "unacknowledged": 1,
            "waiting": [],
            "ids": ["behind"],
            "acknowledged": ["aware"],
            "goodbyes": ["gone"],
        }
        hint = "/api/v1/services/orders/unacknowledged?revision=2&acknowledged=behind"
        from_client = await sharded_api.request("GET", hint)
        assert from_client.json["unacknowledged"] == 1, "only another node acknowledges for consumers"
        from_node = await sharded_api.request("GET", hint, headers={"Adsum-Forwarded-To": "n1"})
        assert from_node.json["unacknowledged"] == 0


@pytest.mark.parametrize("evidence", ["drain", "renewal", "watch"])
async def test_a_registry_that_lost_its_state_waits_for_consumers_from_before(api: NativeApi, evidence: str) -> None:
    drain = {"status": "draining", "wait": 20}
    if evidence == "drain":
        assert (await api.request("PUT", f"{O1}/override", drain)).status == 404
    elif evidence == "renewal":
        assert len((await api.request("POST", "/api/v1/renew", {"leases": [_lease("h1")]})).json["lost"]) == 1
    else:
        async with api.watch("?service=orders", {"last-event-id": "another:7"}) as watch:
            await watch.next_group()
    await api.register("orders", "o1")
    task = asyncio.create_task(api.request("PUT", f"{O1}/override", drain))
    await api.clock.advance(LOST_AFTER - 0.1)
    assert not task.done()
    await api.clock.advance(0.5)
    assert (await task).json == {"epoch": "e1", "revision": 2}


async def test_a_node_that_has_not_received_the_change_stands_for_its_consumers(api: NativeApi) -> None:
    query = asyncio.create_task(api.request("GET", "/api/v1/services/orders/unacknowledged?revision=9&wait=0.5"))
    await api.clock.advance(0.6)
    (view,) = (await query).json["waiting"]
    assert view["node"] == "n1"
    assert "has not received the change" in view["reason"]


async def test_an_acknowledgement_needs_an_open_watch_and_a_revision_that_it_sent(api: NativeApi) -> None:
    async with api.watch("?acks=true") as consumer:
        token = (await consumer.next_group())[0].data["watch"]
        ahead = await api.request("POST", f"/api/v1/watches/{token}/acknowledge", {"revision": 7})
        assert (ahead.status, ahead.json["field"]) == (422, "revision")
    gone = await api.request("POST", f"/api/v1/watches/{token}/acknowledge", {"revision": 0})
    assert gone.status == 404


def _lease(holder: str) -> dict[str, str]:
    return {"service": "orders", "id": "o1", "holder": holder}
