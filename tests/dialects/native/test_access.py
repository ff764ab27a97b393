"""What callers with limited scopes see and may change over the native API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from adsum.access.credentials import UNKNOWN_SCHEME
from adsum.core.access.scopes import NO_SCOPES
from adsum.core.model import Key
from adsum.dialects.native.requests.api_request import request_credentials
from adsum.ports import OPEN_CHUNKS
from tests.dialects.native.native_api import JSON, FakeChunks, NativeApi
from tests.support.fakes import run_until_idle
from tests.support.tokens import bearer, declare_token, revoke_token

SERVICES = "/api/v1/services"
ORDERS = f"{SERVICES}/orders"
WRONG = "adsum_0000000000000000_" + "x" * 43
"""A well-formed token that does not exist."""
WATCH_USERS = "/api/v1/watch?service=users"


@pytest.fixture
async def secure_api() -> AsyncIterator[NativeApi]:
    """A running registry where callers without a token may do nothing. Two teams have registered an instance each."""
    api = NativeApi(anonymous=NO_SCOPES)
    await api.registry.start()
    api.access.start()
    for team, service in (("team-a", "orders"), ("team-b", "users")):
        token = await declare_token(api.registry, team, f"write:{service}")
        path = f"{SERVICES}/{service}/instances/i1"
        assert (await api.request("PUT", path, {"port": 80, "ttl": 10}, JSON | bearer(token))).status == 201
    yield api
    await api.access.stop()
    await api.registry.stop()


async def test_a_request_without_a_token_gets_a_challenge(secure_api: NativeApi) -> None:
    refused = await secure_api.request("GET", ORDERS)
    assert (refused.status, refused.headers["www-authenticate"]) == (401, 'Bearer realm="adsum"')
    assert "token" in refused.json["detail"]
    assert secure_api.refusals == [("read_service", "no-credentials")]
    assert (await secure_api.request("GET", "/healthz", headers={"authorization": "Bearer wrong"})).status == 200


@pytest.mark.parametrize("authorization", ["Bearer wrong", f"Bearer {WRONG}", "Basic eDp5", "x"])
async def test_wrong_credentials_are_never_taken_for_none(api: NativeApi, authorization: str) -> None:
    await api.register("orders", "o1")
    refused = await api.request("GET", ORDERS, headers={"authorization": authorization})
    assert refused.status == 401
    assert authorization.split()[-1] not in refused.json["detail"]
    assert api.fast_path(ORDERS.encode(), [(b"authorization", authorization.encode())]) is None


async def test_a_request_with_two_authorization_headers_has_wrong_credentials(secure_api: NativeApi) -> None:
    token = (await declare_token(secure_api.registry, "reader", "read:*")).encode()
    header = (b"authorization", b"Bearer " + token)
    assert secure_api.fast_path(ORDERS.encode(), [header]) is not None
    assert secure_api.fast_path(ORDERS.encode(), [header, header]) is None
    assert request_credentials([header, header], b"", "").token == UNKNOWN_SCHEME


async def test_the_fast_path_makes_no_page_for_a_caller_that_may_not_read_it(secure_api: NativeApi) -> None:
    """Else the time of the refusal reveals that the service exists, and anybody makes the node encode large pages."""
    for headers in ((), ((b"authorization", b"Bearer " + WRONG.encode()),)):
        assert secure_api.fast_path(ORDERS.encode(), headers) is None
    assert secure_api.native.pages_bytes == 0
    token = (await declare_token(secure_api.registry, "reader", "read:orders")).encode()
    assert secure_api.fast_path(ORDERS.encode(), [(b"authorization", b"Bearer " + token)]) is not None
    assert secure_api.native.pages_bytes > 0


async def test_a_service_that_may_not_be_read_does_not_exist(secure_api: NativeApi) -> None:
    headers = bearer(await declare_token(secure_api.registry, "reader", "read:orders"))
    listed = (await secure_api.request("GET", SERVICES, headers=headers)).json["services"]
    assert [service["name"] for service in listed] == ["orders"]
    answers = [
        (await secure_api.request("GET", path, headers=headers))
        for path in (
            f"{SERVICES}/users",
            f"{SERVICES}/nowhere",
            f"{SERVICES}/users/instances/i1",
            "/api/v1/watch?service=users",
        )
    ]
    assert [answer.status for answer in answers] == [404] * 4
    assert answers[0].json["detail"].replace("users", "nowhere") == answers[1].json["detail"]
    changes = (await secure_api.request("GET", "/api/v1/changes", headers=headers)).json["changes"]
    assert {change["service"] for change in changes} == {"orders"}
    assert (await secure_api.request("GET", "/api/v1/changes?service=users", headers=headers)).status == 404
    refused = [
        (await secure_api.request("PUT", f"{SERVICES}/{service}/instances/i1", {"port": 1}, JSON | headers))
        for service in ("users", "nowhere")
    ]
    assert [answer.status for answer in refused] == [403, 403]
    assert refused[0].json["detail"].replace("users", "nowhere") == refused[1].json["detail"]


async def test_callers_with_the_right_share_the_bytes_of_a_page(secure_api: NativeApi) -> None:
    tokens = [await declare_token(secure_api.registry, name, "read:orders") for name in ("r1", "r2")]
    other = await declare_token(secure_api.registry, "r3", "read:users")
    replies = [secure_api.fast_path(ORDERS.encode(), [(b"authorization", f"Bearer {t}".encode())]) for t in tokens]
    assert replies[0] is not None
    assert replies[1] is not None
    assert replies[0].text is replies[1].text
    assert secure_api.fast_path(ORDERS.encode(), [(b"authorization", f"Bearer {other}".encode())]) is None
    assert secure_api.fast_path(ORDERS.encode()) is None


async def test_lists_of_callers_with_other_scopes_have_other_entity_tags(secure_api: NativeApi) -> None:
    tokens = [
        await declare_token(secure_api.registry, f"r{n}", scope)
        for n, scope in enumerate(("read:o*", "read:u*", "read:*"))
    ]
    lists = [await secure_api.request("GET", SERVICES, headers=bearer(token)) for token in tokens]
    assert len({page.headers["etag"] for page in lists}) == 3
    again = await secure_api.request(
        "GET", SERVICES, headers=bearer(tokens[0]) | {"if-none-match": lists[0].headers["etag"]}
    )
    assert again.status == 304


async def test_an_instance_of_another_token_can_be_changed_by_operate_alone(secure_api: NativeApi) -> None:
    writer = bearer(await declare_token(secure_api.registry, "writer", "write:*"))
    operator = bearer(await declare_token(secure_api.registry, "operator", "operate:orders"))
    path = f"{ORDERS}/instances/i1"
    before = secure_api.registry.snapshot
    requests = [
        ("PUT", path, {"port": 81}),
        ("DELETE", path, None),
        ("POST", f"{path}/renew", None),
        ("PUT", f"{path}/override", {"status": "draining"}),
        ("DELETE", f"{path}/override", None),
    ]
    for method, target, body in requests:
        answer = await secure_api.request(method, target, body, JSON | writer)
        assert answer.status == 403, (method, target, answer.body)
        assert "another token" in answer.json["detail"]
    renewed = await secure_api.request(
        "POST", "/api/v1/renew", {"leases": [{"service": "orders", "id": "i1"}]}, JSON | writer
    )
    assert (renewed.json["renewed"], renewed.json["lost"][0]["reason"]) == (0, "superseded")
    assert secure_api.registry.snapshot is before
    for method, target, body in requests[3:]:
        assert (await secure_api.request(method, target, body, JSON | operator)).status == 200
    listing = secure_api.registry.snapshot.find(Key("orders", "i1"))
    assert listing is not None
    assert (listing.owner, listing.provenance.actor) == ("team-a", "operator")


async def test_a_watch_of_everything_shows_visible_services_only(secure_api: NativeApi) -> None:
    reader = bearer(await declare_token(secure_api.registry, "reader", "read:orders"))
    async with secure_api.watch(headers=reader) as watch:
        opened, service, _ = await watch.next_group()
        assert (opened.kind, service.data["service"]) == ("open", "orders")
        admin = bearer(await declare_token(secure_api.registry, "admin", "admin"))
        for name in ("users", "orders"):
            await secure_api.request("PUT", f"{SERVICES}/{name}/instances/new", {"port": 90}, JSON | admin)
        change, _ = await watch.next_group()
        assert change.data["service"] == "orders"


async def test_a_drain_does_not_wait_for_a_watch_of_everything_that_does_not_show_its_service(
    secure_api: NativeApi,
) -> None:
    reader = bearer(await declare_token(secure_api.registry, "reader", "read:orders"))
    consumers = secure_api.registry.watches.consumers
    async with secure_api.watch("?acks=true", headers=reader) as watch:
        await watch.next_group()
        later = secure_api.registry.snapshot.revision + 1
        for service, expected in (("orders", 1), ("users", 0)):
            assert len((await consumers.wait_for_acknowledgements(service, later, 0.0)).waiting) == expected


@pytest.mark.parametrize("how", ["revoked", "narrowed", "expired"])
async def test_a_stream_ends_when_the_rights_of_its_caller_end(secure_api: NativeApi, how: str) -> None:
    expires = secure_api.clock.wall() + 60 if how == "expired" else None
    reader = bearer(await declare_token(secure_api.registry, "reader", "read:*", expires=expires))
    async with secure_api.watch("?service=orders", headers=reader) as watch:
        await watch.next_group()
        if how == "revoked":
            await revoke_token(secure_api.registry, "reader")
        elif how == "narrowed":
            await declare_token(secure_api.registry, "reader", "read:users")
        else:
            secure_api.access.sessions.expire(secure_api.clock.wall() + 61)
        assert b"rights of the caller have changed" in await watch.next_write()
        async with asyncio.timeout(5):
            await asyncio.shield(watch.task)


async def test_a_watch_whose_caller_loses_its_rights_while_the_node_catches_up_shows_nothing(
    secure_api: NativeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = bearer(await declare_token(secure_api.registry, "reader", "read:*"))
    monkeypatch.setattr(secure_api.store, "age", lambda: 0.1)
    next_revision = secure_api.registry.snapshot.revision + 1
    async with secure_api.watch(f"?service=orders&since=e1:{next_revision}", headers=reader) as watch:
        await run_until_idle()
        assert not watch.start
        await revoke_token(secure_api.registry, "reader")
        assert b"rights of the caller have changed" in await watch.next_write()
        async with asyncio.timeout(5):
            await asyncio.shield(watch.task)


async def test_a_stream_ends_when_the_rights_of_its_caller_end_during_a_write(secure_api: NativeApi) -> None:
    reader, readable = bearer(await declare_token(secure_api.registry, "reader", "read:*")), asyncio.Event()
    state = {OPEN_CHUNKS: lambda: FakeChunks([])}  # Heartbeats don't wake the stream.
    async with secure_api.watch("?service=orders", headers=reader, state=state, readable=readable) as watch:
        await watch.next_write()
        await revoke_token(secure_api.registry, "reader")
        readable.set()
        while b"rights of the caller have changed" not in await watch.next_write():
            pass
        async with asyncio.timeout(5):
            await asyncio.shield(watch.task)


async def test_a_long_poll_ends_when_the_rights_of_its_caller_end(secure_api: NativeApi) -> None:
    reader = bearer(await declare_token(secure_api.registry, "reader", "read:*"))
    revision = secure_api.registry.snapshot.service("orders").revision
    waiting = asyncio.create_task(secure_api.request("GET", f"{ORDERS}?after={revision}&wait=60", headers=reader))
    await run_until_idle()
    assert len(secure_api.access.sessions) == 1
    await revoke_token(secure_api.registry, "reader")
    assert (await waiting).status == 401


async def test_an_acknowledgement_of_another_caller_is_for_no_watch(secure_api: NativeApi) -> None:
    readers = [bearer(await declare_token(secure_api.registry, f"r{n}", "read:*")) for n in range(2)]
    async with secure_api.watch("?service=orders&acks=true", headers=readers[0]) as watch:
        opened = (await watch.next_group())[0]
        path, body = f"/api/v1/watches/{opened.data['watch']}/acknowledge", {"revision": 1}
        answers = [await secure_api.request("POST", path, body, JSON | reader) for reader in reversed(readers)]
        assert [answer.status for answer in answers] == [404, 204]


async def test_a_drain_names_the_token_of_a_consumer_that_holds_it_up(secure_api: NativeApi) -> None:
    reader = bearer(await declare_token(secure_api.registry, "mute", "read:orders"))
    admin = JSON | bearer(await declare_token(secure_api.registry, "admin", "admin"))
    async with secure_api.watch("?service=orders&acks=true&name=shop", headers=reader) as watch:
        opened = (await watch.next_group())[0]
        path = f"/api/v1/watches/{opened.data['watch']}/acknowledge"
        revision = secure_api.registry.snapshot.revision
        assert (await secure_api.request("POST", path, {"revision": revision}, JSON | reader)).status == 204
        drained = asyncio.create_task(
            secure_api.request("PUT", f"{ORDERS}/instances/i1/override", {"status": "draining", "wait": 1}, admin)
        )
        await run_until_idle()
        await secure_api.clock.advance(1.5)
        (waiting,) = (await drained).json["waiting"]
        assert (waiting["name"], waiting["principal"]) == ("shop", "mute")


async def test_headers_of_checks_are_shown_to_their_owner_and_to_operators(secure_api: NativeApi) -> None:
    names = {"owner": "write:orders", "operator": "operate:orders", "reader": "read:orders", "writer": "write:orders"}
    callers = {name: bearer(await declare_token(secure_api.registry, name, scope)) for name, scope in names.items()}
    checks = [{"name": "c", "kind": "http", "headers": {"Authorization": "secret"}}]
    path = f"{ORDERS}/instances/checked"
    await secure_api.request("PUT", path, {"port": 1, "checks": checks}, JSON | callers["owner"])
    shown = {
        name: (await secure_api.request("GET", path, headers=headers)).json["checks"][0]["check"]["headers"]
        for name, headers in callers.items()
    }
    hidden = {"Authorization": "(hidden)"}
    assert shown == {
        "owner": checks[0]["headers"],
        "operator": checks[0]["headers"],
        "reader": hidden,
        "writer": hidden,
    }


async def test_a_route_takes_the_right_to_operate_both_ends(secure_api: NativeApi) -> None:
    operator = JSON | bearer(await declare_token(secure_api.registry, "operator", "operate:orders", "read:users"))
    admin = JSON | bearer(await declare_token(secure_api.registry, "admin", "admin"))

    async def declare(name: str, body: object, headers: dict[str, str] = operator) -> int:
        return (await secure_api.request("PUT", f"/api/v1/routes/{name}", body, headers)).status

    assert await declare("own", {"hosts": ["orders.example.com"], "to": [{"service": "orders"}]}) == 200
    assert await declare("target", {"hosts": ["orders.example.com"], "to": [{"service": "users"}]}) == 403
    assert await declare("host", {"hosts": ["users.localhost"], "to": [{"service": "orders"}]}) == 403
    assert await declare("every-host", {"to": [{"service": "orders"}]}) == 403
    assert await declare("wildcard", {"hosts": ["*.example.com"], "to": [{"service": "orders"}]}) == 403
    foreign = {"hosts": ["users.example.com"], "to": [{"service": "users"}]}
    assert await declare("foreign", foreign, admin) == 200
    assert await declare("foreign", {"hosts": ["orders.example.com"], "to": [{"service": "orders"}]}) == 403, (
        "it replaces another's"
    )
    assert (await secure_api.request("DELETE", "/api/v1/routes/foreign", headers=operator)).status == 403
    whole = await secure_api.request("PUT", "/api/v1/intent", {"routes": [], "upstreams": []}, operator)
    assert whole.status == 403
    assert (
        await declare("mixed", {"hosts": ["orders.x"], "to": [{"service": "orders"}, {"service": "secret"}]}, admin)
        == 200
    )
    listed = (await secure_api.request("GET", "/api/v1/routes", headers=operator)).json["routes"]
    assert [view["route"]["name"] for view in listed] == ["foreign", "own"], (
        "routes that name a hidden service are absent"
    )
    assert (await secure_api.request("GET", "/api/v1/routes/mixed", headers=operator)).status == 404
    withdrawn = [
        await secure_api.request("DELETE", f"/api/v1/routes/{name}", headers=operator) for name in ("mixed", "x")
    ]
    assert [answer.status for answer in withdrawn] == [200, 200], "nobody learns that a hidden route exists"
    assert (await secure_api.request("GET", "/api/v1/routes/mixed", headers=admin)).status == 200
    redirect = {"hosts": ["secret.x"], "redirect": {"host": "orders.x"}}
    assert await declare("redirect", redirect, admin) == 200
    assert (await secure_api.request("GET", "/api/v1/routes/redirect", headers=operator)).status == 404
    verdict = await secure_api.request("POST", "/api/v1/check-route", {"url": "http://orders.x/"}, operator)
    assert "secret" not in verdict.body.decode()


async def test_only_nodes_forward_requests(secure_api: NativeApi) -> None:
    writer = JSON | bearer(await declare_token(secure_api.registry, "writer", "operate:*"))
    body = {"leases": [{"service": "orders", "id": "i1"}]}
    forwarded = await secure_api.request("POST", "/api/v1/renew", body, writer | {"Adsum-Forwarded-To": ""})
    assert forwarded.status == 403
    assert (await secure_api.request("GET", f"{ORDERS}/unacknowledged?revision=1", headers=writer)).status == 403


async def test_repeated_wrong_secrets_from_one_address_are_slowed(secure_api: NativeApi) -> None:
    wrong = bearer(WRONG)
    for _ in range(10):
        await secure_api.request("GET", ORDERS, headers=wrong)
    slowed = asyncio.create_task(secure_api.request("GET", ORDERS, headers=wrong))
    await run_until_idle()
    assert not slowed.done()
    await secure_api.clock.advance(6.0)
    assert (await slowed).status == 401
