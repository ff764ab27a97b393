"""Commands and programs on the host of a secure registry, and on a host that joined it, without an option."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adsum.client.client import Client
from adsum.client.credentials.folder import CredentialsFolder
from adsum.client.sync import SyncClient
from adsum.config.serve import ServeConfig
from tests.cli.conftest import Adsum
from tests.client.stub_node import until
from tests.support.registry_daemon import RunningDaemon


@pytest.fixture
def registry_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningDaemon]:
    """A registry with tokens and TLS; the commands of the test run on its host."""
    data = tmp_path / "data" / "adsum"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    config = ServeConfig(listen="0.0.0.0:0", xds="off", store="memory:", secure=True, data=str(data), node="n1")
    daemon = RunningDaemon(config)
    try:
        yield daemon
    finally:
        daemon.stop()


@pytest.fixture
def joined_host(
    registry_host: RunningDaemon, adsum: Adsum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> CredentialsFolder:
    """A host that joined the registry as web1; the commands of the test run on it."""
    invited = adsum("token", "invite", "--for", "client")
    assert invited.code == 0, invited.err
    (tmp_path / "line").write_text(invited.out)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "other"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = CredentialsFolder(tmp_path / "config" / "adsum" / "registry")
    joined = adsum("join", str(tmp_path / "line"), "--name", "web1", "--folder", str(folder.path))
    assert joined.code == 0, joined.err
    return folder


def test_commands_on_the_registrys_host_need_no_option(
    registry_host: RunningDaemon, adsum: Adsum, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADSUM_ADDRESS", "10.0.0.9")  # A host without a network has only loopback.
    assert "admin@n1" in adsum("whoami").out
    listed = adsum("register", "orders", "--id", "a", "--port", "80", "--ttl", "none")
    assert listed.code == 0, listed.err
    assert "orders" in adsum("ls").out
    assert adsum("status").code == 0
    created = adsum("token", "create", "ci", "--scope", "write:orders", "--lifetime", "90d")
    assert created.code == 0
    assert created.out.startswith("adsum_")
    assert "in 90 d" in adsum("token", "ls").out
    assert adsum("token", "create", "ci", "--scope", "write:orders").code == 1
    assert adsum("token", "revoke", "ci").code == 0
    assert adsum("token", "show", "ci").code == 3


def test_a_joined_host_uses_the_registry_without_an_option(joined_host: CredentialsFolder, adsum: Adsum) -> None:
    assert "web1" in adsum("whoami").out
    assert adsum("register", "orders", "--id", "a", "--port", "80", "--ttl", "none").code == 0
    assert "registered by web1 (as " in adsum("history", "orders").out
    denied = adsum("token", "ls")
    assert denied.code == 77
    assert "web1 may not do this: it needs the scope admin" in denied.err
    assert adsum("join", "--renew", "--folder", str(joined_host.path)).code == 0
    with SyncClient(cache=False) as client:
        assert [service.name for service in client.run(lambda inner: inner.api.services()).services] == ["orders"]


def test_a_second_join_under_the_same_name_is_refused_and_keeps_the_folder(
    joined_host: CredentialsFolder, adsum: Adsum, tmp_path: Path
) -> None:
    before = joined_host.read()
    again = adsum("join", str(tmp_path / "line"), "--name", "web1", "--folder", str(joined_host.path))
    assert again.code == 1
    assert "named web1" in again.err
    assert "--name sets the name of this host" in again.err
    assert joined_host.read() == before
    assert adsum("ls").code == 0


def test_a_program_without_credentials_learns_what_to_do(
    registry_host: RunningDaemon, adsum: Adsum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = tmp_path / "data" / "adsum" / "security" / "authority.pem"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "other"))
    url = registry_host.url.replace("0.0.0.0", "127.0.0.1")
    untrusted = adsum("ls", "--url", url)
    assert untrusted.code == 69
    assert "an authority that this host does not trust" in untrusted.err
    unknown = adsum("ls", "--url", url, "--authority-file", str(authority))
    assert unknown.code == 77
    assert "join this host to the registry with `adsum join`" in unknown.err


async def test_views_and_registrations_survive_a_rotated_token(
    joined_host: CredentialsFolder, adsum: Adsum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rotate() -> str:
        with monkeypatch.context() as registrys_host:
            registrys_host.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
            registrys_host.setenv("XDG_CONFIG_HOME", str(tmp_path / "nothing"))
            return adsum("token", "rotate", "web1", "--overlap", "0").out

    async with (
        Client(cache=False) as client,
        client.register("orders", 8000, id="o1", drain_wait=0.0, signals=False, ttl=1.0),
    ):
        resolver = client.resolver("orders")
        await until(lambda: resolver.view.endpoints)
        token = await asyncio.to_thread(rotate)
        assert token.startswith("adsum_")
        (joined_host.path / "token").write_text(token)
        rotated_at = time.monotonic()
        await until(lambda: resolver.connected and time.monotonic() > rotated_at + 1.5)
        assert [endpoint.status for endpoint in resolver.view.endpoints] == ["passing"]
        assert (await client.api.instance("orders", "o1")).lease == "held"


def test_a_leaked_join_line_is_revoked(registry_host: RunningDaemon, adsum: Adsum) -> None:
    line = adsum("token", "invite", "--for", "node").out.strip()
    invite_id = line.rpartition("/")[2].partition(".")[0]
    listed = adsum("token", "invites")
    assert invite_id in listed.out
    assert line.partition(".")[2].partition("#")[0] not in listed.out, "a list shows no secret"
    for _ in range(2):
        assert adsum("token", "revoke-invite", invite_id).code == 0
    assert invite_id not in adsum("token", "invites").out
