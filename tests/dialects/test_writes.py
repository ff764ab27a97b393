from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from adsum.core.errors import CatalogFull, Overloaded, StoreUnavailable
from adsum.core.heartbeats import HEARTBEAT, lost_after
from adsum.core.model import Key, Listing
from tests.dialects.speaking import JSON, Spoken
from tests.fakes import FakeShares, settle

O1 = "/api/v1/services/orders/instances/o1"
O2 = "/api/v1/services/orders/instances/o2"


async def test_the_first_registration_creates_and_the_same_again_changes_nothing(spoken: Spoken) -> None:
    first, again = await spoken.put("orders", "o1"), await spoken.put("orders", "o1")
    assert (first.status, again.status) == (201, 200)
    assert first.json == again.json == {"epoch": "e1", "revision": 1, "ttl": 15.0}


@pytest.fixture
async def sharing() -> AsyncIterator[Spoken]:
    """One of several nodes: it keeps `orders`, and who keeps `users` can't be asked just now."""
    spoken = Spoken(shares=FakeShares("orders"))
    await spoken.registry.start()
    await spoken.put("orders", "o1", ttl=10)
    await spoken.put("users", "u1", ttl=10)
    yield spoken
    await spoken.registry.stop()


BOTH = {"leases": [{"service": "users", "id": "u1"}, {"service": "orders", "id": "o1"}]}


async def test_what_nobody_keeps_who_can_be_asked_is_not_called_renewed_and_the_rest_is_renewed(
    sharing: Spoken,
) -> None:
    sharing.clock.jump(5.0)
    again = ("PUT", "/api/v1/services/users/instances/u1", {"port": 8000, "ttl": 10})
    for asking in (("POST", "/api/v1/services/users/instances/u1/renew"), ("POST", "/api/v1/renew", BOTH), again):
        heard = await sharing.ask(*asking)
        assert (heard.status, heard.headers["retry-after"]) == (503, "1")
        assert "nobody keeps users" in heard.json["detail"]
    assert sharing.keeper.leases.deadline(Key("orders", "o1")) == sharing.clock.now() + 10
    assert sharing.keeper.leases.deadline(Key("users", "u1")) is None


async def test_to_a_node_that_passes_renewals_on_it_is_said_what_is_not_kept_here(sharing: Spoken) -> None:
    heard = await sharing.ask("POST", "/api/v1/renew", BOTH, JSON | {"Adsum-Passed-On": "n1"})
    assert heard.json == {"epoch": "e1", "revision": 2, "renewed": 1, "not_kept": ["users"]}


@pytest.mark.parametrize("asking", [("POST", "/api/v1/renew", BOTH), ("GET", "/api/v1/services/orders/unaware", None)])
async def test_what_another_node_meant_for_another_is_refused(sharing: Spoken, asking: tuple[str, str, object]) -> None:
    heard = await sharing.ask(*asking, JSON | {"Adsum-Passed-On": "n2"})
    assert (heard.status, heard.headers["content-type"]) == (421, "application/problem+json")
    assert heard.json["title"] == "Misdirected Request"
    assert sharing.keeper.leases.deadline(Key("orders", "o1")) is None


async def test_who_asks_is_recorded(spoken: Spoken) -> None:
    headers = JSON | {"Adsum-Actor": "deploy-7"}
    await spoken.ask("PUT", O1, {"port": 1}, headers)
    await spoken.ask("DELETE", O1)
    assert [each.why.actor for each in spoken.store.recorded] == ["10.1.2.3", "deploy-7"]


@pytest.mark.parametrize("name", ["łukasz@høst", "deploy-7", "日本"])
async def test_an_actor_may_have_any_name(spoken: Spoken, name: str) -> None:
    """Its bytes come as UTF-8; read as Latin-1 some of them were control characters."""
    headers = JSON | {"Adsum-Actor": name.encode().decode("latin-1")}
    assert (await spoken.ask("PUT", O1, {"port": 80}, headers)).status == 201
    assert (await spoken.ask("GET", O1)).json["instance"]["actor"] == name


async def test_registering_renews(spoken: Spoken) -> None:
    await spoken.put("orders", "o1", ttl=10)
    spoken.clock.jump(9.0)
    await spoken.put("orders", "o1", ttl=10)
    assert spoken.keeper.leases.deadline(Key("orders", "o1")) == spoken.clock.now() + 10


async def test_one_lease_is_renewed_without_a_write(spoken: Spoken) -> None:
    await spoken.put("orders", "o1", ttl=10)
    spoken.clock.jump(5.0)
    heard = await spoken.ask("POST", f"{O1}/renew")
    assert heard.json == {"epoch": "e1", "revision": 1, "ttl": 10.0}
    assert spoken.keeper.leases.deadline(Key("orders", "o1")) == spoken.clock.now() + 10


async def test_many_leases_are_renewed_and_the_lost_are_named(spoken: Spoken) -> None:
    await spoken.put("orders", "o1")
    await spoken.put("orders", "o2", holder="new", port=8001)
    leases = [
        {"service": "orders", "id": "o1"},
        {"service": "orders", "id": "o2", "holder": "old"},
        {"service": "orders", "id": "o3"},
    ]
    heard = await spoken.ask("POST", "/api/v1/renew", {"leases": leases})
    assert heard.json == {
        "epoch": "e1",
        "revision": 2,
        "renewed": 1,
        "lost": [
            {"service": "orders", "id": "o2", "reason": "superseded"},
            {"service": "orders", "id": "o3", "reason": "unknown"},
        ],
    }


async def test_deregistering_twice_is_fine_but_not_in_anothers_name(spoken: Spoken) -> None:
    await spoken.put("orders", "o1", holder="new")
    assert (await spoken.ask("DELETE", f"{O1}?holder=old")).status == 409
    assert (await spoken.ask("DELETE", f"{O1}?holder=new")).json["revision"] == 2
    assert (await spoken.ask("DELETE", f"{O1}?holder=new")).json["revision"] == 2


async def test_an_override_outranks_evidence_until_it_is_cleared(spoken: Spoken) -> None:
    await spoken.put("orders", "o1")
    body = {"status": "maintenance", "reason": "disk", "length": 60}
    assert (await spoken.ask("PUT", f"{O1}/override", body)).json == {"epoch": "e1", "revision": 2}
    detail = (await spoken.ask("GET", O1)).json
    assert detail["instance"]["status"] == "maintenance"
    assert detail["evidence"] == "passing"
    assert detail["override"]["reason"] == "disk"
    assert (await spoken.ask("DELETE", f"{O1}/override?reason=fixed")).status == 200
    assert (await spoken.ask("GET", O1)).json["instance"]["status"] == "passing"


async def test_a_drain_that_waits_answers_when_cooperating_consumers_route_by_it(spoken: Spoken) -> None:
    await spoken.put("orders", "o1")
    async with spoken.watching("?service=orders&acks=true") as consumer, spoken.watching("?service=orders"):
        opened = (await consumer.group())[0].says
        applied = f"/api/v1/watches/{opened['watch']}/applied"
        assert (await spoken.ask("POST", applied, {"revision": 1})).status == 204
        drain = asyncio.create_task(spoken.ask("PUT", f"{O1}/override", {"status": "draining", "wait": 60}))
        group = await consumer.group()
        assert group[0].says["changed"][0]["status"] == "draining"
        await settle()
        assert not drain.done()
        assert (await spoken.ask("POST", applied, {"revision": group[-1].says["revision"]})).status == 204
        assert (await drain).json == {"epoch": "e1", "revision": 2}
        again = await spoken.ask("PUT", f"{O1}/override", {"status": "draining", "wait": 60})
        assert again.json["revision"] == 2, "they route by it already"


async def test_the_same_drain_again_waits_for_the_first_ones_revision(spoken: Spoken) -> None:
    await spoken.put("orders", "o1")
    async with spoken.watching("?service=orders&acks=true") as consumer:
        token = (await consumer.group())[0].says["watch"]
        await spoken.ask("PUT", f"{O1}/override", {"status": "draining"})
        await spoken.ask("POST", f"/api/v1/watches/{token}/applied", {"revision": 2})
        await spoken.put("users", "u1")
        heard = await spoken.ask("PUT", f"{O1}/override", {"status": "draining", "wait": 60})
        assert heard.json == {"epoch": "e1", "revision": 3}


async def test_a_drain_that_is_not_confirmed_says_and_logs_who_has_not(
    spoken: Spoken, caplog: pytest.LogCaptureFixture
) -> None:
    await spoken.put("orders", "o1")
    async with spoken.watching("?acks=true&consumer=c1&name=web") as mute:
        await mute.group()
        began = spoken.clock.wall()
        drain = asyncio.create_task(spoken.ask("PUT", f"{O1}/override", {"status": "draining", "wait": 5}))
        await spoken.clock.advance(4.9)
        assert not drain.done()
        await spoken.clock.advance(0.2)
        heard = await drain
    assert heard.json["unaware"] == 1
    why = "it is connected, and has not acknowledged"
    assert heard.json["waiting"] == [{"name": "web", "address": "10.1.2.3", "node": "n1", "why": why, "since": began}]
    (line,) = (record.getMessage() for record in caplog.records if record.name == "adsum.native")
    assert line == (
        f"orders/o1 is draining, and 1 had not confirmed it after 5 s: 'web' at 10.1.2.3 (known to n1): {why}"
    )


async def test_a_drain_waits_for_who_left_without_a_good_bye_and_names_who_is_lost(spoken: Spoken) -> None:
    await spoken.put("orders", "o1")
    async with spoken.watching("?service=orders&acks=true&consumer=c1&name=web") as consumer:
        await consumer.group()
    drain = asyncio.create_task(spoken.ask("PUT", f"{O1}/override", {"status": "draining", "wait": 10}))
    await spoken.clock.advance(7.4)
    assert not drain.done()
    await spoken.clock.advance(0.4)
    heard = (await drain).json
    assert "unaware" not in heard
    assert (heard["lost_count"], [each["name"] for each in heard["lost"]]) == (1, ["web"])


async def test_who_comes_back_and_acknowledges_ends_the_wait_for_it(spoken: Spoken) -> None:
    await spoken.put("orders", "o1")
    watch = "?service=orders&acks=true&consumer=c1"
    async with spoken.watching(watch) as consumer:
        await consumer.group()
    drain = asyncio.create_task(spoken.ask("PUT", f"{O1}/override", {"status": "draining", "wait": 10}))
    await settle()
    async with spoken.watching(watch) as consumer:
        token = (await consumer.group())[0].says["watch"]
        await settle()
        assert not drain.done()
        await spoken.ask("POST", f"/api/v1/watches/{token}/applied", {"revision": 2})
        assert (await drain).json == {"epoch": "e1", "revision": 2}


@pytest.mark.parametrize("query", ["", "?service=users&service=orders"])
async def test_a_good_bye_ends_the_wait_for_its_consumer(spoken: Spoken, query: str) -> None:
    await spoken.put("orders", "o1")
    async with spoken.watching("?service=orders&acks=true&consumer=c1") as consumer:
        await consumer.group()
        drain = asyncio.create_task(spoken.ask("PUT", f"{O1}/override", {"status": "draining", "wait": 10}))
        await settle()
        heard = await spoken.ask("DELETE", f"/api/v1/consumers/c1{query}")
        assert (heard.status, heard.body) == (204, b"")
        assert (await drain).json == {"epoch": "e1", "revision": 2}
    again = await spoken.ask("PUT", f"{O1}/override", {"status": "draining", "reason": "again", "wait": 10})
    assert again.json == {"epoch": "e1", "revision": 3}, "nor for its watch that ended later"


async def test_a_good_bye_to_another_service_ends_no_wait_and_one_of_a_stranger_is_fine(spoken: Spoken) -> None:
    await spoken.put("orders", "o1")
    async with spoken.watching("?service=orders&acks=true&consumer=c1") as consumer:
        await consumer.group()
    for path in ("c1?service=users", "stranger", "stranger"):
        assert (await spoken.ask("DELETE", f"/api/v1/consumers/{path}")).status == 204
    assert (await spoken.ask("GET", "/api/v1/services/orders/unaware?revision=1")).json["unaware"] == 1


@pytest.mark.parametrize("waiting", ["drain", "question of another node", "question, not heard of yet"])
async def test_a_node_that_stops_sends_elsewhere_at_once_who_waits_for_consumers(spoken: Spoken, waiting: str) -> None:
    await spoken.put("orders", "o1")
    async with spoken.watching("?acks=true") as mute:
        await mute.group()
        if waiting == "drain":
            asking = spoken.ask("PUT", f"{O1}/override", {"status": "draining", "wait": 60})
        else:
            revision = 1 if waiting == "question of another node" else 9
            asking = spoken.ask("GET", f"/api/v1/services/orders/unaware?revision={revision}&wait=60")
        task = asyncio.create_task(asking)
        await settle()
        assert not task.done()
        spoken.registry.watches.end()
        heard = await task
    assert (heard.status, heard.headers["content-type"]) == (503, "application/problem+json")
    assert heard.headers["retry-after"] == "1"
    drained = "orders/o1 is draining, but the node is stopping; ask another node"
    assert heard.json["detail"].startswith(drained if waiting == "drain" else "the node is stopping")
    if waiting == "drain":
        assert (await spoken.ask("GET", O1)).json["instance"]["status"] == "draining"


async def test_the_time_that_the_write_takes_counts_as_waiting(spoken: Spoken, monkeypatch: pytest.MonkeyPatch) -> None:
    await spoken.put("orders", "o1")
    commit = spoken.store.commit

    async def slow(*args: Any) -> int:
        await spoken.clock.sleep(3.0)
        return await commit(*args)

    monkeypatch.setattr(spoken.store, "commit", slow)
    async with spoken.watching("?acks=true") as mute:
        await mute.group()
        drain = asyncio.create_task(spoken.ask("PUT", f"{O1}/override", {"status": "draining", "wait": 5}))
        await spoken.clock.advance(5.1)
        assert drain.done()


async def test_another_node_is_told_the_ids_and_what_is_known_here_of_the_consumers_it_waits_for(
    sharing: Spoken,
) -> None:
    async with (
        sharing.watching("?acks=true&consumer=behind"),
        sharing.watching("?acks=true&consumer=aware") as aware,
    ):
        token = (await aware.group())[0].says["watch"]
        await sharing.ask("POST", f"/api/v1/watches/{token}/applied", {"revision": 2})
        await sharing.ask("DELETE", "/api/v1/consumers/gone")
        asked = "/api/v1/services/orders/unaware?revision=2&consumer=aware&consumer=gone&consumer=unknown"
        heard = await sharing.ask("GET", asked, headers={"Adsum-Passed-On": "n1"})
        assert heard.json | {"waiting": []} == {
            "epoch": "e1",
            "revision": 2,
            "unaware": 1,
            "waiting": [],
            "ids": ["behind"],
            "acknowledged": ["aware"],
            "gone": ["gone"],
        }
        told = "/api/v1/services/orders/unaware?revision=2&acknowledged=behind"
        assert (await sharing.ask("GET", told)).json["unaware"] == 1, "only nodes speak for consumers"
        assert (await sharing.ask("GET", told, headers={"Adsum-Passed-On": "n1"})).json["unaware"] == 0


@pytest.mark.parametrize("evidence", ["drain", "renewal", "watch"])
async def test_a_registry_that_lost_its_state_waits_for_consumers_of_before(spoken: Spoken, evidence: str) -> None:
    drain = {"status": "draining", "wait": 20}
    if evidence == "drain":
        assert (await spoken.ask("PUT", f"{O1}/override", drain)).status == 404
    elif evidence == "renewal":
        assert len((await spoken.ask("POST", "/api/v1/renew", {"leases": [_lease("h1")]})).json["lost"]) == 1
    else:
        async with spoken.watching("?service=orders", {"last-event-id": "another:7"}) as watch:
            await watch.group()
    await spoken.put("orders", "o1")
    task = asyncio.create_task(spoken.ask("PUT", f"{O1}/override", drain))
    await spoken.clock.advance(lost_after(HEARTBEAT) - 0.1)
    assert not task.done()
    await spoken.clock.advance(0.5)
    assert (await task).json == {"epoch": "e1", "revision": 2}


async def test_a_node_that_has_not_heard_of_a_change_is_waited_for_itself(spoken: Spoken) -> None:
    asking = asyncio.create_task(spoken.ask("GET", "/api/v1/services/orders/unaware?revision=9&wait=0.5"))
    await spoken.clock.advance(0.6)
    (view,) = (await asking).json["waiting"]
    assert view["node"] == "n1"
    assert "has not heard of the change" in view["why"]


async def test_what_was_applied_must_have_been_shown_and_to_a_watch_that_is(spoken: Spoken) -> None:
    async with spoken.watching("?acks=true") as consumer:
        token = (await consumer.group())[0].says["watch"]
        ahead = await spoken.ask("POST", f"/api/v1/watches/{token}/applied", {"revision": 7})
        assert (ahead.status, ahead.json["field"]) == (422, "revision")
    gone = await spoken.ask("POST", f"/api/v1/watches/{token}/applied", {"revision": 0})
    assert gone.status == 404


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (StoreUnavailable("the disk is away", retry_after=3.0), 503),
        (Overloaded("the queue of writes"), 503),
        (CatalogFull("no more"), 507),
        (RuntimeError("a mistake"), 503),
    ],
)
async def test_a_write_that_the_store_refuses_is_answered_with_what_to_do(
    spoken: Spoken, monkeypatch: pytest.MonkeyPatch, failure: Exception, status: int
) -> None:
    if isinstance(failure, StoreUnavailable | RuntimeError):
        spoken.store.failure = failure
    else:

        async def write(decision: object) -> int:
            raise failure

        monkeypatch.setattr(spoken.registry, "write", write)
    heard = await spoken.ask("PUT", O1, {"port": 1})
    assert heard.status == status
    assert heard.headers["content-type"] == "application/problem+json"
    assert ("retry-after" in heard.headers) == (status == 503)


def _answering(spoken: Spoken, monkeypatch: pytest.MonkeyPatch, answers: bool) -> list[str]:
    """Have every place answer a probe, or none; the places that are probed."""
    probed = []

    async def probe(listing: Listing) -> bool:
        probed.append(str(listing.instance.place))
        return answers

    monkeypatch.setattr(spoken.keeper, "answers", probe)
    return probed


async def test_the_id_of_a_live_process_is_refused_with_both_places_and_the_way_to_force_it(
    spoken: Spoken, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed = _answering(spoken, monkeypatch, answers=True)
    await spoken.put("orders", "o1", address="10.0.0.1", holder="h1")
    wanted = {"port": 8000, "address": "10.0.0.2", "holder": "h2"}
    heard = await spoken.ask("PUT", O1, wanted)
    assert (heard.status, heard.json["title"]) == (409, "Conflict")
    for words in ("orders/o1", "http://10.0.0.1:8000", "http://10.0.0.2:8000", "takeover=force"):
        assert words in heard.json["detail"]
    assert probed == ["http://10.0.0.1:8000"]
    heard = await spoken.ask("PUT", O1, {**wanted, "takeover": "force"})
    assert (heard.status, heard.json["revision"]) == (200, 2)
    (lost,) = (await spoken.ask("POST", "/api/v1/renew", {"leases": [_lease("h1")]})).json["lost"]
    assert lost["reason"] == "superseded"


async def test_the_id_of_a_process_that_does_not_answer_is_taken_over_at_once(
    spoken: Spoken, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed = _answering(spoken, monkeypatch, answers=False)
    await spoken.put("orders", "o1", address="10.0.0.1", holder="h1")
    await spoken.put("orders", "o1", address="10.0.0.2", holder="h2")
    assert probed == ["http://10.0.0.1:8000"]
    assert (await spoken.ask("GET", O1)).json["instance"]["address"] == "10.0.0.2"
    heard = await spoken.ask("PUT", O1, {"port": 8000, "address": "10.0.0.1", "holder": "h1", "takeover": "never"})
    assert (heard.status, len(probed)) == (409, 1), "who was listed before takes nothing, so nobody is probed"


async def test_a_put_without_a_holder_takes_no_id_and_no_place_from_a_live_process(
    spoken: Spoken, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answering(spoken, monkeypatch, answers=True)
    await spoken.put("orders", "o1", address="10.0.0.1", holder="h1")
    for path, body in ((O1, {"address": "10.6.6.6"}), (O1, {"weight": 9}), (O2, {})):
        heard = await spoken.ask("PUT", path, {"port": 8000, "address": "10.0.0.1", **body})
        assert heard.status == 409
    await spoken.delete("orders", "o1")
    await spoken.put("orders", "o1", address="10.0.0.1", holder="h1", takeover="never")


async def test_a_new_process_is_seen_as_another_one_and_its_holder_is_not(spoken: Spoken) -> None:
    seen = []
    for holder in ("h1", "h1", "h2", ""):
        await spoken.put("orders", "o1", holder=holder, takeover="force")
        page = (await spoken.ask("GET", "/api/v1/services/orders")).body.decode()
        assert holder == "" or holder not in page
        seen.append(json.loads(page)["instances"][0].get("process"))
    assert seen[0] == seen[1] != seen[2]
    assert seen[3] is None


def _lease(holder: str) -> dict[str, str]:
    return {"service": "orders", "id": "o1", "holder": holder}
