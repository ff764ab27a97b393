"""Hosts that join over the native API, and their certificates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from adsum.access.control import CertificateVerifier
from adsum.core.access.invites import REFUSED
from adsum.core.access.join_line import JoinLine, parse_join_line
from adsum.core.access.principal import Principal
from adsum.core.access.scopes import NO_SCOPES, parse_scopes
from adsum.core.access.tokens import TokenRole, parse_token
from adsum.core.catalog.documents import DocumentKind
from adsum.dialects.native.requests.api_request import ApiRequest
from adsum.wire.tokens import IssuedInvite, IssuedToken, JoinBody, JoinResult, TokenView
from tests.dialects.native.native_api import JSON, ApiResult
from tests.dialects.native.operations.test_tokens import CALLER, DAY, HISTORY, INVITES, TOKENS, SecureApi
from tests.support.fake_authority import FakeAuthority
from tests.support.fakes import run_until_idle
from tests.support.tokens import bearer, declare_token

JOIN, CERTIFICATE, AUTHORITY = "/api/v1/join", "/api/v1/certificate", "/api/v1/authority"


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture
async def secure(authority: FakeAuthority) -> AsyncIterator[SecureApi]:
    """A running registry where callers without a token may do nothing."""
    api = SecureApi(anonymous=NO_SCOPES, authority=authority)
    await api.registry.start()
    api.access.start()
    api.admin = bearer(await declare_token(api.registry, "root", "admin"))
    yield api
    await api.access.stop()
    await api.registry.stop()


async def invite(api: SecureApi, role: str = "client", **fields: object) -> JoinLine:
    """Makes an invite."""
    created = await api.as_admin("POST", INVITES, {"role": role, **fields})
    assert created.status == 201, created.body
    return parse_join_line(created.json["line"])


async def join(api: SecureApi, line: JoinLine, name: str = "host-1", **fields: object) -> ApiResult:
    """Joins by an invite, without a token."""
    body = {"invite": line.invite_id, "secret": line.secret, "name": name, **fields}
    return await api.request("POST", JOIN, body)


def tokens(api: SecureApi) -> list[str]:
    """Returns the names of all tokens but the administrator's."""
    return [document.key.name for document in api.registry.snapshot.documents.of_kind(DocumentKind.TOKEN)][:-1]


async def test_a_host_that_joins_gets_a_token_a_certificate_and_the_addresses(
    secure: SecureApi, authority: FakeAuthority
) -> None:
    line = await invite(secure, "gateway", scopes=["read:team-a-*"])
    joined = await join(secure, line, "edge-1", certificate_request="CSR")
    assert (joined.status, joined.headers["cache-control"]) == (201, "no-store")
    result = joined.json
    token = result.pop("token")
    id = parse_token(token).id
    assert result == {
        "name": "edge-1",
        "role": "gateway",
        "scopes": ["read:team-a-*"],
        "authority": "AUTHORITY",
        "urls": ["https://10.0.0.5:23786", "https://[fd00::1]:23786"],
        "xds": ["10.0.0.5:23787"],
        "certificate": f"CERTIFICATE edge-1 {id} gateway",
    }
    assert authority.signed == [("edge-1", id, TokenRole.GATEWAY)]
    assert (await secure.who(token))["scopes"] == ["read:team-a-*"]
    view = (await secure.as_admin("GET", f"{TOKENS}/edge-1")).json
    assert (view["role"], view["created_by"]) == ("gateway", f"invite:{line.invite_id}")
    edit = (await secure.as_admin("GET", f"{HISTORY}?document=token&name=edge-1")).json["edits"][0]
    assert (edit["actor"], edit["reason"]) == (f"invite:{line.invite_id}", f"joined by the invite {line.invite_id}")


@pytest.mark.parametrize("role", ["gateway", "node"])
async def test_a_single_use_invite_makes_one_token_however_many_hosts_use_it_at_once(
    secure: SecureApi, role: str
) -> None:
    line = await invite(secure, role)
    secure.store.gate.clear()
    joins = asyncio.gather(*(join(secure, line, f"host-{n}") for n in range(8)))
    await run_until_idle()
    secure.store.gate.set()
    answers = await joins
    assert sorted(answer.status for answer in answers) == [201] + [401] * 7
    (winner,) = [answer.json["name"] for answer in answers if answer.status == 201]
    assert tokens(secure) == [winner]
    assert (await secure.as_admin("GET", INVITES)).json["invites"] == []
    assert (await join(secure, line, "late")).json["detail"] == REFUSED


async def test_the_token_and_the_end_of_the_invite_are_one_batch(secure: SecureApi) -> None:
    line = await invite(secure, "node")
    revision = secure.registry.snapshot.revision
    assert (await join(secure, line)).status == 201
    assert secure.registry.snapshot.revision == revision + 1
    (edit,) = await secure.registry.edits([DocumentKind.INVITE], line.invite_id, 1)
    assert edit.revision == revision + 1


async def test_a_join_that_the_store_refuses_leaves_the_invite(secure: SecureApi) -> None:
    line = await invite(secure, "node")
    secure.store.is_unavailable = True
    assert (await join(secure, line)).status == 503
    secure.store.is_unavailable = False
    assert tokens(secure) == []
    assert (await join(secure, line)).status == 201


async def test_an_invite_of_clients_joins_many_hosts_until_it_expires_or_is_revoked(secure: SecureApi) -> None:
    line = await invite(secure)
    assert [(await join(secure, line, f"host-{n}")).status for n in range(3)] == [201] * 3
    await secure.clock.advance(7 * DAY)
    assert (await join(secure, line, "late")).json["detail"] == REFUSED
    line = await invite(secure)
    for _ in range(2):
        assert (await secure.as_admin("DELETE", f"{INVITES}/{line.invite_id}?reason=leaked")).status == 200
    assert (await join(secure, line, "late")).json["detail"] == REFUSED
    assert tokens(secure) == ["host-0", "host-1", "host-2"]


async def test_every_wrong_invite_gets_the_same_answer(secure: SecureApi) -> None:
    good, expired, used = await invite(secure), await invite(secure, lifetime=1), await invite(secure, "node")
    assert (await join(secure, used, "node-1")).status == 201
    await secure.clock.advance(2)
    wrong, unknown = replace(good, secret="x" * 43), replace(good, invite_id="0" * 16)
    answers = [await join(secure, line, "host-1") for line in (wrong, unknown, expired, used)]
    assert {(answer.status, answer.json["detail"], answer.headers["www-authenticate"]) for answer in answers} == {
        (401, REFUSED, 'Bearer realm="adsum"')
    }
    assert [operation for operation, _ in secure.refusals] == ["join"] * 4
    # A name that is taken is no oracle for callers without an invite.
    assert (await join(secure, wrong, "root")).json["detail"] == REFUSED
    assert tokens(secure) == ["node-1"]


async def test_repeated_wrong_invites_of_one_address_are_slowed(secure: SecureApi) -> None:
    wrong = replace(await invite(secure), secret="x" * 43)
    for _ in range(10):
        assert (await join(secure, wrong)).status == 401
    slowed = asyncio.create_task(join(secure, wrong))
    await run_until_idle()
    assert not slowed.done()
    assert (await join(secure, await invite(secure))).status == 201, "the right secret is not slowed"
    await secure.clock.advance(5)
    assert (await slowed).status == 401


async def test_a_taken_name_is_refused_and_leaves_the_invite(secure: SecureApi) -> None:
    assert (await join(secure, await invite(secure, "node"), "host-1")).status == 201
    line = await invite(secure, "node")
    refused = await join(secure, line, "host-1", certificate_request="CSR")
    assert refused.status == 409
    assert "adsum token revoke host-1" in refused.json["detail"]
    assert (await secure.as_admin("DELETE", f"{TOKENS}/host-1")).status == 200
    assert (await join(secure, line, "host-1")).status == 201


@pytest.mark.parametrize("name", ["anonymous", "etcd-naming", "registry", "admin@n1", "a b", ""])
async def test_a_joiner_can_not_take_a_name_with_a_meaning(secure: SecureApi, name: str) -> None:
    refused = await join(secure, await invite(secure), name)
    assert (refused.status, refused.json["field"]) == (422, "name")
    assert tokens(secure) == []


async def test_a_malformed_request_for_a_certificate_leaves_the_invite(secure: SecureApi) -> None:
    line = await invite(secure, "node")
    refused = await join(secure, line, certificate_request="bad")
    assert (refused.status, refused.json["field"]) == (422, "certificate_request")
    assert "certificate" not in (await join(secure, line)).json


async def test_a_caller_without_an_invite_has_nothing_signed(secure: SecureApi, authority: FakeAuthority) -> None:
    wrong = replace(await invite(secure), secret="x" * 43)
    await join(secure, wrong, certificate_request="CSR")
    await join(secure, await invite(secure), "root", certificate_request="CSR")
    assert authority.signed == []


async def test_a_node_without_the_key_says_which_node_has_it_and_leaves_the_invite(
    secure: SecureApi, authority: FakeAuthority
) -> None:
    line = await invite(secure, "node")
    authority.issues = False
    refused = await join(secure, line, certificate_request="CSR")
    assert (refused.status, "the node that has it" in refused.json["detail"]) == (503, True)
    assert (await secure.request("GET", AUTHORITY)).json == {"certificate": "AUTHORITY"}
    authority.issues = True
    assert (await join(secure, line, certificate_request="CSR")).status == 201


async def test_a_registry_with_certificates_of_its_operator_gives_a_token_alone(
    secure: SecureApi, authority: FakeAuthority
) -> None:
    line = await invite(secure)
    authority.issues, authority.is_external = False, True
    joined = await join(secure, line, certificate_request="CSR")
    assert (joined.status, joined.json["authority"], "certificate" in joined.json) == (201, "AUTHORITY", False)
    refused = await secure.request(
        "POST", CERTIFICATE, {"certificate_request": "CSR"}, JSON | bearer(joined.json["token"])
    )
    assert refused.status == 409


async def test_a_token_gets_certificates_of_its_name_and_role_and_nothing_else(
    secure: SecureApi, authority: FakeAuthority
) -> None:
    joined = (await join(secure, await invite(secure, "gateway"), "edge-1")).json["token"]
    plain = await secure.create("tool", "read:orders")
    for token in (joined, plain):
        renewed = await secure.request("POST", CERTIFICATE, {"certificate_request": "CSR"}, JSON | bearer(token))
        assert renewed.status == 200
        assert renewed.json["authority"] == "AUTHORITY"
    assert authority.signed == [
        ("edge-1", parse_token(joined).id, TokenRole.GATEWAY),
        ("tool", parse_token(plain).id, TokenRole.CLIENT),
    ]
    bad = await secure.request("POST", CERTIFICATE, {"certificate_request": "bad"}, JSON | bearer(plain))
    assert (bad.status, bad.json["field"]) == (422, "certificate_request")
    assert (await secure.request("POST", CERTIFICATE, {"certificate_request": "CSR"})).status == 401


class OneCertificate:
    """Takes every certificate for the token `edge`."""

    def identify(self, certificate: bytes) -> Principal:
        return Principal("edge", parse_scopes("scopes", ["read:*"]), token_id="0" * 16, method="certificate")


async def test_a_certificate_identifies_its_holder_and_can_not_renew_itself(secure: SecureApi) -> None:
    verifier: CertificateVerifier = OneCertificate()
    secure.access.certificates = verifier
    answer = await secure.request("GET", CALLER, certificate=b"DER")
    assert (answer.json["name"], answer.json["method"]) == ("edge", "certificate")
    refused = await secure.request("POST", CERTIFICATE, {"certificate_request": "CSR"}, JSON, certificate=b"DER")
    assert (refused.status, "Bearer" in refused.json["detail"]) == (403, True)


async def test_the_authority_is_shown_to_everybody(secure: SecureApi) -> None:
    shown = await secure.request("GET", AUTHORITY, headers=bearer("adsum_wrong"))
    assert (shown.status, shown.json) == (200, {"certificate": "AUTHORITY", "issues": True})


def test_no_value_with_a_secret_shows_it() -> None:
    view = TokenView("web", ["read:*"])
    secret = "s" * 43
    values = [
        IssuedToken(secret, view),
        IssuedInvite(secret, TokenRole.CLIENT, ["read:*"], 1.0, single_use=False),
        JoinBody("0" * 16, secret, "web"),
        JoinResult("web", TokenRole.CLIENT, secret, ["read:*"], "", []),
        JoinLine(("a:1",), "0" * 16, secret, "a" * 64),
    ]
    assert [value for value in values if secret in repr(value)] == []
    assert ApiRequest.__repr__ is object.__repr__
