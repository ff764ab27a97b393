"""Tokens and invites over the native API."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from adsum.access.registry_addresses import RegistryAddresses
from adsum.core.access.join_line import parse_join_line
from adsum.core.access.scopes import NO_SCOPES
from adsum.core.access.tokens import parse_token
from adsum.core.catalog import declarations
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.documents import ACCESS_KINDS, DocumentKey, DocumentKind
from tests.dialects.native.native_api import JSON, ApiResult, NativeApi
from tests.support.fake_authority import FakeAuthority
from tests.support.tokens import bearer, declare_token

TOKENS, INVITES, CALLER = "/api/v1/tokens", "/api/v1/invites", "/api/v1/caller"
HISTORY = "/api/v1/intent/history"
DAY = 86_400.0


class SecureApi(NativeApi):
    """A registry where callers without a token may do nothing, and its administrator."""

    admin: dict[str, str]

    async def as_admin(self, method: str, target: str, body: object = None) -> ApiResult:
        """Sends a request with the token of the administrator."""
        return await self.request(method, target, body, self.admin | (JSON if body is not None else {}))

    async def create(self, name: str, *scopes: str, **fields: object) -> str:
        """Creates a token. Returns it as its holder keeps it."""
        created = await self.as_admin("POST", TOKENS, {"name": name, "scopes": scopes, **fields})
        assert created.status == 201, created.body
        text: str = created.json["token"]
        return text

    async def who(self, token: str) -> Any:
        """Returns the caller that the token proves, or the status of the refusal."""
        answer = await self.request("GET", CALLER, headers=bearer(token))
        return answer.json if answer.status == 200 else answer.status


@pytest.fixture
async def secure() -> AsyncIterator[SecureApi]:
    api = SecureApi(anonymous=NO_SCOPES, authority=FakeAuthority())
    await api.registry.start()
    api.access.start()
    api.admin = bearer(await declare_token(api.registry, "root", "admin"))
    yield api
    await api.access.stop()
    await api.registry.stop()


async def test_a_created_token_proves_its_name_and_scopes_and_is_shown_once(secure: SecureApi) -> None:
    body = {"name": "web", "scopes": ["write:orders", "read:*"], "lifetime": 3600, "reason": "for the shop"}
    created = await secure.as_admin("POST", TOKENS, body)
    assert (created.status, created.headers["cache-control"]) == (201, "no-store")
    assert created.json["view"] == {
        "name": "web",
        "scopes": ["read:*", "write:orders"],
        "expires": secure.clock.wall() + 3600,
        "created": secure.clock.wall(),
        "secrets": 1,
        "created_by": "root",
    }
    who = await secure.who(created.json["token"])
    assert who == {
        "name": "web",
        "method": "token",
        "scopes": ["read:*", "write:orders"],
        "address": "10.1.2.3",
        "expires": secure.clock.wall() + 3600,
    }
    read = await secure.as_admin("GET", f"{TOKENS}/web")
    assert read.json == created.json["view"] | {"used": secure.clock.wall()}
    listed = await secure.as_admin("GET", TOKENS)
    assert [view["name"] for view in listed.json["tokens"]] == ["root", "web"]
    assert parse_token(created.json["token"]).secret.encode() not in read.body + listed.body


@pytest.mark.parametrize(
    ("path", "body"), [(TOKENS, {"name": "web", "scopes": ["read:*"]}), (INVITES, {"role": "client"})]
)
async def test_a_reason_with_control_characters_is_refused(
    secure: SecureApi, path: str, body: dict[str, object]
) -> None:
    revision = secure.registry.snapshot.revision
    refused = await secure.as_admin("POST", path, body | {"reason": "\x1b[2J"})
    assert (refused.status, refused.json["field"]) == (422, "reason")
    assert secure.registry.snapshot.revision == revision
    assert (await secure.as_admin("POST", path, body | {"reason": "für später"})).status == 201


async def test_no_secret_and_no_hash_is_in_documents_histories_or_logs(
    secure: SecureApi, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = await secure.create("web", "read:*")
    rotated = await secure.as_admin("POST", f"{TOKENS}/web/rotate", {})
    line = (await secure.as_admin("POST", INVITES, {"role": "client"})).json["line"]
    await secure.request("GET", TOKENS, headers=bearer(token))
    secrets = [parse_token(token).secret, parse_token(rotated.json["token"]).secret, parse_join_line(line).secret]
    histories = [await secure.as_admin("GET", f"{HISTORY}?document={kind.value}") for kind in ACCESS_KINDS]
    shown = b"".join(history.body for history in histories).decode() + caplog.text
    stored = b"".join(
        document.body for kind in ACCESS_KINDS for document in secure.registry.snapshot.documents.of_kind(kind)
    ).decode()
    for secret in secrets:
        assert secret not in shown + stored
        assert hashlib.sha256(secret.encode()).hexdigest() not in shown
    assert [edit["name"] for edit in histories[0].json["edits"]] == ["web", "web", "root"]
    assert histories[0].json["edits"][0]["omitted"] == ["secrets"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"name": "registry", "scopes": []}, 422, "name"),
        ({"name": "admin@n1", "scopes": []}, 422, "name"),
        ({"name": "gateway@n1", "scopes": []}, 422, "name"),
        ({"name": "a b", "scopes": []}, 422, "name"),
        ({"name": "x" * 64, "scopes": []}, 422, "name"),
        ({"name": "web", "scopes": ["read"]}, 422, "scopes[0]"),
        ({"name": "web", "scopes": ["read:*", "write:Orders"]}, 422, "scopes[1]"),
        ({"name": "web", "scopes": ["admin:*"]}, 422, "scopes[0]"),
        ({"name": "web", "scopes": ["read:a"] * 65}, 422, "scopes"),
        ({"name": "web", "scopes": [], "lifetime": 0}, 422, "lifetime"),
        ({"name": "web"}, 422, "scopes"),
        ({"name": "web", "scopes": [], "secret": "x"}, 422, "secret"),
        ({"name": "root", "scopes": []}, 409, ""),
    ],
)
async def test_a_wrong_token_is_refused_with_its_field_and_changes_nothing(
    secure: SecureApi, body: object, status: int, field: str
) -> None:
    revision = secure.registry.snapshot.revision
    refused = await secure.as_admin("POST", TOKENS, body)
    assert (refused.status, refused.json.get("field", "")) == (status, field)
    assert secure.registry.snapshot.revision == revision


async def test_the_name_of_an_expired_token_is_free(secure: SecureApi) -> None:
    old = await secure.create("web", "read:*", lifetime=60)
    await secure.clock.advance(60)
    assert await secure.who(old) == 401
    new = await secure.create("web", "read:*")
    assert (await secure.who(new))["name"] == "web"
    assert await secure.who(old) == 401


async def test_a_rotated_token_has_two_secrets_until_the_overlap_ends(secure: SecureApi) -> None:
    old = await secure.create("web", "read:orders")
    rotated = await secure.as_admin("POST", f"{TOKENS}/web/rotate", {"overlap": 60})
    assert (rotated.status, rotated.json["view"]["secrets"], rotated.headers["cache-control"]) == (200, 2, "no-store")
    new = rotated.json["token"]
    assert (parse_token(new).id, parse_token(new).secret != parse_token(old).secret) == (parse_token(old).id, True)
    assert (await secure.who(old))["name"] == (await secure.who(new))["name"] == "web"
    await secure.clock.advance(60)
    assert (await secure.who(old), (await secure.who(new))["scopes"]) == (401, ["read:orders"])
    assert (await secure.as_admin("GET", f"{TOKENS}/web")).json["secrets"] == 1
    await secure.as_admin("POST", f"{TOKENS}/web/rotate", {"overlap": 0})
    assert await secure.who(new) == 401


async def test_a_revoked_token_proves_nothing_and_revoking_is_idempotent(secure: SecureApi) -> None:
    token = await secure.create("web", "read:*")
    async with secure.watch(headers=bearer(token)) as watch:
        await watch.next_group()
        for _ in range(2):
            gone = await secure.as_admin("DELETE", f"{TOKENS}/web?reason=leaked")
            assert gone.status == 200
        async with asyncio.timeout(10):
            await watch.task
    assert await secure.who(token) == 401
    assert (await secure.as_admin("GET", f"{TOKENS}/web")).status == 404
    assert (await secure.as_admin("POST", f"{TOKENS}/web/rotate", {})).status == 404
    newest = (await secure.as_admin("GET", f"{HISTORY}?document=token&name=web")).json["edits"][0]
    assert (newest["edit"], newest["reason"], newest["actor"]) == ("withdrawn", "leaked", "root")


async def test_the_last_token_with_admin_may_be_revoked(secure: SecureApi) -> None:
    assert (await secure.as_admin("DELETE", f"{TOKENS}/root")).status == 200
    assert (await secure.as_admin("GET", TOKENS)).status == 401


async def test_the_token_anonymous_has_no_secret_and_gives_scopes_to_callers_without_one(secure: SecureApi) -> None:
    assert (await secure.request("GET", "/api/v1/services")).status == 401
    assert await secure.create("anonymous", "read:orders") == ""
    assert (await secure.request("GET", CALLER)).json == {
        "name": "anonymous",
        "method": "none",
        "scopes": ["read:orders"],
        "address": "10.1.2.3",
    }
    assert (await secure.request("GET", "/api/v1/services")).status == 200
    assert await secure.create("anonymous", "read:*") == "", "its scopes are replaced"
    assert (await secure.request("GET", CALLER)).json["scopes"] == ["read:*"]
    refused = await secure.as_admin("POST", f"{TOKENS}/anonymous/rotate", {})
    assert (refused.status, refused.json["field"]) == (422, "token")
    assert "secrets" not in (await secure.as_admin("GET", f"{TOKENS}/anonymous")).json
    await secure.as_admin("DELETE", f"{TOKENS}/anonymous")
    assert (await secure.request("GET", "/api/v1/services")).status == 401


OPERATIONS: list[tuple[str, str, object]] = [
    ("GET", TOKENS, None),
    ("POST", TOKENS, {"name": "web", "scopes": ["read:*"]}),
    ("GET", f"{TOKENS}/root", None),
    ("DELETE", f"{TOKENS}/root", None),
    ("POST", f"{TOKENS}/root/rotate", {}),
    ("GET", INVITES, None),
    ("POST", INVITES, {"role": "client"}),
    ("DELETE", f"{INVITES}/{'0' * 16}", None),
    ("GET", f"{HISTORY}?document=token", None),
    ("GET", f"{HISTORY}?document=invite", None),
]


@pytest.mark.parametrize(("method", "path", "body"), OPERATIONS)
async def test_only_admin_manages_tokens_and_invites(secure: SecureApi, method: str, path: str, body: object) -> None:
    token = await declare_token(secure.registry, "operator", "operate:*", "node")
    revision = secure.registry.snapshot.revision
    assert (await secure.request(method, path, body, JSON | bearer(token))).status == 403
    assert (await secure.request(method, path, body, JSON)).status == 401
    assert secure.registry.snapshot.revision == revision
    assert (await secure.as_admin(method, path, body)).status in (200, 201)


async def test_edits_of_tokens_are_not_among_those_of_routes(secure: SecureApi) -> None:
    assert (await secure.as_admin("GET", HISTORY)).json["edits"] == []


async def test_an_unreadable_token_is_listed_and_can_be_revoked(secure: SecureApi) -> None:
    key = DocumentKey(DocumentKind.TOKEN, "later")
    await secure.registry.write(declarations.declare(key, b'{"id":"1","scopes":["fly:*"]}', Caller("later", 0.0)))
    views = {view["name"]: view["scopes"] for view in (await secure.as_admin("GET", TOKENS)).json["tokens"]}
    assert views == {"later": [], "root": ["admin"]}
    refused = await secure.as_admin("POST", f"{TOKENS}/later/rotate", {})
    assert (refused.status, "revoke it" in refused.json["detail"]) == (422, True)
    assert (await secure.as_admin("POST", TOKENS, {"name": "later", "scopes": []})).status == 409
    assert (await secure.as_admin("DELETE", f"{TOKENS}/later")).status == 200
    assert [view["name"] for view in (await secure.as_admin("GET", TOKENS)).json["tokens"]] == ["root"]


async def test_two_tokens_of_one_name_at_the_same_time_make_one(secure: SecureApi) -> None:
    body = {"name": "web", "scopes": ["read:*"]}
    answers = await asyncio.gather(*(secure.as_admin("POST", TOKENS, body) for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409, 409]
    (winner,) = [answer.json["token"] for answer in answers if answer.status == 201]
    assert (await secure.who(winner))["name"] == "web"


@pytest.mark.parametrize(
    ("role", "scopes", "lifetime", "single"),
    [
        ("client", ["read:*", "write:*"], 7 * DAY, False),
        ("gateway", ["read:*"], 3600.0, True),
        ("node", ["node", "read:*"], 3600.0, True),
    ],
)
async def test_an_invite_is_a_line_with_the_nodes_and_the_hash_of_the_authority(
    secure: SecureApi, role: str, scopes: list[str], lifetime: float, single: bool
) -> None:
    created = await secure.as_admin("POST", INVITES, {"role": role, "reason": "for the fleet"})
    assert (created.status, created.headers["cache-control"]) == (201, "no-store")
    issued = created.json
    line = parse_join_line(issued.pop("line"))
    assert (line.nodes, line.authority_hash) == (("10.0.0.5:23786", "[fd00::1]:23786"), "a" * 64)
    expires = secure.clock.wall() + lifetime
    assert issued == {"role": role, "scopes": scopes, "expires": expires, "single_use": single}
    listed = await secure.as_admin("GET", INVITES)
    assert listed.json["invites"] == [
        {
            "id": line.invite_id,
            "role": role,
            "scopes": scopes,
            "expires": expires,
            "created": secure.clock.wall(),
            "created_by": "root",
        }
        | ({"uses_left": 1} if single else {})
    ]
    assert line.secret.encode() not in listed.body


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"role": "plain"}, "role"),
        ({"role": "client", "scopes": ["read"]}, "scopes[0]"),
        ({"role": "client", "lifetime": 91 * DAY}, "lifetime"),
    ],
)
async def test_a_wrong_invite_is_refused_with_its_field(secure: SecureApi, body: object, field: str) -> None:
    refused = await secure.as_admin("POST", INVITES, body)
    assert (refused.status, refused.json["field"]) == (422, field)
    assert (await secure.as_admin("GET", INVITES)).json["invites"] == []


@pytest.mark.parametrize(
    ("authority", "urls", "cause"),
    [
        (None, ["https://10.0.0.5:1"], "--secure"),
        (FakeAuthority(hash=""), ["https://10.0.0.5:1"], "--secure"),
        (FakeAuthority(), ["http://10.0.0.5:1"], "--advertise"),
        (FakeAuthority(), [], "--advertise"),
    ],
)
async def test_a_registry_that_no_joiner_could_recognize_makes_no_invite(
    authority: FakeAuthority | None, urls: list[str], cause: str
) -> None:
    api = NativeApi(authority=authority)
    await api.registry.start()
    api.addresses = RegistryAddresses(urls)
    refused = await api.request("POST", INVITES, {"role": "client"})
    assert (refused.status, cause in refused.json["detail"]) == (409, True)
    assert len(api.registry.snapshot.documents) == 0
    await api.registry.stop()


async def test_tokens_work_on_an_open_registry_where_everybody_may_create_them(api: NativeApi) -> None:
    created = await api.request("POST", TOKENS, {"name": "web", "scopes": ["read:orders"]})
    assert (created.status, created.json["view"]["created_by"]) == (201, "anonymous@10.1.2.3")
    refused = await api.request("GET", "/api/v1/services/users", headers=bearer(created.json["token"]))
    assert refused.status == 404


async def test_callers_without_a_proof_can_not_take_admin_from_everybody(api: NativeApi) -> None:
    body = {"name": "anonymous", "scopes": ["read:*"]}
    refused = await api.request("POST", TOKENS, body)
    assert (refused.status, refused.json["field"]) == (422, "scopes")
    assert (await api.request("POST", TOKENS, body | {"scopes": ["admin"], "lifetime": 60})).status == 422
    assert (await api.request("POST", TOKENS, body | {"scopes": ["admin"]})).status == 201
    short = await api.request("POST", TOKENS, {"name": "short", "scopes": ["admin"], "lifetime": 60})
    await api.clock.advance(60)
    assert (await api.request("POST", TOKENS, body)).status == 422, "the other token with admin has expired"
    admin = await api.request("POST", TOKENS, {"name": "root", "scopes": ["admin"]})
    assert (await api.request("POST", TOKENS, body)).status == 201
    assert (await api.request("GET", TOKENS)).status == 401
    assert (await api.request("GET", TOKENS, headers=bearer(admin.json["token"]))).status == 200
    assert (await api.request("GET", TOKENS, headers=bearer(short.json["token"]))).status == 401
