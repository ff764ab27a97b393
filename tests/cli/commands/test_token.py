"""`adsum token` and `adsum whoami` against a registry that knows one token."""

from __future__ import annotations

import asyncio
import json
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from adsum.certificates.authority import Authority
from adsum.client.credentials.folder import CredentialsFolder, RegistryCredentials
from adsum.core.access.join_line import JoinLine
from tests.cli.conftest import Adsum
from tests.client.secure_node import OTHER_TOKEN, TOKEN, SecureNode, problem, secure_node

DAY = 86_400.0
LINE = str(JoinLine(["10.0.0.5:23786"], "ab" * 8, "s" * 43, "ab" * 32))


def view(name: str = "ci", **fields: Any) -> dict[str, Any]:
    return {"name": name, "scopes": ["write:orders"], "role": "plain", "secrets": 1, **fields}


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SecureNode]:
    """A registry that this host has joined."""
    authority = Authority.create(time.time())
    async with secure_node(authority, tmp_path) as node:
        credentials = RegistryCredentials(
            (node.url,),
            name="admin",
            authority=authority.certificate_pem().decode(),
            authority_hash=authority.hash,
            token=TOKEN,
        )
        CredentialsFolder(tmp_path / "joined").write(credentials)
        monkeypatch.setenv("ADSUM_CREDENTIALS", str(tmp_path / "joined"))
        yield node


async def run(adsum: Adsum, *args: str) -> Any:
    return await asyncio.to_thread(adsum, *args)


def body_of(node: SecureNode) -> Any:
    return json.loads(node.bodies[-1])


async def test_a_created_token_is_printed_once_and_alone(node: SecureNode, adsum: Adsum) -> None:
    expires = time.time() + 90 * DAY
    node.answers["POST /api/v1/tokens"] = lambda _: (201, {"token": OTHER_TOKEN, "view": view(expires=expires)})
    result = await run(adsum, "token", "create", "ci", "--scope", "write:orders", "--lifetime", "90d")
    assert (result.code, result.out) == (0, f"{OTHER_TOKEN}\n")
    assert result.err == "ci: write:orders; expires in 90 d; the secret is not shown again\n"
    assert body_of(node) == {"name": "ci", "scopes": ["write:orders"], "lifetime": 90 * DAY}


async def test_a_created_token_goes_into_a_new_private_file(node: SecureNode, adsum: Adsum, tmp_path: Path) -> None:
    node.answers["POST /api/v1/tokens"] = lambda _: (201, {"token": OTHER_TOKEN, "view": view()})
    file = tmp_path / "ci-token"
    result = await run(adsum, "token", "create", "ci", "--scope", "write:orders", "--output", str(file))
    assert (result.code, result.out) == (0, "")
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == (f"{OTHER_TOKEN}\n", 0o600)
    assert OTHER_TOKEN not in result.err
    before = len(node.requests)
    again = await run(adsum, "token", "create", "ci", "--scope", "write:orders", "--output", str(file))
    assert again.code == 2
    assert f"--output: {file} exists" in again.err
    assert len(node.requests) == before


async def test_no_token_is_created_without_a_file_for_it(node: SecureNode, adsum: Adsum, tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "ci-token"
    result = await run(adsum, "token", "create", "ci", "--scope", "read:*", "--output", str(path))
    assert (result.code, result.out, node.requests) == (2, "", [])
    assert result.err == f"adsum: --output: {path} can't be made: No such file or directory; name another file\n"


async def test_a_secret_goes_into_the_file_that_was_made_and_into_no_other(
    node: SecureNode, adsum: Adsum, tmp_path: Path
) -> None:
    path, other = tmp_path / "ci-token", tmp_path / "other"
    other.write_text("")

    def issue(_: bytes) -> tuple[int, Any]:
        path.unlink()
        path.symlink_to(other)
        return 201, {"token": OTHER_TOKEN, "view": view()}

    node.answers["POST /api/v1/tokens"] = issue
    await run(adsum, "token", "create", "ci", "--scope", "read:*", "--output", str(path))
    assert other.read_text() == ""


async def test_no_file_is_left_when_the_token_is_not_created(node: SecureNode, adsum: Adsum, tmp_path: Path) -> None:
    node.answers["POST /api/v1/tokens"] = lambda _: (409, problem(409, "a token ci exists"))
    file = tmp_path / "ci-token"
    result = await run(adsum, "token", "create", "ci", "--scope", "write:orders", "--output", str(file))
    assert result.code == 1
    assert "the registry refused (409): a token ci exists" in result.err
    assert not file.exists()


async def test_anonymous_has_no_secret_to_print(node: SecureNode, adsum: Adsum) -> None:
    node.answers["POST /api/v1/tokens"] = lambda _: (201, {"token": "", "view": view("anonymous")})
    result = await run(adsum, "token", "create", "anonymous", "--scope", "read:*")
    assert (result.code, result.out) == (0, "")
    assert "anonymous has no secret: its scopes are those of callers that send no token" in result.err


@pytest.mark.parametrize("scope", ["orders", "read:Orders", "admin:*", "write:"])
def test_a_wrong_scope_is_refused_before_anything_is_sent(adsum: Adsum, scope: str) -> None:
    result = adsum("token", "create", "ci", "--scope", scope)
    assert result.code == 2
    assert "--scope" in result.err


async def test_tokens_are_listed_with_expiry_and_last_use(node: SecureNode, adsum: Adsum) -> None:
    now = time.time()
    tokens = [view(), view("web1", role="client", expires=now + 3 * DAY, used=now - 600.0, created_by="admin")]
    node.answers["GET /api/v1/tokens"] = lambda _: (200, {"tokens": tokens})
    lines = (await run(adsum, "token", "ls")).out.splitlines()
    assert lines[0].split("  ")[0] == "NAME"
    assert [cell.strip() for cell in lines[1].split("  ") if cell] == ["ci", "write:orders", "plain", "never", "never"]
    assert [cell.strip() for cell in lines[2].split("  ") if cell] == [
        "web1",
        "write:orders",
        "client",
        "in 3 d",
        "10 min ago",
        "admin",
    ]
    assert json.loads((await run(adsum, "token", "ls", "--json")).out)["tokens"][0]["name"] == "ci"


async def test_a_token_is_shown_and_an_unknown_one_is_not_found(node: SecureNode, adsum: Adsum) -> None:
    node.answers["GET /api/v1/tokens/ci"] = lambda _: (200, view(created=time.time() - 60.0, created_by="admin"))
    result = await run(adsum, "token", "show", "ci")
    assert "created        60 s ago by admin" in result.out
    missing = await run(adsum, "token", "show", "other")
    assert missing.code == 3
    assert "no token 'other'; `adsum token ls` lists them" in missing.err


async def test_a_rotated_token_is_printed_and_a_revoked_one_is_named(node: SecureNode, adsum: Adsum) -> None:
    node.answers["POST /api/v1/tokens/ci/rotate"] = lambda _: (200, {"token": OTHER_TOKEN, "view": view(secrets=2)})
    node.answers["DELETE /api/v1/tokens/ci"] = lambda _: (200, {"epoch": "e", "revision": 9})
    assert (await run(adsum, "token", "rotate", "ci")).out == f"{OTHER_TOKEN}\n"
    assert body_of(node) == {"overlap": DAY}
    await run(adsum, "token", "rotate", "ci", "--overlap", "0")
    assert body_of(node) == {"overlap": 0.0}
    node.answers["GET /api/v1/tokens/ci"] = lambda _: (200, view())
    assert (await run(adsum, "token", "revoke", "ci")).err == "the token ci is revoked\n"
    unreadable = {**problem(422, "token: the record of ci can't be read"), "field": "token"}
    node.answers["GET /api/v1/tokens/ci"] = lambda _: (422, unreadable)
    assert (await run(adsum, "token", "revoke", "ci")).err == "the token ci is revoked\n"


async def test_a_revocation_under_a_wrong_name_says_that_nothing_is_revoked(node: SecureNode, adsum: Adsum) -> None:
    node.answers["DELETE /api/v1/tokens/cli"] = lambda _: (200, {"epoch": "e", "revision": 9})
    result = await run(adsum, "token", "revoke", "cli")
    assert result.code == 0
    assert result.err == "there is no token cli, so nothing is revoked; `adsum token ls` lists them\n"


def test_the_lifetime_of_an_invite_is_bounded_before_anything_is_sent(adsum: Adsum) -> None:
    result = adsum("token", "invite", "--for", "client", "--lifetime", "91d")
    assert result.code == 2
    assert "Invalid value for '--lifetime': must be from 1 s to 90 d, not 91d" in result.err


async def test_an_invite_prints_the_line_alone(node: SecureNode, adsum: Adsum) -> None:
    invite = {
        "line": LINE,
        "role": "node",
        "scopes": ["node", "read:*"],
        "expires": time.time() + 3_600.0,
        "single_use": True,
    }
    node.answers["POST /api/v1/invites"] = lambda _: (201, invite)
    result = await run(adsum, "token", "invite", "--for", "node")
    assert (result.code, result.out) == (0, f"{LINE}\n")
    assert "it joins one host with the scopes node read:*, and expires in 1 h" in result.err
    assert body_of(node) == {"role": "node"}


async def test_a_hostile_answer_does_not_reach_the_terminal(node: SecureNode, adsum: Adsum) -> None:
    node.answers["POST /api/v1/tokens"] = lambda _: (201, {"token": "\x1b[2Jadsum_", "view": view()})
    invite = {"line": "\x1b[2J", "role": "node", "scopes": [], "expires": 0.0, "single_use": True}
    node.answers["POST /api/v1/invites"] = lambda _: (201, invite)
    for args in (["create", "ci", "--scope", "read:*"], ["invite", "--for", "node"]):
        result = await run(adsum, "token", *args)
        assert (result.code, result.out) == (69, "")
        assert "\x1b" not in result.err


async def test_whoami_shows_name_method_and_scopes(node: SecureNode, adsum: Adsum) -> None:
    caller = {"name": "admin", "method": "token", "scopes": ["admin"], "address": "127.0.0.1"}
    node.answers["GET /api/v1/caller"] = lambda _: (200, caller)
    result = await run(adsum, "whoami")
    assert [line.split() for line in result.out.splitlines()] == [
        ["name", "admin"],
        ["method", "token"],
        ["scopes", "admin"],
        ["address", "127.0.0.1"],
        ["expires", "never"],
        ["registry", node.url],
    ]
    assert json.loads((await run(adsum, "whoami", "--json")).out) == caller


async def test_an_unknown_caller_and_a_missing_scope_have_the_exit_code_77(node: SecureNode, adsum: Adsum) -> None:
    node.refusal = 403, problem(403, "admin may not do this: it needs the scope admin")
    denied = await run(adsum, "token", "ls")
    assert denied.code == 77
    assert "it needs the scope admin (`adsum whoami` shows your scopes)" in denied.err
    watched = await run(adsum, "watch", "orders")
    assert watched.code == 77
    node.tokens = set()
    unknown = await run(adsum, "ls")
    assert unknown.code == 77
    assert "the token comes from" in unknown.err
    assert TOKEN not in unknown.err


async def test_a_token_file_outranks_the_token_of_the_host(node: SecureNode, adsum: Adsum, tmp_path: Path) -> None:
    (tmp_path / "t").write_text(OTHER_TOKEN)
    (tmp_path / "t").chmod(0o600)
    node.tokens = {OTHER_TOKEN}
    assert (await run(adsum, "ls", "--token-file", str(tmp_path / "t"))).code == 0
    assert node.requests[-1][1] == f"Bearer {OTHER_TOKEN}"


def test_a_token_is_never_sent_over_plain_http(adsum: Adsum, tmp_path: Path) -> None:
    (tmp_path / "t").write_text(OTHER_TOKEN)
    result = adsum("ls", "--token-file", str(tmp_path / "t"), "--url", "http://10.0.0.5:1")
    assert result.code == 78
    assert "--url: must be https://10.0.0.5:1, not http://" in result.err
