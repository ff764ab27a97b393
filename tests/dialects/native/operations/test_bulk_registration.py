"""Registration of many instances in one request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adsum import wire
from adsum.core.access.scopes import NO_SCOPES
from adsum.core.errors import CatalogFull, KeeperUnavailable, StoreUnavailable
from adsum.core.model import Key
from adsum.dialects.native.api.operation_table import MAX_REGISTER_BODY_BYTES
from adsum.dialects.native.operations import bulk_registration
from adsum.registry import write_queue
from tests.dialects.native.native_api import JSON, ApiResult, NativeApi
from tests.support.fakes import run_until_idle
from tests.support.tokens import bearer, declare_token

TARGET = "/api/v1/register"
Body = Mapping[str, object]


def _body(id: str, port: int = 8000, service: str = "orders", **fields: object) -> Body:
    return {"service": service, "id": id, "port": port, **fields}


async def _register(api: NativeApi, *bodies: object, headers: Mapping[str, str] = JSON) -> ApiResult:
    return await api.request("POST", TARGET, {"registrations": bodies}, headers)


def _statuses(response: ApiResult) -> list[int]:
    return [answer["status"] for answer in response.json["answers"]]


async def test_many_instances_are_registered_in_one_commit_and_each_is_answered(api: NativeApi) -> None:
    await api.register("orders", "o1", port=8001)
    bodies = [_body("o1", 8001), _body("o2", 8002, ttl=30), _body("u1", service="users", ttl=None)]
    response = await _register(api, *bodies)
    assert response.status == 200
    assert response.json == {
        "epoch": "e1",
        "revision": 2,
        "registered": 3,
        "answers": [
            {"status": 200, "revision": 2, "ttl": 15.0},
            {"status": 201, "revision": 2, "ttl": 30.0},
            {"status": 201, "revision": 2},
        ],
    }
    assert len(api.store.commits) == 2
    assert api.observer.answers[-1] == ("register_many", 200)


async def test_the_same_again_renews_the_leases_without_a_commit(api: NativeApi) -> None:
    bodies = [_body(f"o{n}", 8000 + n, ttl=10) for n in range(3)]
    await _register(api, *bodies)
    await api.keeper.start()
    api.clock.jump(5.0)
    assert _statuses(await _register(api, *bodies)) == [200, 200, 200]
    assert len(api.store.commits) == 1
    assert {api.keeper.leases.deadline(Key("orders", f"o{n}")) for n in range(3)} == {api.clock.now() + 10}
    await api.keeper.stop()


async def test_an_invalid_registration_is_refused_with_its_field_and_affects_no_other(api: NativeApi) -> None:
    check = {"name": "web", "kind": "http", "interval": 0}
    wrong: list[tuple[object, int, str]] = [
        (_body("o2", 0), 422, "registrations[1].port"),
        (
            _body("o2", checks=[check]),
            422,
            "registrations[1].checks[0].interval",
        ),
        (_body("o2", address="nowhere at all"), 422, "registrations[1].address"),
        (_body("-"), 422, "registrations[1].id"),
        ({"id": "o2", "port": 80}, 422, "registrations[1].service"),
        (_body("o2", prot=80), 422, "registrations[1].prot"),
        (["o2"], 422, "registrations[1]"),
        (7, 422, "registrations[1]"),
    ]
    for body, status, field in wrong:
        response = await _register(api, _body("o1"), body, _body("o3", 8003))
        first, refused, last = response.json["answers"]
        assert (first["status"] // 100, last["status"] // 100) == (2, 2)
        assert refused["problem"]["detail"]
        assert (refused["status"], refused["problem"]["status"], refused["problem"]["field"]) == (status, status, field)
    assert api.registry.snapshot.instance_count == 2
    assert {operation for operation, _ in api.observer.refusals} == {"register_many"}
    assert len(api.observer.refusals) == len(wrong), "each refusal is counted"


async def test_a_repeated_key_refuses_its_registration(api: NativeApi) -> None:
    body = b'{"registrations": [{"service":"a","id":"a1","port":1}, {"service":"a","id":"a2","port":1,"port":2}]}'
    first, second = (await api.request("POST", TARGET, body, JSON)).json["answers"]
    assert first["status"] == 201
    assert (second["status"], second["problem"]["field"]) == (400, "registrations[1].port")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, ""),
        (b'{"registrations": [}', 400, ""),
        (b'{"registrations": [{"service": "a"]}', 400, ""),
        (b"[]", 400, ""),
        (b"{}", 422, "registrations"),
        (b'{"registrations": {}}', 422, "registrations"),
        (b'{"registrations": [], "more": 1}', 422, "more"),
        (b'{"registrations": [], "registrations": []}', 400, "registrations"),
        (b'{"registrations": [' + b"{}," * wire.MAX_REGISTRATIONS + b"{}]}", 422, "registrations"),
    ],
)
async def test_a_body_that_is_no_list_of_registrations_is_refused_as_a_whole(
    api: NativeApi, body: bytes, status: int, field: str
) -> None:
    response = await api.request("POST", TARGET, body, JSON)
    assert (response.status, response.json.get("field", "")) == (status, field)


async def test_a_text_that_is_not_utf_8_refuses_its_registration(api: NativeApi) -> None:
    body = b'{"registrations": [{"service":"a","id":"a1","port":1}, {"service":"a","id":"a2","port":1,"zone":"\xff"}]}'
    response = await api.request("POST", TARGET, body, JSON)
    if response.status == 400:  # The decoder may look at texts that it skips.
        return
    assert _statuses(response) == [201, 422]


async def test_the_name_of_the_list_may_occur_in_a_registration(api: NativeApi) -> None:
    response = await _register(api, _body("o1", metadata={"a": 'x "registrations" y', "registrations": "1"}))
    assert _statuses(response) == [201]


async def test_no_registration_is_no_error(api: NativeApi) -> None:
    assert (await _register(api)).json == {"epoch": "e1", "revision": 0, "registered": 0, "answers": []}


async def test_registrations_of_one_request_see_each_other(api: NativeApi) -> None:
    """The second takes the place of the first, and the third is the first once more."""
    bodies = [_body("o1", 1, holder="a"), _body("o2", 1, holder="b"), _body("o1", 1, holder="a", takeover="never")]
    response = await _register(api, *bodies)
    assert _statuses(response) == [201, 201, 409]
    assert [listing.instance.id for listing in api.registry.snapshot.service("orders").listings.values()] == ["o2"]


async def test_the_id_of_a_live_process_elsewhere_is_a_conflict_and_nothing_is_probed(api: NativeApi) -> None:
    await api.register("orders", "o1", holder="old", port=8001, address="10.0.0.9")
    await api.keeper.start()
    response = await _register(api, _body("o1", 8002, holder="new"), _body("o2"), _body("o1", 8003, takeover="force"))
    refused, registered, forced = response.json["answers"]
    assert (refused["status"], registered["status"], forced["status"]) == (409, 201, 200)
    assert "register it by itself" in refused["problem"]["detail"]
    await api.keeper.stop()


async def test_rights_are_checked_for_each_registration() -> None:
    api = NativeApi(anonymous=NO_SCOPES)
    await api.registry.start()
    owner = await declare_token(api.registry, "owner", "write:users")
    token = await declare_token(api.registry, "web", "write:orders", "write:users", "read:secrets")
    await _register(api, _body("u1", service="users"), headers=JSON | bearer(owner))
    bodies = [_body("o1"), _body("s1", service="secrets"), _body("h1", service="hidden"), _body("u1", 81, "users")]
    response = await _register(api, *bodies, headers=JSON | bearer(token))
    assert _statuses(response) == [201, 403, 403, 403]
    problems = [answer["problem"] for answer in response.json["answers"][1:]]
    assert [problem["reason"] for problem in problems] == ["forbidden", "forbidden", "not-owner"]
    assert [reason for _, reason in api.refusals] == ["forbidden", "forbidden", "not-owner"], "each is counted"
    assert (await _register(api, _body("o2"))).status == 401
    reader = await declare_token(api.registry, "reader", "read:*")
    assert (await _register(api, headers=JSON | bearer(reader))).status == 403
    await api.registry.stop()


async def test_a_store_that_is_away_refuses_the_whole_request(api: NativeApi) -> None:
    api.store.error = StoreUnavailable("the disk is full", retry_after=3.0)
    response = await _register(api, _body("o1"), _body("o2", 8002))
    assert (response.status, response.headers["retry-after"]) == (503, "3")
    response = await _register(api, _body("o1"), _body("o2", 0))
    assert _statuses(response) == [503, 422], "another node would refuse the second, too"
    assert response.json["answers"][0]["retry_after"] == 3.0


async def test_registrations_that_the_queue_does_not_take_are_answered(
    api: NativeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_queue, "MAX_WAITING_WRITES", 2)
    response = await _register(api, *(_body(f"o{n}", 8000 + n) for n in range(4)))
    assert _statuses(response) == [201, 201, 503, 503]
    assert api.registry.snapshot.instance_count == 2


async def test_a_catalog_without_room_refuses_what_it_does_not_take(
    api: NativeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.core.catalog.decisions.MAX_INSTANCES", 1)
    assert _statuses(await _register(api, _body("o1"), _body("o2", 8002))) == [201, 507]
    assert isinstance(api.observer.refusals[-1][1], CatalogFull)


async def test_a_lease_without_a_keeper_is_answered_and_the_others_are_registered(
    sharded_api: NativeApi,
) -> None:
    """`users/u1` is listed already, and no node keeps its lease."""
    again = _body("u1", 8000, "users", ttl=10)
    response = await _register(sharded_api, again, _body("o9", 8009))
    assert _statuses(response) == [503, 201]
    assert isinstance(sharded_api.observer.refusals[-1][1], KeeperUnavailable)


async def test_a_body_that_is_too_large_is_refused(api: NativeApi) -> None:
    response = await api.request("POST", TARGET, b" " * (MAX_REGISTER_BODY_BYTES + 1), JSON)
    assert response.status == 413


async def test_other_requests_run_while_registrations_are_decoded(
    api: NativeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_registration, "MAX_ITEMS_PER_TURN", 2)
    api.store.gate.clear()
    request = asyncio.create_task(_register(api, *(_body(f"o{n}", 8000 + n) for n in range(10))))
    turns = 0
    while not api.store.commits and turns < 5:
        await asyncio.sleep(0)
        turns += 1
    assert not request.done()
    assert turns == 5
    api.store.gate.set()
    assert (await request).json["registered"] == 10


async def test_the_registrations_of_a_caller_that_left_are_dropped(api: NativeApi) -> None:
    api.store.gate.clear()
    blocker = asyncio.create_task(api.register("orders", "first"))
    await run_until_idle()
    request = asyncio.create_task(_register(api, _body("o1"), _body("o2", 8002)))
    await run_until_idle()
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    api.store.gate.set()
    await blocker
    await run_until_idle()
    assert api.registry.snapshot.instance_count == 1


_BODIES = st.fixed_dictionaries(
    {
        "service": st.sampled_from(["orders", "users"]),
        "id": st.sampled_from(["o1", "o2"]),
        "port": st.sampled_from([0, 80, 81]),
    },
    optional={
        "holder": st.sampled_from(["", "a", "b"]),
        "takeover": st.sampled_from(["usual", "never", "force", "maybe"]),
        "ttl": st.sampled_from([None, 10, -1]),
        "zone": st.sampled_from(["z1", "z" * 200]),
        "unknown": st.just(1),
    },
)


@settings(max_examples=30)
@given(st.lists(_BODIES, max_size=8))
def test_many_registrations_are_answered_as_one_after_the_other(bodies: Sequence[Body]) -> None:
    asyncio.run(_compare(bodies))


async def _compare(bodies: Sequence[Body]) -> None:
    together, apart = NativeApi(), NativeApi()
    for api in (together, apart):
        await api.registry.start()
    answers = (await _register(together, *bodies)).json["answers"]
    for number, (body, answer) in enumerate(zip(bodies, answers, strict=True)):
        rest = {name: value for name, value in body.items() if name not in ("service", "id")}
        path = f"/api/v1/services/{body['service']}/instances/{body['id']}"
        request = asyncio.create_task(apart.request("PUT", path, rest))
        await run_until_idle()
        if not request.done():  # A probe that never answers.
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
            assert answer["status"] == 409
            continue
        alone = await request
        assert answer["status"] == alone.status
        if alone.status >= 400:
            assert _stripped(answer["problem"], f"registrations[{number}].") == alone.json
        else:
            assert answer.get("ttl") == alone.json.get("ttl")
    for name in ("orders", "users"):
        listings, others = (api.registry.snapshot.service(name).listings for api in (together, apart))
        assert {id: listing.registration for id, listing in listings.items()} == {
            id: listing.registration for id, listing in others.items()
        }
    for api in (together, apart):
        await api.registry.stop()


def _stripped(problem: Mapping[str, Any], prefix: str) -> Mapping[str, Any]:
    return json.loads(json.dumps(problem).replace(prefix, ""))  # type: ignore[no-any-return]
