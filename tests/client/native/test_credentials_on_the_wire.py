"""Tokens, TLS and refusals between a client and a real TLS server."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from adsum.certificates.authority import AUTHORITY_LIFETIME, Authority
from adsum.client.client import Client
from adsum.client.credentials.client_credentials import ClientCredentials
from adsum.client.credentials.folder import CredentialsFolder, RegistryCredentials
from adsum.client.errors import AuthorityMismatch, NodeUnreachable, NotAllowed, NotAuthenticated, RegistryUnavailable
from adsum.client.native.api import RegistryApi
from adsum.client.native.authority import accept_authority, fetch_authority
from adsum.client.native.request_sender import TRUST_PAUSE, RequestSender
from adsum.client.native.transport import Transport
from adsum.client.sources.source import ConnectionLost, ServiceUpdate
from adsum.client.sync import SyncClient
from tests.client.secure_node import DAY, OTHER_TOKEN, TOKEN, SecureNode, problem, secure_node, server_context
from tests.client.stub_node import STREAM_HEAD, until
from tests.support.fakes import FakeClock


@pytest.fixture
def authority() -> Authority:
    return Authority.create(time.time())


@pytest.fixture
async def node(authority: Authority, tmp_path: Path) -> AsyncIterator[SecureNode]:
    async with secure_node(authority, tmp_path) as node:
        yield node


@pytest.fixture
def join(tmp_path: Path, authority: Authority) -> Callable[..., RegistryCredentials]:
    """Writes and reads a credentials folder for nodes."""

    def join(*urls: str, **fields: Any) -> RegistryCredentials:
        folder = CredentialsFolder(tmp_path / "registry")
        usual = {
            "authority": authority.certificate_pem().decode(),
            "authority_hash": authority.hash,
            "token": TOKEN,
            "name": "web1",
        }
        folder.write(RegistryCredentials(urls, **{**usual, **fields}))
        return folder.read()

    return join


def api_of(joined: RegistryCredentials, clock: FakeClock | None = None, **options: Any) -> RegistryApi:
    credentials = ClientCredentials(joined, **options)
    return RegistryApi(joined.urls, rng=Random(1), credentials=credentials, clock=clock)


async def test_every_request_carries_the_token(node: SecureNode, join: Callable[..., RegistryCredentials]) -> None:
    async with Client(credentials=join(node.url).folder, cache=False) as client:
        await client.api.services()
        await client.api.find_responsive_node()
        client.resolver("orders")
        await until(lambda: any("acknowledge" in request for request, _ in node.requests))
    await until(lambda: any(request.startswith("DELETE /api/v1/consumers/") for request, _ in node.requests))
    assert {authorization for _, authorization in node.requests} == {f"Bearer {TOKEN}"}


async def test_the_synchronous_client_sends_the_token_too(
    node: SecureNode, join: Callable[..., RegistryCredentials]
) -> None:
    joined = join(node.url)

    def list_services() -> None:
        with SyncClient(credentials=joined.folder, cache=False) as client:
            client.run(lambda inner: inner.api.services())

    await asyncio.to_thread(list_services)
    assert node.requests == [("GET /api/v1/services", f"Bearer {TOKEN}")]


@pytest.mark.parametrize(("role", "address"), [("operator", "10.9.9.9"), ("client", "127.0.0.1")])
async def test_an_instance_on_the_host_of_a_secure_node_is_listed_where_other_hosts_reach_it(
    node: SecureNode,
    join: Callable[..., RegistryCredentials],
    monkeypatch: pytest.MonkeyPatch,
    role: str,
    address: str,
) -> None:
    monkeypatch.setenv("ADSUM_ADDRESS", "10.9.9.9")  # It stands for the address on the way to other hosts.
    async with Client(credentials=join(node.url, role=role).folder, cache=False) as client:
        assert await client.source.local_address() == address


async def test_a_client_without_a_token_learns_how_to_get_one(
    node: SecureNode, join: Callable[..., RegistryCredentials]
) -> None:
    api = api_of(join(node.url, token=""))
    with pytest.raises(
        NotAuthenticated, match=r"refused \(401\): this needs a token: .*`adsum join`.*ADSUM_TOKEN_FILE"
    ):
        await api.services()
    await api.close()


async def test_a_wrong_token_is_not_tried_at_the_next_node_and_is_never_shown(
    node: SecureNode, join: Callable[..., RegistryCredentials], authority: Authority, tmp_path: Path
) -> None:
    async with secure_node(authority, tmp_path) as other:
        node.tokens = other.tokens = set()
        api = api_of(join(node.url, other.url))
        with pytest.raises(NotAuthenticated, match="/registry/token; `adsum join` with a new line") as raised:
            await api.services()
        await api.close()
        assert len(node.requests) + len(other.requests) == 1
        assert TOKEN not in repr(raised.value) + str(raised.value)


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        (403, "web1 may not do this: it needs the scope operate:orders"),
        (404, "web1 sees no service 'orders': reading it needs the scope read:orders"),
    ],
)
async def test_a_missing_scope_is_a_clear_error(
    node: SecureNode, join: Callable[..., RegistryCredentials], status: int, detail: str
) -> None:
    node.refusal = status, problem(status, detail)
    api = api_of(join(node.url))
    with pytest.raises(NotAllowed, match=detail):
        await api.service("orders")
    with pytest.raises(NotAllowed, match=detail):
        await api.instance("orders", "o1")
    await api.close()


async def test_a_rotated_token_is_read_again_after_a_refusal(
    node: SecureNode, join: Callable[..., RegistryCredentials]
) -> None:
    joined = join(node.url)
    api = api_of(joined)
    await api.services()
    node.tokens = {OTHER_TOKEN}
    join(node.url, token=OTHER_TOKEN)
    await api.services()
    await api.close()
    assert [authorization[-5:] for _, authorization in node.requests] == [TOKEN[-5:], TOKEN[-5:], OTHER_TOKEN[-5:]]


async def test_a_refused_token_is_read_again_at_most_once_a_second(
    node: SecureNode, join: Callable[..., RegistryCredentials]
) -> None:
    clock = FakeClock()
    node.tokens = {OTHER_TOKEN}
    api = api_of(join(node.url), clock)
    with pytest.raises(NotAuthenticated):
        await api.services()
    join(node.url, token=OTHER_TOKEN)
    with pytest.raises(NotAuthenticated):
        await api.services()
    await clock.advance(1.0)
    await api.services()
    await api.close()


async def test_a_watch_takes_the_rotated_token_too(node: SecureNode, join: Callable[..., RegistryCredentials]) -> None:
    node.tokens = {OTHER_TOKEN}
    joined = join(node.url)
    async with Client(credentials=joined.folder, cache=False) as client:
        join(node.url, token=OTHER_TOKEN)
        resolver = client.resolver("orders")
        await until(lambda: resolver.connected)


async def test_a_stream_with_a_rotated_token_leaves_no_refused_connection_open(tmp_path: Path) -> None:
    token_file, open_connections = tmp_path / "token", 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_connections
        open_connections += 1
        head = await reader.readuntil(b"\r\n\r\n")
        if OTHER_TOKEN.encode() in head:
            writer.write(STREAM_HEAD + b"first")
        else:
            token_file.write_text(OTHER_TOKEN)
            writer.write(b"HTTP/1.1 401 X\r\nContent-Length: 2\r\n\r\n{}")
        await reader.read()
        open_connections -= 1
        writer.close()

    token_file.write_text(TOKEN)
    token_file.chmod(0o600)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    node = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    sender = RequestSender([node], rng=Random(1), credentials=ClientCredentials(token_file=token_file))
    async with sender.open_stream(node, "/watch", idle=40.0, params=[], headers={}) as chunks:
        assert await anext(chunks) == b"first"
        await until(lambda: open_connections == 1)
    await sender.close()
    await until(lambda: not open_connections)
    server.close()


async def test_no_token_goes_over_plain_http_to_another_host() -> None:
    credentials = ClientCredentials(RegistryCredentials(("https://10.0.0.5:1",), token=TOKEN))
    assert not credentials.headers("http://10.0.0.5:1")
    assert credentials.headers("https://10.0.0.5:1")


async def advance_until(clock: FakeClock, fact: Callable[[], object], step: float = 0.02) -> None:
    """Advances the clock in small steps until `fact()` is true, and lets real connections work between them."""
    async with asyncio.timeout(40.0):
        while not fact():
            await clock.advance(step)
            await asyncio.sleep(0.002)


async def error_of(joined: RegistryCredentials) -> str:
    api = api_of(joined)
    with pytest.raises(RegistryUnavailable) as raised:
        await api.services()
    await api.close()
    return raised.value.reason


async def test_an_authority_that_is_not_trusted_is_named_as_such(
    node: SecureNode, join: Callable[..., RegistryCredentials]
) -> None:
    other = Authority.create(time.time())
    joined = join(node.url, authority=other.certificate_pem().decode(), authority_hash=other.hash)
    assert "an authority that this host does not trust: join the registry" in await error_of(joined)
    assert not [authorization for _, authorization in node.requests if authorization]


async def test_an_expired_certificate_is_named_as_such(
    join: Callable[..., RegistryCredentials], tmp_path: Path
) -> None:
    old = Authority.create(time.time() - 30 * DAY)
    context = server_context(old, tmp_path, now=time.time() - 20 * DAY)
    async with secure_node(old, tmp_path, context) as node:
        joined = join(node.url, authority=old.certificate_pem().decode(), authority_hash=old.hash)
        assert "its certificate, or that of its authority, has expired" in await error_of(joined)


async def test_a_certificate_for_other_names_is_named_as_such(
    authority: Authority, join: Callable[..., RegistryCredentials], tmp_path: Path
) -> None:
    context = server_context(authority, tmp_path, host="other.example")
    async with secure_node(authority, tmp_path, context) as node:
        reason = await error_of(join(node.url))
    assert "its certificate is for other names" in reason
    assert "localhost" in reason


async def test_plain_http_behind_an_https_url_is_named_as_such(join: Callable[..., RegistryCredentials]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        reason = await error_of(join(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    assert "it does not speak TLS at this port: use http:// in its URL" in reason


async def test_a_renewed_authority_of_the_same_key_is_taken_and_kept(
    authority: Authority, join: Callable[..., RegistryCredentials], tmp_path: Path
) -> None:
    old = Authority.create(time.time() - AUTHORITY_LIFETIME - DAY)
    renewed = old.renewed(time.time())
    async with secure_node(renewed, tmp_path) as node:
        joined = join(node.url, authority=old.certificate_pem().decode(), authority_hash=old.hash)
        api = api_of(joined)
        await api.services()
        await api.close()
        assert [request for request, authorization in node.requests if not authorization] == ["GET /api/v1/authority"]
    assert joined.folder is not None
    assert CredentialsFolder(joined.folder).read().authority == renewed.certificate_pem().decode()


async def test_an_authority_of_another_key_is_never_taken(
    join: Callable[..., RegistryCredentials], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = Authority.create(time.time() - AUTHORITY_LIFETIME - DAY)
    attacker = Authority.create(time.time())
    async with secure_node(attacker, tmp_path) as node:
        joined = join(node.url, authority=old.certificate_pem().decode(), authority_hash=old.hash)
        reason = await error_of(joined)
        assert "does not trust" in reason
        assert "presents another authority than expected" in caplog.text
        assert not [authorization for _, authorization in node.requests if authorization]
    assert joined.folder is not None
    assert CredentialsFolder(joined.folder).read().authority == old.certificate_pem().decode()


def test_certificates_behind_the_one_with_the_hash_are_dropped(authority: Authority) -> None:
    attacker = Authority.create(time.time())
    both = (authority.certificate_pem() + attacker.certificate_pem()).decode()
    assert accept_authority(both, authority.hash, "https://a") == authority.certificate_pem().decode()
    with pytest.raises(AuthorityMismatch, match="another authority"):
        accept_authority(both, attacker.hash, "https://a")
    with pytest.raises(AuthorityMismatch, match="can't be read"):
        accept_authority("", attacker.hash, "https://a")


async def test_the_authority_is_fetched_again_only_after_a_pause(
    join: Callable[..., RegistryCredentials], tmp_path: Path
) -> None:
    clock, old = FakeClock(), Authority.create(time.time() - AUTHORITY_LIFETIME - DAY)
    attacker = Authority.create(time.time())
    async with secure_node(attacker, tmp_path) as node:
        api = api_of(join(node.url, authority=old.certificate_pem().decode(), authority_hash=old.hash), clock)
        for _ in range(3):
            with pytest.raises(RegistryUnavailable):
                await api.services()
        assert len(node.requests) == 1
        await clock.advance(TRUST_PAUSE)
        with pytest.raises(RegistryUnavailable):
            await api.services()
        assert len(node.requests) == 2
        await api.close()


async def test_reconnects_are_paced_when_all_certificates_have_expired(
    join: Callable[..., RegistryCredentials], tmp_path: Path
) -> None:
    old = Authority.create(time.time() - 30 * DAY)
    context = server_context(old, tmp_path, now=time.time() - 20 * DAY)
    async with secure_node(old, tmp_path, context) as node:
        joined = join(node.url, authority=old.certificate_pem().decode(), authority_hash=old.hash)
        clock = FakeClock()
        async with Client(credentials=joined.folder, cache=False, clock=clock, rng=Random(1)) as client:
            resolver = client.resolver("orders")
            await until(lambda: "expired" in resolver.problem)
            began, attempts = clock.now(), node.hellos
            await advance_until(clock, lambda: node.hellos >= attempts + 8)
            # A pause is drawn from 0 to 5 s at most; a client that did not pause would need a fraction of a second.
            assert clock.now() - began > 3.0


@pytest.mark.parametrize("status", [401, 403])
async def test_a_watch_that_is_refused_ages_the_view_and_tries_again_paced(
    node: SecureNode, join: Callable[..., RegistryCredentials], status: int
) -> None:
    clock = FakeClock()
    async with Client(credentials=join(node.url).folder, cache=False, clock=clock, rng=Random(1)) as client:
        source = client.source
        node.refusal = status, problem(status, "it needs the scope read:orders")
        watch = source.watch("orders", lambda: None)
        lost = await anext(watch)
        assert isinstance(lost, ConnectionLost)
        assert "it needs the scope read:orders" in lost.reason
        before = len(node.requests)
        node.refusal = None
        trying = asyncio.ensure_future(anext(watch))
        await advance_until(clock, trying.done)
        assert isinstance(trying.result(), ServiceUpdate)
        assert len(node.requests) == before + 1
        await watch.aclose()


async def test_a_registrar_that_may_not_register_goes_on_and_logs_once(
    node: SecureNode, join: Callable[..., RegistryCredentials], caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    node.refusal = 403, problem(403, "web1 may not do this: it needs the scope write:orders")
    written = {"epoch": "e1", "revision": 1, "ttl": 30.0}
    node.answers["PUT /api/v1/services/orders/instances/o1"] = lambda _: (200, written)
    node.answers["DELETE /api/v1/services/orders/instances/o1"] = lambda _: (200, written)
    caplog.set_level(logging.ERROR)
    async with Client(credentials=join(node.url).folder, cache=False, clock=clock, rng=Random(1)) as client:
        registrar = client.register("orders", 8000, id="o1", address="127.0.0.1", drain_wait=0.0, signals=False)
        await registrar.start()
        assert not registrar.registered
        assert "it needs the scope write:orders" in registrar.denial
        await advance_until(clock, lambda: sum(request.startswith("PUT") for request, _ in node.requests) >= 3, 1.0)
        node.refusal = None
        await advance_until(clock, lambda: registrar.registered, 1.0)
        assert not registrar.denial
        await registrar.stop()
    assert caplog.text.count("it needs the scope write:orders") == 1


async def test_a_hand_shake_that_is_given_up_closes_its_connection() -> None:
    ended = asyncio.Event()

    async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        ended.set()

    transport = Transport(ssl.create_default_context())
    async with await asyncio.start_server(stay_silent, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(NodeUnreachable, match="in time"):
            await transport.request("GET", url, timeout=0.05)
        await asyncio.wait_for(ended.wait(), 10.0)
    await transport.close()


async def test_the_authority_is_fetched_without_verifying_the_node(node: SecureNode, authority: Authority) -> None:
    assert await fetch_authority(node.url) == authority.certificate_pem().decode()


async def test_a_client_certificate_is_presented_only_without_a_token(
    authority: Authority, join: Callable[..., RegistryCredentials], tmp_path: Path
) -> None:
    folder = CredentialsFolder(tmp_path / "broken")
    folder.write(
        RegistryCredentials(("https://a:1",), authority=authority.certificate_pem().decode(), token=TOKEN), "x", "y"
    )
    context = ClientCredentials(folder.read()).make_ssl_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
