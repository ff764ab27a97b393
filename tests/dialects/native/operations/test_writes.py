from __future__ import annotations

import json

import pytest

from adsum.core.errors import CatalogFull, Overloaded, StoreUnavailable
from adsum.core.model import Key, Listing
from tests.dialects.native.native_api import JSON, NativeApi

O1 = "/api/v1/services/orders/instances/o1"
O2 = "/api/v1/services/orders/instances/o2"
BOTH = {"leases": [{"service": "users", "id": "u1"}, {"service": "orders", "id": "o1"}]}


async def test_the_first_registration_creates_and_the_same_again_changes_nothing(spoken: NativeApi) -> None:
    first, again = await spoken.register("orders", "o1"), await spoken.register("orders", "o1")
    assert (first.status, again.status) == (201, 200)
    assert first.json == again.json == {"epoch": "e1", "revision": 1, "ttl": 15.0}


async def test_what_nobody_keeps_who_can_be_asked_is_not_called_renewed_and_the_rest_is_renewed(
    sharing: NativeApi,
) -> None:
    sharing.clock.jump(5.0)
    again = ("PUT", "/api/v1/services/users/instances/u1", {"port": 8000, "ttl": 10})
    for asking in (("POST", "/api/v1/services/users/instances/u1/renew"), ("POST", "/api/v1/renew", BOTH), again):
        heard = await sharing.request(*asking)
        assert (heard.status, heard.headers["retry-after"]) == (503, "1")
        assert "nobody keeps users" in heard.json["detail"]
    assert sharing.keeper.leases.deadline(Key("orders", "o1")) == sharing.clock.now() + 10
    assert sharing.keeper.leases.deadline(Key("users", "u1")) is None


async def test_to_a_node_that_passes_renewals_on_it_is_said_what_is_not_kept_here(sharing: NativeApi) -> None:
    heard = await sharing.request("POST", "/api/v1/renew", BOTH, JSON | {"Adsum-Forwarded-To": "n1"})
    assert heard.json == {"epoch": "e1", "revision": 2, "renewed": 1, "not_kept": ["users"]}


@pytest.mark.parametrize(
    "asking", [("POST", "/api/v1/renew", BOTH), ("GET", "/api/v1/services/orders/unacknowledged", None)]
)
async def test_what_another_node_meant_for_another_is_refused(
    sharing: NativeApi, asking: tuple[str, str, object]
) -> None:
    heard = await sharing.request(*asking, JSON | {"Adsum-Forwarded-To": "n2"})
    assert (heard.status, heard.headers["content-type"]) == (421, "application/problem+json")
    assert heard.json["title"] == "Misdirected Request"
    assert sharing.keeper.leases.deadline(Key("orders", "o1")) is None


async def test_who_asks_is_recorded(spoken: NativeApi) -> None:
    headers = JSON | {"Adsum-Actor": "deploy-7"}
    await spoken.request("PUT", O1, {"port": 1}, headers)
    await spoken.request("DELETE", O1)
    assert [each.provenance.actor for each in spoken.store.recorded] == ["10.1.2.3", "deploy-7"]


async def test_beside_a_claimed_actor_the_address_is_recorded_that_claimed_it(spoken: NativeApi) -> None:
    headers = JSON | {"Adsum-Actor": "deploy-7"}
    await spoken.request("PUT", O1, {"port": 1}, headers)
    assert (await spoken.request("GET", O1)).json["peer"] == "10.1.2.3"
    await spoken.request("DELETE", O1)
    changes = (await spoken.request("GET", "/api/v1/changes")).json["changes"]
    assert [(each["actor"], each.get("peer", "")) for each in changes] == [("10.1.2.3", ""), ("deploy-7", "10.1.2.3")]


@pytest.mark.parametrize("name", ["łukasz@høst", "deploy-7", "日本"])
async def test_an_actor_may_have_any_name(spoken: NativeApi, name: str) -> None:
    """Its bytes come as UTF-8; read as Latin-1 some of them were control characters."""
    headers = JSON | {"Adsum-Actor": name.encode().decode("latin-1")}
    assert (await spoken.request("PUT", O1, {"port": 80}, headers)).status == 201
    assert (await spoken.request("GET", O1)).json["instance"]["actor"] == name


async def test_registering_renews(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1", ttl=10)
    spoken.clock.jump(9.0)
    await spoken.register("orders", "o1", ttl=10)
    assert spoken.keeper.leases.deadline(Key("orders", "o1")) == spoken.clock.now() + 10


async def test_one_lease_is_renewed_without_a_write(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1", ttl=10)
    spoken.clock.jump(5.0)
    heard = await spoken.request("POST", f"{O1}/renew")
    assert heard.json == {"epoch": "e1", "revision": 1, "ttl": 10.0}
    assert spoken.keeper.leases.deadline(Key("orders", "o1")) == spoken.clock.now() + 10


async def test_many_leases_are_renewed_and_the_lost_are_named(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    await spoken.register("orders", "o2", holder="new", port=8001)
    leases = [
        {"service": "orders", "id": "o1"},
        {"service": "orders", "id": "o2", "holder": "old"},
        {"service": "orders", "id": "o3"},
    ]
    heard = await spoken.request("POST", "/api/v1/renew", {"leases": leases})
    assert heard.json == {
        "epoch": "e1",
        "revision": 2,
        "renewed": 1,
        "lost": [
            {"service": "orders", "id": "o2", "reason": "superseded"},
            {"service": "orders", "id": "o3", "reason": "unknown"},
        ],
    }


async def test_deregistering_twice_is_fine_but_not_in_anothers_name(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1", holder="new")
    assert (await spoken.request("DELETE", f"{O1}?holder=old")).status == 409
    assert (await spoken.request("DELETE", f"{O1}?holder=new")).json["revision"] == 2
    assert (await spoken.request("DELETE", f"{O1}?holder=new")).json["revision"] == 2


async def test_an_override_outranks_evidence_until_it_is_cleared(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    body = {"status": "maintenance", "reason": "disk", "length": 60}
    assert (await spoken.request("PUT", f"{O1}/override", body)).json == {"epoch": "e1", "revision": 2}
    detail = (await spoken.request("GET", O1)).json
    assert detail["instance"]["status"] == "maintenance"
    assert detail["evidence"] == "passing"
    assert detail["override"]["reason"] == "disk"
    assert (await spoken.request("DELETE", f"{O1}/override?reason=fixed")).status == 200
    assert (await spoken.request("GET", O1)).json["instance"]["status"] == "passing"


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
    spoken: NativeApi, monkeypatch: pytest.MonkeyPatch, failure: Exception, status: int
) -> None:
    if isinstance(failure, StoreUnavailable | RuntimeError):
        spoken.store.error = failure
    else:

        async def write(decision: object) -> int:
            raise failure

        monkeypatch.setattr(spoken.registry, "write", write)
    heard = await spoken.request("PUT", O1, {"port": 1})
    assert heard.status == status
    assert heard.headers["content-type"] == "application/problem+json"
    assert ("retry-after" in heard.headers) == (status == 503)


def _answering(spoken: NativeApi, monkeypatch: pytest.MonkeyPatch, answers: bool) -> list[str]:
    """Have every place answer a probe, or none; the places that are probed."""
    probed = []

    async def probe(listing: Listing) -> bool:
        probed.append(str(listing.instance.place))
        return answers

    monkeypatch.setattr(spoken.keeper, "is_reachable", probe)
    return probed


async def test_the_id_of_a_live_process_is_refused_with_both_places_and_the_way_to_force_it(
    spoken: NativeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed = _answering(spoken, monkeypatch, answers=True)
    await spoken.register("orders", "o1", address="10.0.0.1", holder="h1")
    wanted = {"port": 8000, "address": "10.0.0.2", "holder": "h2"}
    heard = await spoken.request("PUT", O1, wanted)
    assert (heard.status, heard.json["title"]) == (409, "Conflict")
    for words in ("orders/o1", "http://10.0.0.1:8000", "http://10.0.0.2:8000", "takeover=force"):
        assert words in heard.json["detail"]
    assert probed == ["http://10.0.0.1:8000"]
    heard = await spoken.request("PUT", O1, {**wanted, "takeover": "force"})
    assert (heard.status, heard.json["revision"]) == (200, 2)
    (lost,) = (await spoken.request("POST", "/api/v1/renew", {"leases": [_lease("h1")]})).json["lost"]
    assert lost["reason"] == "superseded"


async def test_the_id_of_a_process_that_does_not_answer_is_taken_over_at_once(
    spoken: NativeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed = _answering(spoken, monkeypatch, answers=False)
    await spoken.register("orders", "o1", address="10.0.0.1", holder="h1")
    await spoken.register("orders", "o1", address="10.0.0.2", holder="h2")
    assert probed == ["http://10.0.0.1:8000"]
    assert (await spoken.request("GET", O1)).json["instance"]["address"] == "10.0.0.2"
    heard = await spoken.request("PUT", O1, {"port": 8000, "address": "10.0.0.1", "holder": "h1", "takeover": "never"})
    assert (heard.status, len(probed)) == (409, 1), "who was listed before takes nothing, so nobody is probed"


async def test_a_put_without_a_holder_takes_no_id_and_no_place_from_a_live_process(
    spoken: NativeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answering(spoken, monkeypatch, answers=True)
    await spoken.register("orders", "o1", address="10.0.0.1", holder="h1")
    for path, body in ((O1, {"address": "10.6.6.6"}), (O1, {"weight": 9}), (O2, {})):
        heard = await spoken.request("PUT", path, {"port": 8000, "address": "10.0.0.1", **body})
        assert heard.status == 409
    await spoken.deregister("orders", "o1")
    await spoken.register("orders", "o1", address="10.0.0.1", holder="h1", takeover="never")


async def test_a_new_process_is_seen_as_another_one_and_its_holder_is_not(spoken: NativeApi) -> None:
    seen = []
    for holder in ("h1", "h1", "h2", ""):
        await spoken.register("orders", "o1", holder=holder, takeover="force")
        page = (await spoken.request("GET", "/api/v1/services/orders")).body.decode()
        assert holder == "" or holder not in page
        seen.append(json.loads(page)["instances"][0].get("process"))
    assert seen[0] == seen[1] != seen[2]
    assert seen[3] is None


def _lease(holder: str) -> dict[str, str]:
    return {"service": "orders", "id": "o1", "holder": holder}


async def test_past_the_bound_in_bytes_what_is_larger_is_refused_and_what_is_there_goes_on(spoken: NativeApi) -> None:
    large = {"port": 1, "ttl": 10, "metadata": {"m": "x" * 1_000}}
    await spoken.request("PUT", O1, large)
    spoken.registry.max_catalog_bytes = spoken.registry.snapshot.size + 100
    refused = await spoken.request("PUT", O2, {"port": 2})
    assert (refused.status, refused.headers["content-type"]) == (507, "application/problem+json")
    assert "registrations take 5.08 KiB of the 5.18 KiB" in refused.json["detail"]
    assert "--max-catalog" in refused.json["detail"]
    assert (await spoken.request("PUT", O1, large | {"metadata": {"m": "x" * 1_020, "n": "x" * 1_020}})).status == 507
    assert (await spoken.request("POST", f"{O1}/renew")).status == 200
    assert (await spoken.request("PUT", O1, large | {"ttl": 20})).status == 200
    assert (await spoken.request("PUT", f"{O1}/override", {"status": "draining", "reason": "y" * 1_000})).status == 200
    assert (await spoken.request("DELETE", O1)).status == 200
    assert (await spoken.request("PUT", O2, {"port": 2})).status == 201


async def test_a_service_is_forgotten_when_it_has_no_instance(spoken: NativeApi) -> None:
    await spoken.register("orders", "o1")
    refused = await spoken.request("DELETE", "/api/v1/services/orders")
    assert (refused.status, refused.headers["content-type"]) == (409, "application/problem+json")
    assert "1 instance" in refused.json["detail"]
    await spoken.request("DELETE", O1)
    for _ in range(2):
        forgotten = await spoken.request(
            "DELETE", "/api/v1/services/orders?reason=renamed", None, JSON | {"Adsum-Actor": "ann"}
        )
        assert (forgotten.status, forgotten.json["revision"]) == (200, 3)
    assert (await spoken.request("GET", "/api/v1/services")).json["services"] == []
    empty = (await spoken.request("GET", "/api/v1/services/orders")).json
    assert (empty["instances"], empty["revision"]) == ([], 2)
    newest = (await spoken.request("GET", "/api/v1/changes?service=orders")).json["changes"][0]
    assert (newest["id"], newest["cause"], newest["actor"], newest["reason"]) == ("", "forgotten", "ann", "renamed")
