"""A secure node keeps its files, its certificates and its tokens up to date."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
from cryptography import x509

from adsum.certificates.authority import LIFETIMES, token_id_of
from adsum.certificates.requests import create_request, new_key
from adsum.config.serve import ServeConfig
from adsum.core.access.scopes import EVERYTHING, NO_SCOPES, Scopes
from adsum.core.access.tokens import Token, TokenRole, parse_token, verify
from adsum.core.catalog import declarations
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.documents import DocumentKey, DocumentKind
from adsum.core.errors import AdsumError, Invalid, Unauthenticated
from adsum.node_security import node_files
from adsum.node_security.node_security import RENEWAL_RETRY, NodeSecurity
from adsum.node_security.node_tokens import NODE_SCOPES
from adsum.node_security.security_folder import NODE_TOKEN, SecurityFolderInUse
from adsum.peers.issuing_peers import NewCertificate
from adsum.registry import Registry
from adsum.stores.memory import MemoryStore
from adsum.wire.tokens import encode_token, parse_token_document
from tests.support.fakes import FakeClock
from tests.support.observers import RecordingObserver

NODE_TOKEN_TEXT = f"adsum_{'0' * 16}_{'A' * 43}"
WEEK = LIFETIMES[TokenRole.NODE]
CALLER = Caller("test", 0.0)


class World:
    """A secure node over a store in memory, under a clock of the test."""

    def __init__(self, data: Path, registry: Registry, **settings: Any) -> None:
        self.clock = FakeClock(wall=1_800_000_000.0)
        self.registry = registry
        values: dict[str, Any] = {"store": "memory:", "node": "n1", "data": str(data), "secure": True} | settings
        config = ServeConfig(**values)
        self.security = NodeSecurity(config, self.clock)

    async def start(self) -> None:
        await self.security.start(self.registry, ["https://0.0.0.0:23786"], ["10.0.0.5:23787"])

    def token(self, name: str) -> Token | None:
        """The token in the catalog."""
        document = self.registry.snapshot.documents.find(DocumentKey(DocumentKind.TOKEN, name))
        if document is None:
            return None
        token = parse_token_document(name, document.body)
        assert isinstance(token, Token)
        return token

    def accepts(self, text: str) -> bool:
        """Returns whether the catalog has this secret of the node's admin token."""
        parts = parse_token(text.strip())
        token = self.token("admin@n1")
        try:
            verify(token if token is not None and token.id == parts.id else None, parts.secret, 0.0)
        except Unauthenticated:
            return False
        return True


@asynccontextmanager
async def _world(tmp_path: Path, **settings: Any) -> AsyncIterator[World]:
    registry = Registry(MemoryStore(), FakeClock(), RecordingObserver())
    await registry.start()
    world = World(tmp_path / "data", registry, **settings)
    try:
        yield world
    finally:
        await world.security.stop()
        await registry.stop()


async def test_the_admin_token_is_valid_when_the_start_returns(tmp_path: Path) -> None:
    async with _world(tmp_path) as world:
        await world.start()
        assert world.security.is_new
        assert world.accepts(world.security.admin_token_file.read_text())
        token = world.token("admin@n1")
        assert token is not None
        assert (token.scopes.is_admin, token.expires) == (True, None)


async def test_commands_of_the_host_get_credentials(tmp_path: Path) -> None:
    async with _world(tmp_path) as world:
        await world.start()
        folder = world.security.folder
        described = json.loads(folder.file("operator/registry.json").read_text())
        loopback, *outer = described["urls"]
        assert (loopback, described["name"]) == ("https://127.0.0.1:23786", "admin@n1")
        # So that instances which are registered by these credentials get an address that other hosts reach.
        names = world.security.names.texts()
        assert [urlsplit(url).hostname in names for url in outer] in ([], [True])
        assert described["authority_hash"] == world.security.authority.hash()
        assert folder.read("operator/token") == folder.read("admin-token")
        assert folder.read("operator/authority.pem") == folder.read("authority.pem")


async def test_removing_the_file_replaces_the_admin_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with _world(tmp_path) as world:
        await world.start()
        lost = world.security.admin_token_file.read_text()
        world.security.admin_token_file.unlink()
        await world.security.look()
        found = world.security.admin_token_file.read_text()
        assert (world.accepts(lost), world.accepts(found)) == (False, True)
        assert world.security.folder.read("operator/token") == found.encode()
        for text in (lost, found):
            assert parse_token(text.strip()).secret not in caplog.text


async def test_a_second_start_keeps_the_token_and_writes_nothing(tmp_path: Path) -> None:
    async with _world(tmp_path) as world:
        await world.start()
        before, revision = world.security.admin_token_file.read_text(), world.registry.snapshot.revision
        await world.security.stop()
        again = World(tmp_path / "data", world.registry)
        await again.start()
        assert not again.security.is_new
        assert again.accepts(before)
        assert world.registry.snapshot.revision == revision
        await again.security.stop()


async def test_a_token_that_was_revoked_rotated_or_changed_is_as_the_file_says_again(tmp_path: Path) -> None:
    async with _world(tmp_path) as world:
        await world.start()
        text = world.security.admin_token_file.read_text()
        key = DocumentKey(DocumentKind.TOKEN, "admin@n1")
        token = world.token("admin@n1")
        assert token is not None
        weaker = Token(token.name, token.id, NO_SCOPES, token.secrets)
        for change in (
            declarations.withdraw(key, "revoked", CALLER),
            declarations.declare(key, encode_token(token.rotated("other" * 9, 0.0, 0.0)), CALLER),
            declarations.declare(key, encode_token(weaker), CALLER),
        ):
            await world.registry.write(change)
            await world.security.look()
            assert world.accepts(text)
            found = world.token("admin@n1")
            assert found is not None
            assert found.scopes.is_admin


async def test_the_day_of_its_last_use_does_not_change_the_token(tmp_path: Path) -> None:
    async with _world(tmp_path) as world:
        await world.start()
        token = world.token("admin@n1")
        assert token is not None
        used = Token(token.name, token.id, token.scopes, token.secrets, created=5.0, used=86_400.0)
        await world.registry.write(
            declarations.declare(DocumentKey(DocumentKind.TOKEN, "admin@n1"), encode_token(used), CALLER)
        )
        revision = world.registry.snapshot.revision
        await world.security.look()
        assert world.registry.snapshot.revision == revision


async def test_a_node_with_a_new_name_takes_its_tokens_along(tmp_path: Path) -> None:
    async with _world(tmp_path) as world:
        await world.start()
        await world.security.stop()
        renamed = World(tmp_path / "data", world.registry, node="n2")
        await renamed.start()
        assert (world.token("admin@n1"), world.token("node@n1")) == (None, None)
        token = world.token("admin@n2")
        assert token is not None
        assert token.id == parse_token(renamed.security.admin_token_file.read_text().strip()).id
        await renamed.security.stop()


async def test_a_malformed_file_is_reported_once_and_the_token_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with _world(tmp_path) as world:
        await world.start()
        text = world.security.admin_token_file.read_text()
        world.security.admin_token_file.write_text("half a tok")
        for _ in range(3):
            await world.security.look()
        errors = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert len(errors) == 1
        assert "remove it" in errors[0].getMessage()
        assert world.accepts(text)


async def test_a_registry_that_refuses_writes_gets_the_token_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _world(tmp_path) as world:

        async def refuse(_: object) -> int:
            raise AdsumError("not now")

        with monkeypatch.context() as patched:
            patched.setattr(world.registry, "write", refuse)
            await world.start()
        assert world.token("admin@n1") is None
        await world.security.look()
        assert world.accepts(world.security.admin_token_file.read_text())


async def test_the_certificate_of_an_issuing_node_names_a_token_for_other_nodes(tmp_path: Path) -> None:
    async with _world(tmp_path) as world:
        await world.start()
        token = world.token("node@n1")
        assert token is not None
        assert (token.role, token.scopes.is_node, token.scopes.is_admin, token.secrets) == (
            TokenRole.NODE,
            True,
            False,
            (),
        )
        chain = x509.load_pem_x509_certificates(world.security.certificates.key_pair()[1])
        assert token_id_of(chain[0]) == token.id


async def test_the_node_renews_its_certificate_at_half_of_its_life(tmp_path: Path) -> None:
    async with _world(tmp_path) as world:
        await world.start()
        security = world.security
        first = security.certificates.key_pair()
        world.clock.jump(0.4 * WEEK)
        await security.look()
        assert security.certificates.key_pair() == first
        world.clock.jump(0.1 * WEEK)
        for _ in range(3):
            await security.look()
        key, chain = security.certificates.key_pair()
        assert (key, chain != first[1], security.certificates.version) == (first[0], True, 2)
        (node, _) = security.lives()
        assert node.expires == float(int(world.clock.wall() + WEEK))
        assert node.is_renewed


async def test_a_renewal_that_fails_is_reported_tried_again_and_then_overdue(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with _world(tmp_path) as world:
        await world.start()
        security = world.security
        key = security.folder.read("node.key")
        assert key is not None
        security.folder.write("node.key", b"broken")
        world.clock.jump(0.6 * WEEK)
        for _ in range(3):
            await security.look()
        assert caplog.text.count("can't be renewed") == 1
        world.clock.jump(0.2 * WEEK)
        await security.look()
        assert "its renewal is overdue" in caplog.text
        security.folder.write("node.key", key)
        world.clock.jump(RENEWAL_RETRY)
        for _ in range(3):
            await security.look()
        assert "can be renewed again" in caplog.text
        assert security.lives()[0].expires > world.clock.wall() + 0.9 * WEEK


async def test_a_node_without_the_key_asks_another_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with _world(tmp_path) as world:
        issuer = node_files.load_authority(world.security.folder)
        assert issuer is not None
        world.security.folder.file("authority.key").unlink()
        await world.security.stop()
        joined = World(tmp_path / "data", world.registry)
        await joined.start()
        security = joined.security
        assert not security.authority.issues
        assert world.token("node@n1") is None
        assert not security.lives()[0].is_renewed
        with pytest.raises(Invalid, match="no key on this node"):
            security.authority.sign(create_request(new_key(), "x"), name="x", token_id="0" * 16, role=TokenRole.NODE)
        requests: list[bytes] = []

        security.folder.write(NODE_TOKEN, NODE_TOKEN_TEXT.encode())

        async def request(request_pem: bytes, token: str, authority: bytes, hash: str) -> NewCertificate:
            assert (authority, hash) == (issuer.certificate_pem(), issuer.hash)
            if token != NODE_TOKEN_TEXT:
                raise AdsumError("the certificate of the operator is another matter")
            requests.append(request_pem)
            if len(requests) == 1:
                raise AdsumError("no node answers")
            chain = issuer.sign(request_pem, name="n1", token_id="1" * 16, role=TokenRole.NODE, now=joined.clock.wall())
            return NewCertificate(chain, issuer.certificate_pem())

        security.request_certificate = request
        assert security.lives()[0].is_renewed
        joined.clock.jump(0.6 * WEEK)
        for _ in range(3):
            await security.look()
        assert len(requests) == 1
        joined.clock.jump(RENEWAL_RETRY)
        for _ in range(3):
            await security.look()
        assert len(requests) == 2
        assert caplog.text.count("the certificates of programs on this host can't be renewed: the certificate of") == 1
        assert token_id_of(security.certificates.served.pair.leaf) == "1" * 16
        await security.stop()


async def test_a_running_node_takes_over_certificates_that_were_renewed_on_its_host(tmp_path: Path) -> None:
    async with _world(tmp_path) as world:
        await world.start()
        security, clock = world.security, world.clock
        before, hash_before = security.authority.certificate_pem(), security.authority.hash()
        clock.jump(11 * 366 * 86_400.0)
        for _ in range(2):
            await security.look()
        names = node_files.prepare_files(security.folder, "n1", security.names, clock.wall())
        assert names.made == []
        node_files.renew_files(security.folder, "n1", security.names, clock.wall())
        for _ in range(2):
            await security.look()
        assert security.authority.certificate_pem() != before
        assert security.authority.hash() == hash_before
        assert all(life.expires > clock.wall() for life in security.lives())
        assert security.folder.read("operator/authority.pem") == security.authority.certificate_pem()


async def test_expiry_is_a_metric_a_view_and_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clients = trustme.CA()
    file = tmp_path / "clients.pem"
    file.write_bytes(clients.cert_pem.bytes())
    async with _world(tmp_path, tls_client_ca=str(file)) as world:
        await world.start()
        (metric,) = world.security.metrics()
        values = {sample.labels["certificate"]: sample.value for sample in metric.samples}
        now = world.clock.wall()
        assert values["node"] == now + WEEK
        assert values["authority"] > now + 9 * 365 * 86_400.0
        assert set(values) == {"node", "authority", "client-authority"}
        assert [view.name for view in world.security.views()] == ["node", "authority", "client-authority"]
        authority = node_files.load_authority(world.security.folder)
        assert authority is not None
        world.clock.jump(authority.expires - now - 6.5 * 86_400.0)
        await world.security.look()
        assert caplog.text.count("the certificate authority expires in 6 days") == 1
        assert "adsum init --renew" in caplog.text


async def test_own_certificates_need_no_authority_but_an_admin_token(tmp_path: Path) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("registry.example")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(leaf.cert_chain_pems[0].bytes() + authority.cert_pem.bytes())
    key.write_bytes(leaf.private_key_pem.bytes())
    settings = {"secure": False, "tls_cert": str(chain), "tls_key": str(key), "xds": "off"}
    async with _world(tmp_path, **settings) as world:
        await world.start()
        security = world.security
        assert (security.authority.issues, security.authority.is_external) == (False, True)
        assert security.authority.certificate_pem() == authority.cert_pem.bytes()
        assert len(security.authority.hash()) == 64
        with pytest.raises(Invalid, match="own certificates"):
            security.authority.sign(b"", name="x", token_id="0" * 16, role=TokenRole.NODE)
        assert world.accepts(security.admin_token_file.read_text())
        assert world.token("node@n1") is None
        assert security.folder.read("authority.key") is None
        described = json.loads(security.folder.file("operator/registry.json").read_text())
        assert described["urls"] == ["https://registry.example:23786"]
        assert [life.name for life in security.lives()] == ["server"]
        assert not security.lives()[0].is_renewed


async def test_own_certificates_without_their_root_name_no_authority(tmp_path: Path) -> None:
    leaf = trustme.CA().issue_cert("registry.example")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(leaf.cert_chain_pems[0].bytes())
    key.write_bytes(leaf.private_key_pem.bytes())
    settings = {"secure": False, "tls_cert": str(chain), "tls_key": str(key), "xds": "off"}
    async with _world(tmp_path, **settings) as world:
        assert (world.security.authority.certificate_pem(), world.security.authority.hash()) == (b"", "")


async def test_two_nodes_never_share_a_folder(tmp_path: Path) -> None:
    async with _world(tmp_path) as world:
        with pytest.raises(SecurityFolderInUse):
            World(tmp_path / "data", world.registry, node="n2")
        await world.security.stop()
        await World(tmp_path / "data", world.registry).security.stop()


async def test_a_start_that_fails_leaves_the_folder_free(tmp_path: Path) -> None:
    async with _world(tmp_path) as world:
        await world.security.stop()
        world.security.folder.write("authority.pem", b"broken")
        for _ in range(2):
            with pytest.raises(Invalid):
                World(tmp_path / "data", world.registry)


async def test_a_running_node_looks_about_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with _world(tmp_path) as world:
        looks: list[float] = []

        async def look() -> None:
            looks.append(world.clock.now())
            if len(looks) == 2:
                raise OSError("a look that fails does not end the others")

        await world.start()
        monkeypatch.setattr(world.security, "look", look)
        began = world.clock.now()
        await world.clock.advance(4.5)
        assert [at - began for at in looks] == [1.0, 2.0, 3.0, 4.0]


def test_the_scopes_of_a_node_include_no_rights_over_services_but_reading() -> None:
    assert isinstance(NODE_SCOPES, Scopes)
    assert not NODE_SCOPES.is_admin
    assert EVERYTHING.includes(NODE_SCOPES)
    assert NODE_SCOPES.texts() == ["node", "read:*"]
