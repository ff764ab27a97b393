"""Drains that wait for consumers, and what consumers and other nodes say meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from adsum.core.liveness.heartbeats import DEFAULT_HEARTBEAT, lost_after
from tests.dialects.native.native_api import NativeApi
from tests.support.fakes import run_until_idle

O1 = "/api/v1/services/orders/instances/o1"
O2 = "/api/v1/services/orders/instances/o2"
W = lost_after(DEFAULT_HEARTBEAT)


async def test_a_consumer_that_never_acknowledged_holds_up_no_drain(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    async with spoken.watch("?service=orders&acks=true&name=mute") as mute:
        await mute.next_group()
        await spoken.clock.advance(W)
        heard = (await spoken.request("PUT", f"{O1}/override", {"status": "draining", "wait": 30})).json
    assert [each["name"] for each in heard["lost"]] == ["mute"]
    assert "unacknowledged" not in heard


async def test_a_drain_that_waits_answers_when_cooperating_consumers_route_by_it(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    async with spoken.watch("?service=orders&acks=true") as consumer, spoken.watch("?service=orders"):
        opened = (await consumer.next_group())[0].data
        applied = f"/api/v1/watches/{opened['watch']}/acknowledge"
        assert (await spoken.request("POST", applied, {"revision": 1})).status == 204
        drain = asyncio.create_task(spoken.request("PUT", f"{O1}/override", {"status": "draining", "wait": 60}))
        group = await consumer.next_group()
        assert group[0].data["changed"][0]["status"] == "draining"
        await run_until_idle()
        assert not drain.done()
        assert (await spoken.request("POST", applied, {"revision": group[-1].data["revision"]})).status == 204
        assert (await drain).json == {"epoch": "e1", "revision": 2}
        again = await spoken.request("PUT", f"{O1}/override", {"status": "draining", "wait": 60})
        assert again.json["revision"] == 2, "they route by it already"


async def test_the_same_drain_again_waits_for_the_first_ones_revision(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    async with spoken.watch("?service=orders&acks=true") as consumer:
        token = (await consumer.next_group())[0].data["watch"]
        await spoken.request("PUT", f"{O1}/override", {"status": "draining"})
        await spoken.request("POST", f"/api/v1/watches/{token}/acknowledge", {"revision": 2})
        await spoken.register("users", "u1")
        heard = await spoken.request("PUT", f"{O1}/override", {"status": "draining", "wait": 60})
        assert heard.json == {"epoch": "e1", "revision": 3}


async def test_a_drain_that_is_not_confirmed_says_and_logs_who_has_not(
    spoken: NativeApi, caplog: pytest.LogCaptureFixture
) -> None:
    await spoken.register("orders", "o1")
    async with spoken.watch("?acks=true&consumer=c1&name=web") as mute:
        await mute.next_group()
        began = spoken.clock.wall()
        drain = asyncio.create_task(spoken.request("PUT", f"{O1}/override", {"status": "draining", "wait": 5}))
        await spoken.clock.advance(4.9)
        assert not drain.done()
        await spoken.clock.advance(0.2)
        heard = await drain
    assert heard.json["unacknowledged"] == 1
    why = "it is connected, and has not acknowledged"
    assert heard.json["waiting"] == [
        {"name": "web", "address": "10.1.2.3", "node": "n1", "reason": why, "since": began}
    ]
    (line,) = (record.getMessage() for record in caplog.records if record.name == "adsum.native")
    assert line == (
        f"orders/o1 is draining, and 1 had not confirmed it after 5 s: 'web' at 10.1.2.3 (known to n1): {why}"
    )


async def test_a_drain_waits_for_who_left_without_a_good_bye_and_names_who_is_lost(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    async with spoken.watch("?service=orders&acks=true&consumer=c1&name=web") as consumer:
        await consumer.next_group()
    drain = asyncio.create_task(spoken.request("PUT", f"{O1}/override", {"status": "draining", "wait": 10}))
    await spoken.clock.advance(7.4)
    assert not drain.done()
    await spoken.clock.advance(0.4)
    heard = (await drain).json
    assert "unacknowledged" not in heard
    assert (heard["lost_count"], [each["name"] for each in heard["lost"]]) == (1, ["web"])


async def test_who_comes_back_and_acknowledges_ends_the_wait_for_it(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    watch = "?service=orders&acks=true&consumer=c1"
    async with spoken.watch(watch) as consumer:
        await consumer.next_group()
    drain = asyncio.create_task(spoken.request("PUT", f"{O1}/override", {"status": "draining", "wait": 10}))
    await run_until_idle()
    async with spoken.watch(watch) as consumer:
        token = (await consumer.next_group())[0].data["watch"]
        await run_until_idle()
        assert not drain.done()
        await spoken.request("POST", f"/api/v1/watches/{token}/acknowledge", {"revision": 2})
        assert (await drain).json == {"epoch": "e1", "revision": 2}


@pytest.mark.parametrize("query", ["", "?service=users&service=orders"])
async def test_a_good_bye_ends_the_wait_for_its_consumer(spoken: NativeApi, query: str) -> None:
    await spoken.register("orders", "o1")
    async with spoken.watch("?service=orders&acks=true&consumer=c1") as consumer:
        await consumer.next_group()
        drain = asyncio.create_task(spoken.request("PUT", f"{O1}/override", {"status": "draining", "wait": 10}))
        await run_until_idle()
        heard = await spoken.request("DELETE", f"/api/v1/consumers/c1{query}")
        assert (heard.status, heard.body) == (204, b"")
        assert (await drain).json == {"epoch": "e1", "revision": 2}
    again = await spoken.request("PUT", f"{O1}/override", {"status": "draining", "reason": "again", "wait": 10})
    assert again.json == {"epoch": "e1", "revision": 3}, "nor for its watch that ended later"


async def test_a_good_bye_to_another_service_ends_no_wait_and_one_of_a_stranger_is_fine(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    async with spoken.watch("?service=orders&acks=true&consumer=c1") as consumer:
        await consumer.next_group()
    for path in ("c1?service=users", "stranger", "stranger"):
        assert (await spoken.request("DELETE", f"/api/v1/consumers/{path}")).status == 204
    assert (await spoken.request("GET", "/api/v1/services/orders/unacknowledged?revision=1")).json[
        "unacknowledged"
    ] == 1


@pytest.mark.parametrize("waiting", ["drain", "question of another node", "question, not heard of yet"])
async def test_a_node_that_stops_sends_elsewhere_at_once_who_waits_for_consumers(
    spoken: NativeApi, waiting: str
) -> None:
    await spoken.register("orders", "o1")
    async with spoken.watch("?acks=true") as mute:
        await mute.next_group()
        if waiting == "drain":
            asking = spoken.request("PUT", f"{O1}/override", {"status": "draining", "wait": 60})
        else:
            revision = 1 if waiting == "question of another node" else 9
            asking = spoken.request("GET", f"/api/v1/services/orders/unacknowledged?revision={revision}&wait=60")
        task = asyncio.create_task(asking)
        await run_until_idle()
        assert not task.done()
        spoken.registry.watches.end()
        heard = await task
    assert (heard.status, heard.headers["content-type"]) == (503, "application/problem+json")
    assert (heard.headers["retry-after"], heard.json["field"]) == ("1", "wait")
    drained = "orders/o1 is draining, but the node is stopping; ask another node"
    assert heard.json["detail"].startswith(drained if waiting == "drain" else "the node is stopping")
    if waiting == "drain":
        assert (await spoken.request("GET", O1)).json["instance"]["status"] == "draining"


async def test_the_time_that_the_write_takes_counts_as_waiting(
    spoken: NativeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    await spoken.register("orders", "o1")
    commit = spoken.store.commit

    async def slow(*args: Any) -> int:
        await spoken.clock.sleep(3.0)
        return await commit(*args)

    monkeypatch.setattr(spoken.store, "commit", slow)
    async with spoken.watch("?acks=true") as mute:
        await mute.next_group()
        drain = asyncio.create_task(spoken.request("PUT", f"{O1}/override", {"status": "draining", "wait": 5}))
        await spoken.clock.advance(5.1)
        assert drain.done()


async def test_another_node_is_told_the_ids_and_what_is_known_here_of_the_consumers_it_waits_for(
    sharing: NativeApi,
) -> None:
    async with (
        sharing.watch("?acks=true&consumer=behind"),
        sharing.watch("?acks=true&consumer=aware") as aware,
    ):
        token = (await aware.next_group())[0].data["watch"]
        await sharing.request("POST", f"/api/v1/watches/{token}/acknowledge", {"revision": 2})
        await sharing.request("DELETE", "/api/v1/consumers/gone")
        asked = "/api/v1/services/orders/unacknowledged?revision=2&consumer=aware&consumer=gone&consumer=unknown"
        heard = await sharing.request("GET", asked, headers={"Adsum-Forwarded-To": "n1"})
        assert heard.json | {"waiting": []} == {
            "epoch": "e1",
            "revision": 2,
            "unacknowledged": 1,
            "waiting": [],
            "ids": ["behind"],
            "acknowledged": ["aware"],
            "goodbyes": ["gone"],
        }
        told = "/api/v1/services/orders/unacknowledged?revision=2&acknowledged=behind"
        assert (await sharing.request("GET", told)).json["unacknowledged"] == 1, "only nodes speak for consumers"
        assert (await sharing.request("GET", told, headers={"Adsum-Forwarded-To": "n1"})).json["unacknowledged"] == 0


@pytest.mark.parametrize("evidence", ["drain", "renewal", "watch"])
async def test_a_registry_that_lost_its_state_waits_for_consumers_of_before(spoken: NativeApi, evidence: str) -> None:
    drain = {"status": "draining", "wait": 20}
    if evidence == "drain":
        assert (await spoken.request("PUT", f"{O1}/override", drain)).status == 404
    elif evidence == "renewal":
        assert len((await spoken.request("POST", "/api/v1/renew", {"leases": [_lease("h1")]})).json["lost"]) == 1
    else:
        async with spoken.watch("?service=orders", {"last-event-id": "another:7"}) as watch:
            await watch.next_group()
    await spoken.register("orders", "o1")
    task = asyncio.create_task(spoken.request("PUT", f"{O1}/override", drain))
    await spoken.clock.advance(W - 0.1)
    assert not task.done()
    await spoken.clock.advance(0.5)
    assert (await task).json == {"epoch": "e1", "revision": 2}


async def test_a_node_that_has_not_heard_of_a_change_is_waited_for_itself(spoken: NativeApi) -> None:
    asking = asyncio.create_task(spoken.request("GET", "/api/v1/services/orders/unacknowledged?revision=9&wait=0.5"))
    await spoken.clock.advance(0.6)
    (view,) = (await asking).json["waiting"]
    assert view["node"] == "n1"
    assert "has not heard of the change" in view["reason"]


async def test_what_was_applied_must_have_been_shown_and_to_a_watch_that_is(spoken: NativeApi) -> None:
    async with spoken.watch("?acks=true") as consumer:
        token = (await consumer.next_group())[0].data["watch"]
        ahead = await spoken.request("POST", f"/api/v1/watches/{token}/acknowledge", {"revision": 7})
        assert (ahead.status, ahead.json["field"]) == (422, "revision")
    gone = await spoken.request("POST", f"/api/v1/watches/{token}/acknowledge", {"revision": 0})
    assert gone.status == 404


def _lease(holder: str) -> dict[str, str]:
    return {"service": "orders", "id": "o1", "holder": holder}
