"""The client with tokens that expire or become invalid when users, roles or the password change."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest

from adsum.clock import SystemClock
from adsum.etcd.address import EtcdAddress
from adsum.etcd.client import EtcdClient
from adsum.etcd.errors import EtcdRefused
from adsum.etcd.session import EtcdSession
from adsum.etcd.watch import EtcdWatchEvent, RevisionEvents, WatchInterrupted, watch
from tests.support.etcd_process import EtcdProcess, encode_field
from tests.support.fake_etcd import FakeEtcd
from tests.support.programs import need

KEY = b"/adsum/key"


@asynccontextmanager
async def connected(etcd: EtcdProcess, login: str = "adsum:s3cret", query: str = "") -> AsyncIterator[EtcdClient]:
    connection = EtcdClient(EtcdAddress.parse(f"etcd://{login}@{etcd.host_port}{query}"), Random())
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
def short_tokens(tmp_path: Path) -> Iterator[EtcdProcess]:
    """An etcd whose tokens expire after three seconds without use."""
    with EtcdProcess(tmp_path, "--auth-token-ttl", "3") as etcd:
        etcd.enable_auth()
        yield etcd


@pytest.fixture
def signed_tokens(tmp_path: Path) -> Iterator[EtcdProcess]:
    """An etcd with signed tokens, which become invalid when users or roles change."""
    openssl = str(need("openssl"))
    private, public = tmp_path / "jwt.key", tmp_path / "jwt.pub"
    subprocess.run([openssl, "genrsa", "-out", private, "2048"], check=True, capture_output=True)
    subprocess.run([openssl, "rsa", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    with EtcdProcess(
        tmp_path, "--auth-token", f"jwt,pub-key={public},priv-key={private},sign-method=RS256,ttl=5m"
    ) as etcd:
        etcd.enable_auth()
        yield etcd


async def _wait_until_expired(etcd: EtcdProcess, connection: EtcdClient) -> None:
    """Waits until the client's token is refused. The test must not use the token, since that prolongs it."""
    token, pause = connection.__dict__["_token"], 4.0
    async with asyncio.timeout(60.0):
        while True:
            await asyncio.sleep(pause)
            pause += 1.0
            try:
                etcd.call("KV/Range", encode_field(1, KEY), token)
            except grpc.RpcError:
                return


async def _first_event(events: Any) -> EtcdWatchEvent:
    """Returns the first event that is not an interruption."""
    async with asyncio.timeout(20.0), aclosing(events):
        while True:
            event: EtcdWatchEvent = await anext(events)
            if not isinstance(event, WatchInterrupted):
                return event


async def _assert_session_begins(connection: EtcdClient) -> None:
    """Asserts that a session begins, and that its lease can be renewed and is revoked at the end."""
    granted = asyncio.Event()

    async def grant(lease: int) -> None:
        await connection.put(KEY, b"", lease)
        granted.set()

    session = EtcdSession(connection, 5, grant, SystemClock(), Random())
    session.start()
    async with asyncio.timeout(20.0):
        await granted.wait()
    await connection.keep_alive(session.lease)
    await session.close()
    assert await connection.get(KEY) is None


async def test_calls_watches_and_sessions_replace_an_expired_token(short_tokens: EtcdProcess) -> None:
    async with (
        connected(short_tokens) as calling,
        connected(short_tokens) as watching,
        connected(short_tokens) as holding,
    ):
        for client in (calling, watching, holding):
            revision = await client.put(KEY, b"1")
        await _wait_until_expired(short_tokens, holding)
        assert await calling.get(KEY) is not None
        event = await _first_event(watch(watching, KEY, revision, SystemClock(), Random()))
        assert isinstance(event, RevisionEvents)
        await _assert_session_begins(holding)


async def test_a_signed_token_is_replaced_when_users_or_roles_changed(signed_tokens: EtcdProcess) -> None:
    async with (
        connected(signed_tokens) as calling,
        connected(signed_tokens) as watching,
        connected(signed_tokens) as holding,
    ):
        for client in (calling, watching, holding):
            revision = await client.put(KEY, b"1")
        signed_tokens.call_as_root("Auth/RoleAdd", encode_field(1, b"another"))
        assert await calling.put(KEY, b"2") > revision
        event = await _first_event(watch(watching, KEY, revision, SystemClock(), Random()))
        assert isinstance(event, RevisionEvents)
        await _assert_session_begins(holding)


async def test_a_changed_password_is_read_again_from_its_file(short_tokens: EtcdProcess, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    async with connected(short_tokens, "adsum", f"?password-file={file}") as connection:
        await connection.put(KEY, b"1")
        short_tokens.call_as_root("Auth/UserChangePassword", encode_field(1, b"adsum") + encode_field(2, b"an0ther"))
        with pytest.raises(EtcdRefused, match="invalid user ID or password"):
            await connection.put(KEY, b"2")
        file.unlink()
        with pytest.raises(EtcdRefused, match="can't be read"):
            await connection.put(KEY, b"2")
        file.write_text("an0ther\n")
        assert await connection.put(KEY, b"2")


async def test_connections_to_etcd_ignore_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with FakeEtcd() as etcd:
        connection = EtcdClient(EtcdAddress.parse(f"etcd://{etcd.host_port}"), Random())
        try:
            assert not (await connection.range(KEY)).key_values
        finally:
            await connection.close()
