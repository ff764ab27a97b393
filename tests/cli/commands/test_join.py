"""`adsum join`: the registry is verified before the secret is sent, and the host keeps what it gets to itself."""

from __future__ import annotations

import asyncio
import io
import json
import os
import stat
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adsum.certificates.authority import Authority
from adsum.certificates.pairs import make_pair
from adsum.certificates.server_names import ServerNames
from adsum.client.credentials.folder import CredentialsFolder
from adsum.client.native.join import joiner_name
from adsum.core.access.join_line import JoinLine
from adsum.core.access.tokens import NAMES_WITHOUT_SECRET, TokenRole, check_token_name
from tests.cli.conftest import Adsum
from tests.client.secure_node import OTHER_TOKEN, TOKEN, Answer, SecureNode, problem, secure_node

SECRET = "s" * 43


class JoiningNode:
    """A secure node that joins hosts."""

    def __init__(self, node: SecureNode, authority: Authority) -> None:
        self.node = node
        self.authority = authority
        self.role = TokenRole.CLIENT
        node.answers["POST /api/v1/join"] = self.join
        node.answers["POST /api/v1/certificate"] = self.certify

    def line(self, hash: str = "") -> str:
        host = self.node.url.removeprefix("https://")
        return str(JoinLine([host], "ab" * 8, SECRET, hash or self.authority.hash))

    def join(self, body: bytes) -> Answer:
        request = json.loads(body)
        if request["secret"] != SECRET:
            return 401, problem(401, "the invite is wrong, was used, or has expired")
        return 201, {
            "name": request["name"],
            "role": self.role.value,
            "token": TOKEN,
            "scopes": ["read:*", "write:*"],
            "authority": self.authority.certificate_pem().decode(),
            "urls": [self.node.url],
            "xds": ["localhost:1"],
            "certificate": self._sign(request["certificate_request"]),
        }

    def certify(self, body: bytes) -> Answer:
        certificate = self._sign(json.loads(body)["certificate_request"])
        return 200, {"certificate": certificate, "authority": self.authority.certificate_pem().decode()}

    def _sign(self, request: str) -> str:
        signed = self.authority.sign(request.encode(), name="web1", token_id="0" * 16, role=self.role, now=time.time())
        return signed.decode()


@pytest.fixture
async def joining(tmp_path: Path) -> AsyncIterator[JoiningNode]:
    authority = Authority.create(time.time())
    async with secure_node(authority, tmp_path) as node:
        yield JoiningNode(node, authority)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CredentialsFolder:
    """The folder that a join writes and every command finds."""
    monkeypatch.setenv("ADSUM_CREDENTIALS", str(tmp_path / "joined"))
    return CredentialsFolder(tmp_path / "joined")


async def run(adsum: Adsum, *args: str) -> Any:
    return await asyncio.to_thread(adsum, *args)


def write_line(tmp_path: Path, line: str) -> str:
    (tmp_path / "line").write_text(f"{line}\n")
    return str(tmp_path / "line")


async def test_a_host_that_joined_uses_the_registry_without_an_option(
    joining: JoiningNode, folder: CredentialsFolder, adsum: Adsum, tmp_path: Path
) -> None:
    result = await run(adsum, "join", write_line(tmp_path, joining.line()), "--name", "web1")
    assert (result.code, result.out) == (0, "")
    assert f"joined the registry at {joining.node.url} as web1, with the scopes read:* write:*" in result.err
    assert "adsum run --service hello" in result.err
    joined = folder.read()
    assert (joined.token, joined.name, joined.role, joined.xds) == (TOKEN, "web1", "client", ("localhost:1",))
    assert joined.certificate is not None
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.path.iterdir()} == {0o600}
    assert TOKEN not in result.err
    assert SECRET not in result.err
    listed = await run(adsum, "ls")
    assert (listed.code, listed.out) == (0, "")
    assert joining.node.requests[-1] == ("GET /api/v1/services", f"Bearer {TOKEN}")


async def test_the_line_comes_from_standard_input(
    joining: JoiningNode, folder: CredentialsFolder, adsum: Adsum, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"  {joining.line()}\n"))
    assert (await run(adsum, "join", "--name", "web1")).code == 0
    assert folder.read().token == TOKEN


async def test_the_secret_is_not_sent_to_a_registry_with_another_authority(
    joining: JoiningNode, folder: CredentialsFolder, adsum: Adsum, tmp_path: Path
) -> None:
    result = await run(adsum, "join", write_line(tmp_path, joining.line("ab" * 32)))
    assert result.code == 77
    assert "presents another authority than expected" in result.err
    assert "someone intercepts the connection" in result.err
    assert [request for request, _ in joining.node.requests] == ["GET /api/v1/authority"]
    assert not any(SECRET.encode() in body for body in joining.node.bodies)
    assert not folder.path.exists()


async def test_the_secret_is_not_sent_to_a_node_that_only_shows_the_right_authority(
    folder: CredentialsFolder, adsum: Adsum, tmp_path: Path
) -> None:
    authority, attacker = Authority.create(time.time()), Authority.create(time.time())
    async with secure_node(attacker, tmp_path) as node:
        node.authority = authority  # It shows the certificate that everyone may read, and has another one.
        line = JoiningNode(node, authority).line()
        result = await run(adsum, "join", write_line(tmp_path, line))
        assert result.code == 69
        assert "an authority that this host does not trust" in result.err
        assert "adsum serve" not in result.err
        assert not any(SECRET.encode() in body for body in node.bodies)
    assert not folder.path.exists()


async def test_a_refused_invite_leaves_everything_as_it_was(
    joining: JoiningNode, folder: CredentialsFolder, adsum: Adsum, tmp_path: Path
) -> None:
    line = write_line(tmp_path, joining.line())
    assert (await run(adsum, "join", line, "--name", "web1")).code == 0
    result = await run(adsum, "join", write_line(tmp_path, joining.line().replace(SECRET, "t" * 43)))
    assert result.code == 77
    assert "the registry refuses the line: the invite is wrong, was used, or has expired; get a new one" in result.err
    assert "no token was sent" not in result.err
    assert folder.read().name == "web1"


async def test_a_host_that_joins_again_replaces_its_folder_and_says_so(
    joining: JoiningNode, folder: CredentialsFolder, adsum: Adsum, tmp_path: Path
) -> None:
    line = write_line(tmp_path, joining.line())
    assert (await run(adsum, "join", line, "--name", "web1")).code == 0
    again = await run(adsum, "join", line, "--name", "web2")
    assert again.code == 0
    assert f"this join replaces the credentials of web1 for {joining.node.url} in {folder.path}" in again.err
    assert folder.read().name == "web2"
    (folder.path / "registry.json").write_text("broken")
    mended = await run(adsum, "join", line, "--name", "web3")
    assert mended.code == 0
    assert "this join replaces credentials that can't be read" in mended.err


async def test_a_line_for_a_node_fills_the_data_folder_of_the_node(
    joining: JoiningNode, folder: CredentialsFolder, adsum: Adsum, tmp_path: Path
) -> None:
    joining.role = TokenRole.NODE
    data = tmp_path / "the data"
    result = await run(adsum, "join", write_line(tmp_path, joining.line()), "--name", "n2", "--data", str(data))
    assert result.code == 0, result.err
    assert f"this host has joined the registry at {joining.node.url} as the node n2" in result.err
    assert f"adsum serve --secure --listen ADDRESS:23786 --store etcd://HOST:2379 --data '{data}'" in result.err
    files = sorted((data / "security").iterdir())
    assert [file.name for file in files] == ["authority.pem", "node-token", "node.key", "node.pem"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert (data / "security/node-token").read_text() == f"{TOKEN}\n"
    pair = make_pair((data / "security/node.pem").read_bytes(), (data / "security/node.key").read_bytes())
    names = ServerNames.of_certificate(pair.leaf)
    assert "localhost" in names.dns_names
    assert names.addresses
    assert TOKEN not in result.err
    assert not folder.path.exists(), "a node is no client"


async def test_a_join_of_a_node_keeps_the_key_of_another_authority(
    joining: JoiningNode, folder: CredentialsFolder, adsum: Adsum, tmp_path: Path
) -> None:
    joining.role = TokenRole.NODE
    assert adsum("init", "--data", str(tmp_path / "n2")).code == 0
    key = tmp_path / "n2/security/authority.key"
    before = key.read_bytes()
    result = await run(adsum, "join", write_line(tmp_path, joining.line()), "--data", str(tmp_path / "n2"))
    assert result.code == 78
    assert "has the key of the authority of another registry: join with --data and another folder" in result.err
    assert key.read_bytes() == before
    assert not folder.path.exists()


async def test_a_renewal_replaces_the_certificate_and_keeps_the_key(
    joining: JoiningNode, folder: CredentialsFolder, adsum: Adsum, tmp_path: Path
) -> None:
    await run(adsum, "join", write_line(tmp_path, joining.line()), "--name", "web1")
    before = {file.name: file.read_bytes() for file in folder.path.iterdir()}
    result = await run(adsum, "join", "--renew")
    assert (result.code, result.err) == (0, f"{folder.path}/client.pem is renewed\n")
    after = {file.name: file.read_bytes() for file in folder.path.iterdir()}
    assert [name for name in before if before[name] != after[name]] == ["client.pem"]
    assert joining.node.requests[-1] == ("POST /api/v1/certificate", f"Bearer {TOKEN}")


async def test_a_renewal_needs_a_host_that_has_joined(folder: CredentialsFolder, adsum: Adsum) -> None:
    result = await run(adsum, "join", "--renew")
    assert result.code == 2
    assert "there is no registry that this host has joined; join first" in result.err


def test_a_line_as_an_argument_is_refused_without_repeating_it(folder: CredentialsFolder, adsum: Adsum) -> None:
    line = str(JoinLine(["10.0.0.5:1"], "ab" * 8, SECRET, "ab" * 32))
    result = adsum("join", line)
    assert result.code == 2
    assert "the line must not be an argument" in result.err
    assert SECRET not in result.err


@pytest.mark.parametrize("text", ["", "adsum-join://", "hello", f"adsum-join://h:1/{'ab' * 8}.{SECRET}#{'AB' * 32}"])
def test_a_wrong_line_is_refused_without_repeating_it(
    folder: CredentialsFolder, adsum: Adsum, tmp_path: Path, text: str
) -> None:
    result = adsum("join", write_line(tmp_path, text))
    assert result.code == 2
    assert "the line must be the whole line that `adsum token invite` printed" in result.err
    assert SECRET not in result.err


def test_a_file_that_is_missing_is_named(folder: CredentialsFolder, adsum: Adsum, tmp_path: Path) -> None:
    result = adsum("join", str(tmp_path / "nothing"))
    assert (result.code, result.out) == (1, "")
    assert f"{tmp_path}/nothing: No such file or directory; it must hold the line" in result.err


def test_a_file_that_is_no_text_is_refused_as_a_wrong_line(
    folder: CredentialsFolder, adsum: Adsum, tmp_path: Path
) -> None:
    (tmp_path / "line").write_bytes(b"\xff\xfe\x00" + SECRET.encode())
    result = adsum("join", str(tmp_path / "line"))
    assert result.code == 2
    assert "the line must be the whole line that `adsum token invite` printed" in result.err
    assert SECRET not in result.err


@pytest.mark.parametrize(
    ("role", "end"),
    [(TokenRole.CLIENT, "; --folder names another\n"), (TokenRole.NODE, "/security: Not a directory\n")],
)
async def test_a_folder_that_can_not_be_written_is_named_with_the_option_for_it(
    joining: JoiningNode, folder: CredentialsFolder, adsum: Adsum, tmp_path: Path, role: TokenRole, end: str
) -> None:
    joining.role = role
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file" / "inside"
    line = write_line(tmp_path, joining.line())
    result = await run(adsum, "join", line, "--name", "web1", "--folder", str(inside), "--data", str(inside))
    assert result.code in (1, 78)
    assert result.err.startswith("adsum: ")
    assert str(tmp_path / "file") in result.err
    assert result.err.endswith(end)


async def test_nodes_that_do_not_answer_are_passed_over(
    joining: JoiningNode, folder: CredentialsFolder, adsum: Adsum, tmp_path: Path
) -> None:
    line = joining.line().replace("adsum-join://", "adsum-join://127.0.0.1:1,")
    assert (await run(adsum, "join", write_line(tmp_path, line), "--name", "web1")).code == 0
    alone = str(JoinLine(["127.0.0.1:1"], "ab" * 8, SECRET, "ab" * 32))
    result = await run(adsum, "join", write_line(tmp_path, alone))
    assert result.code == 69
    assert "https://127.0.0.1:1" in result.err


async def test_no_secret_is_in_the_environment_or_in_a_command_line(
    joining: JoiningNode, folder: CredentialsFolder, adsum: Adsum, tmp_path: Path
) -> None:
    await run(adsum, "join", write_line(tmp_path, joining.line()), "--name", "web1")
    assert not any(secret in value for value in os.environ.values() for secret in (TOKEN, OTHER_TOKEN, SECRET))


@given(st.text(max_size=100))
@example("registry")
@example("anonymous")
def test_every_host_name_makes_a_name_of_a_token(host: str) -> None:
    check_token_name("name", joiner_name(host))
    assert joiner_name(host) not in NAMES_WITHOUT_SECRET
