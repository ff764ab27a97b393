"""Services join and leave a watch while it lives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adsum import watches as watches_module
from adsum import wire
from adsum.core.access.scopes import NO_SCOPES
from adsum.core.catalog.changes import FullState
from adsum.core.model import Instance, Listing, Registration
from adsum.core.provenance import Cause, Provenance
from adsum.ports import OPEN_CHUNKS
from tests.dialects.native.native_api import ApiResult, FakeChunks, NativeApi, OpenWatch, WatchEvent
from tests.support.fakes import run_until_idle
from tests.support.tokens import bearer, declare_token, revoke_token


@pytest.fixture
async def secure_api() -> AsyncIterator[NativeApi]:
    """A running registry where callers without a token may do nothing."""
    api = NativeApi(anonymous=NO_SCOPES)
    await api.registry.start()
    api.access.start()
    yield api
    await api.access.stop()
    await api.registry.stop()


async def _update(
    api: NativeApi,
    token: str,
    join: Sequence[Mapping[str, object]] = (),
    leave: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
) -> ApiResult:
    body = {"join": list(join), "leave": list(leave)}
    sent = {"content-type": "application/json", **headers} if headers is not None else None
    return await api.request("POST", f"/api/v1/watches/{token}/services", body, sent)


async def _joined(api: NativeApi, watch: OpenWatch, token: str, *services: str, **fields: object) -> list[WatchEvent]:
    """Lets the services join. Returns the group that follows."""
    response = await _update(api, token, [{"service": service, **fields} for service in services])
    assert response.status == 204, response.body
    return await watch.next_group()


async def _token(watch: OpenWatch) -> str:
    """Returns the token of a watch whose first group is read here."""
    token: str = (await watch.next_group())[0].data["watch"]
    return token


def _shape(group: Sequence[WatchEvent]) -> list[tuple[str, str]]:
    return [(event.kind, event.data.get("service", "")) for event in group]


async def test_a_service_that_joins_comes_in_full_and_the_others_do_not_come_again(api: NativeApi) -> None:
    await api.register("orders", "o1")
    await api.register("users", "u1")
    async with api.watch("?service=orders") as watch:
        group = await _joined(api, watch, await _token(watch), "users")
        assert _shape(group) == [("joined", "users"), ("service", "users"), ("synced", "")]
        assert group[0].data == {"service": "users", "full": True}
        assert [instance["id"] for instance in group[1].data["instances"]] == ["u1"]
        assert group[-1].id == "e1:2"


async def test_changes_of_a_service_that_joined_come_with_those_of_the_others(api: NativeApi) -> None:
    async with api.watch("?service=orders") as watch:
        await _joined(api, watch, await _token(watch), "users")
        await api.register("users", "u1")
        assert _shape(await watch.next_group()) == [("change", "users"), ("synced", "")]
        await api.register("orders", "o1")
        assert _shape(await watch.next_group()) == [("change", "orders"), ("synced", "")]


async def test_a_service_joins_from_the_position_that_the_client_has(api: NativeApi) -> None:
    await api.register("users", "u1")
    await api.register("users", "u2")
    async with api.watch("?service=orders") as watch:
        token = await _token(watch)
        joined, change, _ = await _joined(api, watch, token, "users", since="e1:1")
        assert joined.data == {"service": "users", "full": False, "since": 1}
        assert [instance["id"] for instance in change.data["changed"]] == ["u2"]
        assert _shape(await _joined(api, watch, token, "carts", since="e1:2")) == [("joined", "carts"), ("synced", "")]


@pytest.mark.parametrize("since", ["e0:1", "e1:99"])
async def test_a_service_with_the_position_of_another_history_joins_in_full(api: NativeApi, since: str) -> None:
    await api.register("users", "u1")
    async with api.watch("?service=orders") as watch:
        joined, service, _ = await _joined(api, watch, await _token(watch), "users", since=since)
    assert (joined.data["full"], service.kind) == (True, "service")


async def test_changes_that_the_others_missed_come_before_the_service_that_joins(api: NativeApi) -> None:
    readable = asyncio.Event()
    readable.set()
    async with api.watch("?service=orders", readable=readable) as watch:
        token = await _token(watch)
        readable.clear()
        await api.register("orders", "o1")
        await watch.next_group()
        api.clock.jump(1.0)
        await api.register("orders", "o2")  # The client does not read: neither the change nor the join is sent.
        assert (await _update(api, token, [{"service": "users"}])).status == 204
        await run_until_idle()
        assert watch.is_quiet
        readable.set()
        group = await watch.next_group()
    assert _shape(group) == [("change", "orders"), ("joined", "users"), ("service", "users"), ("synced", "")]
    assert group[-1].id == "e1:2"


async def test_a_service_that_left_is_not_sent_any_more(api: NativeApi) -> None:
    async with api.watch("?service=orders&service=users") as watch:
        token = await _token(watch)
        assert (await _update(api, token, leave=["users", "carts"])).status == 204
        await api.register("users", "u1")
        await api.register("orders", "o1")
        assert _shape(await watch.next_group()) == [("change", "orders"), ("synced", "")]
        assert not api.registry.watches.is_watched("users")


async def test_a_service_that_joins_again_comes_in_full(api: NativeApi) -> None:
    await api.register("orders", "o1")
    async with api.watch("?service=orders&service=users") as watch:
        group = await _joined(api, watch, await _token(watch), "orders")
        assert _shape(group) == [("joined", "orders"), ("service", "orders"), ("synced", "")]
        assert api.registry.watches.watched_services == 2


async def test_a_service_that_leaves_and_joins_in_one_request_is_on_the_watch(api: NativeApi) -> None:
    async with api.watch("?service=orders") as watch:
        token = await _token(watch)
        assert (await _update(api, token, [{"service": "orders"}], ["orders"])).status == 204
        assert _shape(await watch.next_group()) == [("joined", "orders"), ("service", "orders"), ("synced", "")]


async def test_a_watch_lives_on_when_its_last_service_has_left(api: NativeApi) -> None:
    async with api.watch("?service=orders&acks=true&consumer=c1") as watch:
        token = await _token(watch)
        assert (await _update(api, token, leave=["orders"])).status == 204
        assert _shape(await _joined(api, watch, token, "users")) == [
            ("joined", "users"),
            ("service", "users"),
            ("synced", ""),
        ]
        acknowledged = await api.request("POST", f"/api/v1/watches/{token}/acknowledge", {"revision": 0})
        assert acknowledged.status == 204


async def test_in_a_new_epoch_services_that_join_come_with_the_others(api: NativeApi) -> None:
    readable = asyncio.Event()
    readable.set()
    async with api.watch("?service=orders", readable=readable) as watch:
        token = await _token(watch)
        readable.clear()
        await api.register("orders", "o1")
        await watch.next_group()
        assert (await _update(api, token, [{"service": "users"}])).status == 204
        listing = Listing(Registration(Instance("users", "x", "10.0.0.9", 80)), Provenance(Cause.REGISTERED, "a"))
        api.store.replace_history(FullState("e2", 7, [(7, listing)]))
        await run_until_idle()
        readable.set()
        group = await watch.next_group()
    assert _shape(group) == [
        ("open", ""),
        ("joined", "users"),
        ("service", "orders"),
        ("service", "users"),
        ("synced", ""),
    ]
    assert group[-1].id == "e2:7"


async def test_a_join_is_pushed_while_the_client_reads(api: NativeApi) -> None:
    pushed: list[bytes] = []
    state = {OPEN_CHUNKS: lambda: FakeChunks(pushed)}
    async with api.watch("?service=orders", state=state) as watch:
        token = await _token(watch)
        await run_until_idle()
        assert (await _update(api, token, [{"service": "users"}])).status == 204
    assert len(pushed) == 1
    assert pushed[0].startswith(b"event: joined")


async def _waiting(api: NativeApi, service: str, revision: int) -> list[str]:
    status = await api.registry.watches.consumers.wait_for_acknowledgements(service, revision, 0.0)
    return [pending.consumer.id for pending in status.waiting]


async def test_an_acknowledgement_of_one_service_is_none_of_another(api: NativeApi) -> None:
    await api.register("orders", "o1")
    async with api.watch("?service=orders&acks=true&consumer=c1") as watch:
        token = await _token(watch)
        await _joined(api, watch, token, "users")
        path = f"/api/v1/watches/{token}/acknowledge"
        assert (await api.request("POST", path, {"revision": 1, "services": ["users", "carts"]})).status == 204
        assert (await _waiting(api, "orders", 1), await _waiting(api, "users", 1)) == (["c1"], [])
        assert (await api.request("POST", path, {"revision": 1})).status == 204
        assert await _waiting(api, "orders", 1) == []


async def test_a_drain_waits_for_a_service_that_left_without_a_goodbye(api: NativeApi) -> None:
    await api.register("users", "u1")
    async with api.watch("?service=orders&service=users&acks=true&consumer=c1") as watch:
        token = await _token(watch)
        assert (await _update(api, token, leave=["users"])).status == 204
        assert await _waiting(api, "users", 1) == ["c1"]
        assert (await api.request("DELETE", "/api/v1/consumers/c1?service=users")).status == 204
        assert (await _waiting(api, "users", 1), await _waiting(api, "orders", 1)) == ([], ["c1"])


async def test_a_service_may_join_under_a_consumer_of_its_own(api: NativeApi) -> None:
    await api.register("users", "u1")
    async with api.watch("?service=orders&acks=true&consumer=c1&name=shop") as watch:
        await _joined(api, watch, await _token(watch), "users", consumer="c2")
        assert (await _waiting(api, "orders", 1), await _waiting(api, "users", 1)) == (["c1"], ["c2"])
        assert (await api.request("DELETE", "/api/v1/consumers/c1")).status == 204
        assert await _waiting(api, "users", 1) == ["c2"]


async def test_an_observing_watch_takes_no_consumer(api: NativeApi) -> None:
    async with api.watch("?service=orders") as watch:
        response = await _update(api, await _token(watch), [{"service": "users", "consumer": "c2"}])
        assert (response.status, response.json["field"]) == (422, "join[0].consumer")
        assert watch.is_quiet


@pytest.mark.parametrize(
    ("join", "status", "field"),
    [
        ([{"service": "users"}, {"service": "users"}], 422, "join"),
        ([{"service": "Not a name"}], 422, "join[0].service"),
        ([{"service": "users", "since": "7"}], 422, "join[0].since"),
        ([{"service": "users", "from": "e1:7"}], 422, "join[0].from"),
        ([{"service": f"s{n}"} for n in range(wire.MAX_WATCH_UPDATE + 1)], 422, "join"),
    ],
)
async def test_a_wrong_request_changes_nothing(api: NativeApi, join: Any, status: int, field: str) -> None:
    async with api.watch("?service=orders") as watch:
        response = await _update(api, await _token(watch), join)
        assert (response.status, response.json["field"]) == (status, field)
        assert (watch.is_quiet, api.registry.watches.watched_services) == (True, 1)


async def test_a_watch_of_all_services_takes_no_join(api: NativeApi) -> None:
    async with api.watch() as watch:
        opened, *_ = await watch.next_group()
        assert "joins" not in opened.data
        response = await _update(api, opened.data["watch"], [{"service": "users"}])
        assert (response.status, response.json["field"]) == (422, "join")


async def test_an_unknown_watch_is_reported_as_such(api: NativeApi) -> None:
    async with api.watch("?service=orders") as watch:
        token = await _token(watch)
    for unknown in (token, "0" * 16):
        response = await _update(api, unknown, [{"service": "users"}])
        assert response.status == 404
        assert "another node serves it" in response.json["detail"]
        assert "reason" not in response.json, "it is not about a service that the caller may not see"


async def test_a_watch_has_a_bounded_number_of_services(api: NativeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_SERVICES_PER_WATCH", 2)
    async with api.watch("?service=orders") as watch:
        token = await _token(watch)
        await _joined(api, watch, token, "users")
        response = await _update(api, token, [{"service": "carts"}])
        assert (response.status, response.json["field"]) == (422, "join")
        assert "open another watch" in response.json["detail"]
        assert (await _update(api, token, [{"service": "carts"}], ["users"])).status == 204, "users leaves first"


async def test_a_full_table_of_watched_services_refuses_a_join(api: NativeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches_module, "MAX_WATCHED_SERVICES", 1)
    async with api.watch("?service=orders") as watch:
        response = await _update(api, await _token(watch), [{"service": "users"}])
        assert (response.status, response.headers["retry-after"]) == (503, "10")
        assert watch.is_quiet


async def test_only_the_opener_of_a_watch_changes_its_services(secure_api: NativeApi) -> None:
    registry = secure_api.registry
    reader = bearer(await declare_token(registry, "reader", "read:orders", "read:users"))
    other = bearer(await declare_token(registry, "other", "read:*"))
    async with secure_api.watch("?service=orders", headers=reader) as watch:
        token = await _token(watch)
        join = [{"service": "users"}]
        assert (await _update(secure_api, token, join, headers=other)).status == 404
        assert (await _update(secure_api, token, join, headers={})).status == 401
        hidden = await _update(secure_api, token, [*join, {"service": "carts"}], headers=reader)
        assert (hidden.status, hidden.json["reason"]) == (404, "invisible")
        assert watch.is_quiet
        assert (await _update(secure_api, token, join, headers=reader)).status == 204
        assert _shape(await watch.next_group()) == [("joined", "users"), ("service", "users"), ("synced", "")]
        await revoke_token(registry, "reader")
        while b"rights of the caller have changed" not in await watch.next_write():
            pass
        assert (await _update(secure_api, token, join, headers=reader)).status == 401


NAMES = ("carts", "orders", "users")
STEP = st.one_of(
    st.tuples(st.just("register"), st.sampled_from(NAMES), st.integers(0, 3)),
    st.tuples(st.just("deregister"), st.sampled_from(NAMES), st.integers(0, 3)),
    st.tuples(st.just("join"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("leave"), st.sampled_from(NAMES), st.just(0)),
)


@given(st.lists(STEP, max_size=25))
@settings(max_examples=40, deadline=None)
def test_a_client_that_applies_every_event_has_the_catalog_of_its_services(steps: list[Any]) -> None:
    asyncio.run(_follow(steps))


async def _follow(steps: list[Any]) -> None:
    api = NativeApi()
    await api.registry.start()
    views: dict[str, set[str]] = {}
    wanted, revision = {"orders"}, 0
    async with api.watch("?service=orders") as watch:
        token = await _token(watch)
        views["orders"] = set()
        for action, name, detail in steps:
            if action == "register":
                await api.register(name, f"i{detail}")
            elif action == "deregister":
                await api.deregister(name, f"i{detail}")
            elif action == "leave":
                assert (await _update(api, token, leave=[name])).status == 204
                wanted.discard(name)
            else:
                # `detail`: the client resumes the service where it left it.
                since = {"since": f"e1:{revision}"} if detail and name in views and name in wanted else {}
                if not since:
                    views.pop(name, None)
                assert (await _update(api, token, [{"service": name, **since}])).status == 204
                wanted.add(name)
            api.clock.jump(1.0)
            await run_until_idle()
            while not watch.is_quiet:
                for event in await watch.next_group():
                    revision = _apply(views, event, revision)
        for name in wanted:
            assert views[name] == set(api.registry.snapshot.service(name).listings)
    await api.registry.stop()


def _apply(views: dict[str, set[str]], event: WatchEvent, revision: int) -> int:
    """Applies an event to the views. Returns the revision that they have then."""
    data = event.data
    if event.kind == "service":
        views[data["service"]] = {instance["id"] for instance in data["instances"]}
    elif event.kind == "joined" and not data["full"]:
        assert data.get("since", 0) <= revision
    elif event.kind == "change":
        views[data["service"]] |= {instance["id"] for instance in data.get("changed", ())}
        views[data["service"]] -= {removed["id"] for removed in data.get("removed", ())}
    return data["revision"] if event.kind == "synced" else revision
