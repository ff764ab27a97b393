from __future__ import annotations

import json

import pytest

from adsum.core.errors import CatalogFull, Overloaded, StoreUnavailable
from adsum.core.model import Key, Listing
from tests.dialects.native.native_api import JSON, NativeApi

O1 = "/api/v1/services/orders/instances/o1"
O2 = "/api/v1/services/orders/instances/o2"
BOTH = {"leases": [{"service": "users", "id": "u1"}, {"service": "orders", "id": "o1"}]}


async def test_a_registration_creates_and_the_same_again_changes_nothing(api: NativeApi) -> None:
    first, again = await api.register("orders", "o1"), await api.register("orders", "o1")
    assert (first.status, again.status) == (201, 200)
    assert first.json == again.json == {"epoch": "e1", "revision": 1, "ttl": 15.0}


async def test_a_lease_without_a_keeper_is_refused_and_the_others_are_renewed(
    sharded_api: NativeApi,
) -> None:
    sharded_api.clock.jump(5.0)
    again = ("PUT", "/api/v1/services/users/instances/u1", {"port": 8000, "ttl": 10})
    for request in (("POST", "/api/v1/services/users/instances/u1/renew"), ("POST", "/api/v1/renew", BOTH), again):
        response = await sharded_api.request(*request)
        assert (response.status, response.headers["retry-after"]) == (503, "1")
        assert "no node keeps the leases of users" in response.json["detail"]
    assert sharded_api.keeper.leases.deadline(Key("orders", "o1")) == sharded_api.clock.now() + 10
    assert sharded_api.keeper.leases.deadline(Key("users", "u1")) is None


async def test_a_node_that_forwards_renewals_gets_the_services_that_are_not_kept_here(sharded_api: NativeApi) -> None:
    response = await sharded_api.request("POST", "/api/v1/renew", BOTH, JSON | {"Adsum-Forwarded-To": "n1"})
    assert response.json == {"epoch": "e1", "revision": 2, "renewed": 1, "not_kept": ["users"]}


@pytest.mark.parametrize(
    "request_args", [("POST", "/api/v1/renew", BOTH), ("GET", "/api/v1/services/orders/unacknowledged", None)]
)
async def test_a_request_forwarded_to_another_node_is_refused(
    sharded_api: NativeApi, request_args: tuple[str, str, object]
) -> None:
    response = await sharded_api.request(*request_args, JSON | {"Adsum-Forwarded-To": "n2"})
    assert (response.status, response.headers["content-type"]) == (421, "application/problem+json")
    assert response.json["title"] == "Misdirected Request"
    assert sharded_api.keeper.leases.deadline(Key("orders", "o1")) is None


async def test_the_actor_is_who_proved_it_and_not_who_claims_it(api: NativeApi) -> None:
    headers = JSON | {"Adsum-Actor": "deploy-7"}
    await api.request("PUT", O1, {"port": 1}, headers)
    await api.request("DELETE", O1)
    recorded = [(change.provenance.actor, change.provenance.claimed) for change in api.store.recorded]
    assert recorded == [("anonymous@10.1.2.3", ""), ("anonymous@10.1.2.3", "deploy-7")]


async def test_the_address_of_the_caller_is_recorded_beside_a_claimed_actor(api: NativeApi) -> None:
    headers = JSON | {"Adsum-Actor": "deploy-7"}
    await api.request("PUT", O1, {"port": 1}, headers)
    assert (await api.request("GET", O1)).json["peer"] == "10.1.2.3"
    await api.request("DELETE", O1)
    changes = (await api.request("GET", "/api/v1/changes")).json["changes"]
    actors = [(change["actor"], change.get("claimed", ""), change["peer"]) for change in changes]
    assert actors == [("anonymous@10.1.2.3", "", "10.1.2.3"), ("anonymous@10.1.2.3", "deploy-7", "10.1.2.3")]


@pytest.mark.parametrize("name", ["łukasz@høst", "deploy-7", "日本"])
async def test_a_claimed_actor_may_have_any_name(api: NativeApi, name: str) -> None:
    """The bytes of the header are UTF-8. As Latin-1, some of them would be control characters."""
    headers = JSON | {"Adsum-Actor": name.encode().decode("latin-1")}
    assert (await api.request("PUT", O1, {"port": 80}, headers)).status == 201
    assert (await api.request("GET", O1)).json["instance"]["claimed"] == name


async def test_a_registration_renews_the_lease(api: NativeApi) -> None:
    await api.register("orders", "o1", ttl=10)
    api.clock.jump(9.0)
    await api.register("orders", "o1", ttl=10)
    assert api.keeper.leases.deadline(Key("orders", "o1")) == api.clock.now() + 10


async def test_one_lease_is_renewed_without_a_write(api: NativeApi) -> None:
    await api.register("orders", "o1", ttl=10)
    api.clock.jump(5.0)
    response = await api.request("POST", f"{O1}/renew")
    assert response.json == {"epoch": "e1", "revision": 1, "ttl": 10.0}
    assert api.keeper.leases.deadline(Key("orders", "o1")) == api.clock.now() + 10


async def test_many_leases_are_renewed_and_the_lost_ones_are_listed(api: NativeApi) -> None:
    await api.register("orders", "o1")
    await api.register("orders", "o2", holder="new", port=8001)
    leases = [
        {"service": "orders", "id": "o1"},
        {"service": "orders", "id": "o2", "holder": "old"},
        {"service": "orders", "id": "o3"},
    ]
    response = await api.request("POST", "/api/v1/renew", {"leases": leases})
    assert response.json == {
        "epoch": "e1",
        "revision": 2,
        "renewed": 1,
        "lost": [
            {"service": "orders", "id": "o2", "reason": "superseded"},
            {"service": "orders", "id": "o3", "reason": "unknown"},
        ],
    }


async def test_an_instance_is_deregistered_twice_but_only_by_its_holder(api: NativeApi) -> None:
    await api.register("orders", "o1", holder="new")
    assert (await api.request("DELETE", f"{O1}?holder=old")).status == 409
    assert (await api.request("DELETE", f"{O1}?holder=new")).json["revision"] == 2
    assert (await api.request("DELETE", f"{O1}?holder=new")).json["revision"] == 2


async def test_an_override_outranks_evidence_until_it_is_cleared(api: NativeApi) -> None:
    await api.register("orders", "o1")
    body = {"status": "maintenance", "reason": "disk", "length": 60}
    assert (await api.request("PUT", f"{O1}/override", body)).json == {"epoch": "e1", "revision": 2}
    detail = (await api.request("GET", O1)).json
    assert detail["instance"]["status"] == "maintenance"
    assert detail["evidence"] == "passing"
    assert detail["override"]["reason"] == "disk"
    assert (await api.request("DELETE", f"{O1}/override?reason=fixed")).status == 200
    assert (await api.request("GET", O1)).json["instance"]["status"] == "passing"


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (StoreUnavailable("the disk is away", retry_after=3.0), 503),
        (Overloaded("the queue of writes"), 503),
        (CatalogFull("no more"), 507),
        (RuntimeError("a mistake"), 503),
    ],
)
async def test_a_failed_write_says_when_to_try_again(
    api: NativeApi, monkeypatch: pytest.MonkeyPatch, failure: Exception, status: int
) -> None:
    if isinstance(failure, StoreUnavailable | RuntimeError):
        api.store.error = failure
    else:

        async def write(decision: object) -> int:
            raise failure

        monkeypatch.setattr(api.registry, "write", write)
    response = await api.request("PUT", O1, {"port": 1})
    assert response.status == status
    assert response.headers["content-type"] == "application/problem+json"
    assert ("retry-after" in response.headers) == (status == 503)


def _fake_probes(api: NativeApi, monkeypatch: pytest.MonkeyPatch, *, reachable: bool) -> list[str]:
    """Makes every place reachable, or none. Returns the list of the places that are probed."""
    probed: list[str] = []

    async def probe(listing: Listing) -> bool:
        probed.append(str(listing.instance.place))
        return reachable

    monkeypatch.setattr(api.keeper, "is_reachable", probe)
    return probed


async def test_the_id_of_a_live_process_is_refused_and_can_be_forced(
    api: NativeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed = _fake_probes(api, monkeypatch, reachable=True)
    await api.register("orders", "o1", address="10.0.0.1", holder="h1")
    body = {"port": 8000, "address": "10.0.0.2", "holder": "h2"}
    response = await api.request("PUT", O1, body)
    assert (response.status, response.json["title"]) == (409, "Conflict")
    for part in ("orders/o1", "http://10.0.0.1:8000", "http://10.0.0.2:8000", "takeover=force"):
        assert part in response.json["detail"]
    assert probed == ["http://10.0.0.1:8000"]
    response = await api.request("PUT", O1, {**body, "takeover": "force"})
    assert (response.status, response.json["revision"]) == (200, 2)
    (lost,) = (await api.request("POST", "/api/v1/renew", {"leases": [_lease("h1")]})).json["lost"]
    assert lost["reason"] == "superseded"


async def test_the_id_of_an_unreachable_process_is_taken_over_at_once(
    api: NativeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed = _fake_probes(api, monkeypatch, reachable=False)
    await api.register("orders", "o1", address="10.0.0.1", holder="h1")
    await api.register("orders", "o1", address="10.0.0.2", holder="h2")
    assert probed == ["http://10.0.0.1:8000"]
    assert (await api.request("GET", O1)).json["instance"]["address"] == "10.0.0.2"
    response = await api.request("PUT", O1, {"port": 8000, "address": "10.0.0.1", "holder": "h1", "takeover": "never"})
    assert (response.status, len(probed)) == (409, 1), (
        "a process that was listed before takes nothing, so no instance is probed"
    )


async def test_an_id_that_another_process_gets_during_the_probe_is_refused(
    api: NativeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.register("orders", "o1", address="10.0.0.1", holder="h1")

    async def probe(listing: Listing) -> bool:
        await api.register("orders", "o1", address="10.0.0.3", holder="h3", takeover="force")
        return False

    monkeypatch.setattr(api.keeper, "is_reachable", probe)
    response = await api.request("PUT", O1, {"port": 8000, "address": "10.0.0.2", "holder": "h2"})
    assert (response.status, response.json["title"]) == (409, "Conflict")
    assert "http://10.0.0.3:8000" in response.json["detail"]


async def test_a_registration_without_a_holder_takes_nothing_from_a_live_process(
    api: NativeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fake_probes(api, monkeypatch, reachable=True)
    await api.register("orders", "o1", address="10.0.0.1", holder="h1")
    for path, body in ((O1, {"address": "10.6.6.6"}), (O1, {"weight": 9}), (O2, {})):
        response = await api.request("PUT", path, {"port": 8000, "address": "10.0.0.1", **body})
        assert response.status == 409
    await api.deregister("orders", "o1")
    await api.register("orders", "o1", address="10.0.0.1", holder="h1", takeover="never")


async def test_another_holder_shows_as_another_process_and_stays_secret(api: NativeApi) -> None:
    digests = []
    for holder in ("h1", "h1", "h2", ""):
        await api.register("orders", "o1", holder=holder, takeover="force")
        page = (await api.request("GET", "/api/v1/services/orders")).body.decode()
        assert holder == "" or holder not in page
        digests.append(json.loads(page)["instances"][0].get("process"))
    assert digests[0] == digests[1] != digests[2]
    assert digests[3] is None


def _lease(holder: str) -> dict[str, str]:
    return {"service": "orders", "id": "o1", "holder": holder}


async def test_a_full_catalog_refuses_what_would_grow_it_and_serves_the_rest(api: NativeApi) -> None:
    large = {"port": 1, "ttl": 10, "metadata": {"m": "x" * 1_000}}
    await api.request("PUT", O1, large)
    api.registry.max_catalog_bytes = api.registry.snapshot.size + 100
    refused = await api.request("PUT", O2, {"port": 2})
    assert (refused.status, refused.headers["content-type"]) == (507, "application/problem+json")
    assert "registrations take 4.1 KiB of the 4.2 KiB" in refused.json["detail"]
    assert "--max-catalog" in refused.json["detail"]
    assert (await api.request("PUT", O1, large | {"metadata": {"m": "x" * 1_020, "n": "x" * 1_020}})).status == 507
    assert (await api.request("POST", f"{O1}/renew")).status == 200
    assert (await api.request("PUT", O1, large | {"ttl": 20})).status == 200
    assert (await api.request("PUT", f"{O1}/override", {"status": "draining", "reason": "y" * 1_000})).status == 200
    assert (await api.request("DELETE", O1)).status == 200
    assert (await api.request("PUT", O2, {"port": 2})).status == 201


async def test_a_service_without_instances_can_be_forgotten(api: NativeApi) -> None:
    await api.register("orders", "o1")
    refused = await api.request("DELETE", "/api/v1/services/orders")
    assert (refused.status, refused.headers["content-type"]) == (409, "application/problem+json")
    assert "1 instance" in refused.json["detail"]
    await api.request("DELETE", O1)
    for _ in range(2):
        forgotten = await api.request(
            "DELETE", "/api/v1/services/orders?reason=renamed", None, JSON | {"Adsum-Actor": "ann"}
        )
        assert (forgotten.status, forgotten.json["revision"]) == (200, 3)
    assert (await api.request("GET", "/api/v1/services")).json["services"] == []
    empty = (await api.request("GET", "/api/v1/services/orders")).json
    assert (empty["instances"], empty["revision"]) == ([], 2)
    newest = (await api.request("GET", "/api/v1/changes?service=orders")).json["changes"][0]
    assert (newest["id"], newest["cause"], newest["claimed"], newest["reason"]) == ("", "forgotten", "ann", "renamed")
