"""Secure nodes over one etcd: they speak to one another over mutual TLS, and forward joins to the authority's key."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from adsum.certificates.authority import Authority, token_id_of
from adsum.certificates.requests import create_request, decode_key, new_key
from adsum.certificates.server_names import ServerNames
from adsum.core.access.tokens import TokenRole, parse_token
from adsum.core.errors import Invalid, Unauthenticated
from adsum.daemon import Daemon
from adsum.node_security import node_security
from adsum.node_security.node_files import prepare_new_authority
from adsum.node_security.security_folder import SecurityFolder
from tests.peers.secure_nodes import SecureNodes
from tests.support.etcd_process import EtcdProcess
from tests.support.waiting import until

SERVICES = [f"s{n}" for n in range(12)]


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdProcess]:
    with EtcdProcess(tmp_path) as etcd:
        yield etcd


@pytest.fixture
def nodes(etcd: EtcdProcess, tmp_path: Path) -> SecureNodes:
    return SecureNodes(tmp_path, etcd.url)


@asynccontextmanager
async def both(nodes: SecureNodes) -> AsyncIterator[tuple[Daemon, Daemon]]:
    """The first node, and one that joined it. They share all services."""
    async with nodes.serving("n1") as first:
        await nodes.join_node(first, "n2")
        async with nodes.serving("n2") as second:
            await until(lambda: all(0 < node.status().shards < 256 for node in (first, second)))
            yield first, second


async def test_nodes_forward_renewals_and_confirm_drains_over_mutual_tls(
    nodes: SecureNodes, caplog: pytest.LogCaptureFixture
) -> None:
    async with both(nodes) as (first, second):
        writer = await nodes.create_token(first, "writer", "write:*")
        async with nodes.http(first, writer) as one, nodes.http(second, writer) as other:
            for service in SERVICES:
                (await one.put(f"/services/{service}/instances/i", json={"port": 80, "ttl": 60})).raise_for_status()
            await until(lambda: first.status().leases + second.status().leases == len(SERVICES))
            assert first.status().leases < len(SERVICES), "each node keeps some"
            for http in (one, other):
                for service in SERVICES:
                    answer = await http.post(f"/services/{service}/instances/i/renew")
                    assert answer.status_code == 200, answer.text
                drained = await http.put("/services/s0/instances/i/override", json={"status": "draining", "wait": 5})
                assert drained.status_code == 200, drained.text
                assert drained.json().get("unacknowledged", []) == drained.json().get("lost", []) == []
    assert "refused" not in caplog.text


async def test_only_nodes_may_forward(nodes: SecureNodes) -> None:
    async with both(nodes) as (first, second):
        tokens = {
            "": "",
            "reader": await nodes.create_token(first, "reader", "read:*"),
            "writer": await nodes.create_token(first, "writer", "write:*"),
            "operator": await nodes.create_token(first, "operator", "operate:*"),
        }
        await until(lambda: second.registry.snapshot.revision >= first.registry.snapshot.revision)
        forwarded = {"Adsum-Forwarded-To": await nodes.node_id("n2")}
        lease = {"leases": [{"service": "s0", "id": "i", "holder": ""}]}
        unacknowledged = "/services/s0/unacknowledged?revision=1"
        for name, token in tokens.items():
            async with nodes.http(second, token, **forwarded) as http:
                for answer in (await http.post("/renew", json=lease), await http.get(unacknowledged)):
                    assert answer.status_code == (403 if name else 401), (name, answer.text)
                    assert "it needs the scope node" in answer.text
        # A header that means nothing to an operation gives no right.
        async with nodes.http(second, certificate="n1", **forwarded) as http:
            assert (await http.post("/renew", json=lease)).status_code == 200
            assert (await http.get(unacknowledged)).status_code == 200
            assert (await http.put("/services/s0/instances/i", json={"port": 80})).status_code == 403
            assert (await http.post("/services/s0/instances/i/renew")).status_code == 403
            assert (await http.get("/tokens")).status_code == 403
        async with nodes.http(second, certificate="n1") as http:
            assert (await http.post("/renew", json=lease)).status_code == 403, "not forwarded"


async def test_a_revoked_node_is_no_longer_a_node(nodes: SecureNodes) -> None:
    async with both(nodes) as (first, _), nodes.http(first, certificate="n2") as http:
        assert (await http.get("/services/s0/unacknowledged?revision=1")).status_code == 200
        async with nodes.http(first, nodes.admin) as admin:
            assert (await admin.delete("/tokens/n2")).status_code == 200
        answer = await http.get("/services/s0/unacknowledged?revision=1")
        assert (answer.status_code, "revoked" in answer.text) == (401, True)


async def test_a_node_without_the_key_forwards_joins_and_certificates(nodes: SecureNodes) -> None:
    async with both(nodes) as (first, second):
        joined = await nodes.join(second, "client", "web1")
        authority = Authority.load((nodes.security("n1") / "authority.pem").read_bytes())
        leaf = x509.load_pem_x509_certificate(joined.certificate.encode())
        assert authority.has_signed(leaf)
        assert token_id_of(leaf) == parse_token(joined.credentials.token).id
        documents = first.registry.snapshot.documents
        token = next(one for kind in documents.by_kind.values() for one in kind.values() if one.key.name == "web1")
        assert token.provenance.actor.startswith("invite:")
        assert token.provenance.peer == "127.0.0.1"

        await until(lambda: second.registry.snapshot.revision >= first.registry.snapshot.revision)
        request = create_request(new_key(), "web1", ["n1.example"]).decode()
        async with nodes.http(second, joined.credentials.token) as http:
            renewed = await http.post("/certificate", json={"certificate_request": request})
            assert renewed.status_code == 200, renewed.text
            assert renewed.headers["cache-control"] == "no-store"
            leaf = x509.load_pem_x509_certificate(renewed.json()["certificate"].encode())
            assert ServerNames.of_certificate(leaf) == ServerNames(), "only nodes get names"
            wrong = await http.post("/certificate", json={"certificate_request": "nonsense"})
            assert (wrong.status_code, wrong.json()["field"]) == (422, "certificate_request")
            assert wrong.headers["content-type"] == "application/problem+json"
        async with nodes.http(second, joined.credentials.token, **{"Adsum-Forwarded-By": "n3"}) as http:
            once = await http.post("/certificate", json={"certificate_request": request})
            assert (once.status_code, "does not have the key" in once.text) == (503, True), "one hop"


async def test_without_an_issuing_node_a_join_says_what_to_do_and_keeps_the_invite(nodes: SecureNodes) -> None:
    async with nodes.serving("n1") as first:
        await nodes.join_node(first, "n2")
        line = await nodes.invite(first, "gateway")
    async with nodes.serving("n2") as second:
        id, secret = line.rpartition("/")[2].partition("#")[0].split(".")
        request = create_request(new_key(), "edge").decode()
        body = {"invite": id, "secret": secret, "name": "edge", "certificate_request": request}
        async with nodes.http(second) as http:
            answer = await http.post("/join", json=body)
            assert answer.status_code == 503, answer.text
            assert "the first one that was started with --secure" in answer.json()["detail"]
            async with nodes.serving("n1"):
                await until(lambda: second.status().peers)
                joined = await http.post("/join", json=body)
                assert joined.status_code == 201, joined.text
                again = await http.post("/join", json={**body, "name": "edge2"})
                assert again.status_code == 401


async def test_a_forged_origin_of_a_join_is_not_recorded(nodes: SecureNodes) -> None:
    async with nodes.serving("n1") as first:
        line = await nodes.invite(first, "client")
        id, secret = line.rpartition("/")[2].partition("#")[0].split(".")
        headers = {"Adsum-Forwarded-By": "n9", "Adsum-Forwarded-For": "192.0.2.9"}
        for name, certificate, peer in (("a", "", "127.0.0.1"), ("b", "n1", "192.0.2.9")):
            async with nodes.http(first, certificate=certificate, **headers) as http:
                answer = await http.post("/join", json={"invite": id, "secret": secret, "name": name})
                assert answer.status_code == 201, answer.text
            documents = first.registry.snapshot.documents
            found = [one for kind in documents.by_kind.values() for one in kind.values() if one.key.name == name]
            assert [one.provenance.peer for one in found] == [peer]


async def test_a_joined_node_gets_a_certificate_with_a_new_name_at_once(
    nodes: SecureNodes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with nodes.serving("n1") as first:
        await nodes.join_node(first, "n2")
        before = x509.load_pem_x509_certificate((nodes.security("n2") / "node.pem").read_bytes())
        assert "registry.example" not in ServerNames.of_certificate(before).dns_names
        async with nodes.serving("n2", tls_name=("registry.example",)):
            await until(lambda: "the certificate was replaced" in caplog.text)
            after = x509.load_pem_x509_certificate((nodes.security("n2") / "node.pem").read_bytes())
            assert "registry.example" in ServerNames.of_certificate(after).dns_names
            assert token_id_of(after) == token_id_of(before)
            assert after.public_key() == before.public_key()


async def test_a_node_whose_token_was_revoked_reports_that_it_can_not_renew(
    nodes: SecureNodes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_security, "RENEWAL_RETRY", 0.0)
    async with nodes.serving("n1") as first:
        await nodes.join_node(first, "n2")
        async with nodes.http(first, nodes.admin) as http:
            (await http.delete("/tokens/n2")).raise_for_status()
        async with nodes.serving("n2", tls_name=("registry.example",)):
            await until(lambda: "the certificate of this node can't be renewed" in caplog.text)
            assert "the token is wrong, or was revoked" in caplog.text
            secret = (nodes.security("n2") / "node-token").read_text().strip().rpartition("_")[2]
            assert secret not in caplog.text


async def test_a_node_that_gets_the_key_issues_certificates_without_a_restart(nodes: SecureNodes) -> None:
    async with nodes.serving("n1") as first:
        await nodes.join_node(first, "n2")
        line = await nodes.invite(first, "client")
    async with nodes.serving("n2") as second:
        shutil.copy(nodes.security("n1") / "authority.key", nodes.security("n2") / "authority.key")
        async with nodes.http(second) as http:

            async def issues() -> bool:
                return bool((await http.get("/authority")).json().get("issues"))

            while not await issues():
                pass
            id, secret = line.rpartition("/")[2].partition("#")[0].split(".")
            request = create_request(new_key(), "web").decode()
            body = {"invite": id, "secret": secret, "name": "web", "certificate_request": request}
            assert (await http.post("/join", json=body)).status_code == 201


async def test_nodes_go_on_when_a_certificate_is_replaced(nodes: SecureNodes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with both(nodes) as (first, second):
        writer = await nodes.create_token(first, "writer", "write:*")
        folder, key = nodes.security("n2"), nodes.security("n1") / "authority.key"
        authority = Authority.load((folder / "authority.pem").read_bytes(), key.read_bytes())
        old = x509.load_pem_x509_certificate((folder / "node.pem").read_bytes())
        names, own_key = ServerNames.of_certificate(old), decode_key("key", (folder / "node.key").read_bytes())
        request = create_request(own_key, "n2", names.dns_names, names.addresses)
        now = old.not_valid_before_utc.timestamp() + 3_700.0
        async with nodes.http(second, writer) as http:
            for service in SERVICES:
                (await http.put(f"/services/{service}/instances/i", json={"port": 80, "ttl": 60})).raise_for_status()
            chain = authority.sign(request, name="n2", token_id=token_id_of(old), role=TokenRole.NODE, now=now)
            (folder / "node.pem").write_bytes(chain)
            await until(lambda: "the certificate was replaced" in caplog.text)
            for service in SERVICES:
                answer = await http.post(f"/services/{service}/instances/i/renew")
                assert answer.status_code == 200, answer.text


async def test_the_operator_of_a_joined_node_gets_a_certificate(
    nodes: SecureNodes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with both(nodes):
        await until(lambda: "the certificate of admin@n2 was renewed" in caplog.text)
        operator = nodes.security("n2") / "operator"
        leaf = x509.load_pem_x509_certificate((operator / "client.pem").read_bytes())
        assert token_id_of(leaf) == parse_token((operator / "token").read_text().strip()).id


async def test_nodes_with_other_protection_are_refused(nodes: SecureNodes, tmp_path: Path) -> None:
    async with nodes.serving("n1"):
        for settings, problem in (
            ({"data": str(tmp_path / "n3")}, "adsum token invite --for node"),
            ({"secure": False, "data": ""}, "must be given: the nodes of this registry serve TLS"),
        ):
            with pytest.raises(Invalid, match=problem):
                async with nodes.serving("n3", **settings):
                    pass
        assert [path.name for path in (tmp_path / "n3/security").iterdir()] == ["lock"]


async def test_a_new_authority_replaces_the_old_one_while_no_other_node_runs(
    nodes: SecureNodes, caplog: pytest.LogCaptureFixture
) -> None:
    async with nodes.serving("n1") as first:
        await nodes.join_node(first, "n2")
        old = (nodes.security("n1") / "node.pem").read_bytes()
    folder = SecurityFolder(nodes.security("n1").parent)
    made = prepare_new_authority(folder, "n1", ServerNames.of(["127.0.0.1"]), time.time())
    async with nodes.serving("n2"):
        with pytest.raises(Invalid, match="stop n2 first, and join them again"):
            async with nodes.serving("n1"):
                pass
    async with nodes.serving("n1") as first:
        assert "every host must join again" in caplog.text
        assert first.access.certificates is not None
        with pytest.raises(Unauthenticated):
            first.access.certificates.identify(x509.load_pem_x509_certificate(old).public_bytes(Encoding.DER))
        with pytest.raises(Invalid, match="does not belong to this registry"):
            async with nodes.serving("n2"):
                pass
        async with nodes.http(first, nodes.admin) as http:
            (await http.delete("/tokens/n2")).raise_for_status()
        joined = await nodes.join_node(first, "n2")
        assert joined.credentials.authority_hash == made.authority.hash
        async with nodes.serving("n2"):
            pass
    caplog.clear()
    async with nodes.serving("n1"):
        assert "every host must join again" not in caplog.text, "once"


async def test_a_secure_node_is_refused_beside_a_living_open_one_and_records_nothing(nodes: SecureNodes) -> None:
    async with nodes.serving("n1", secure=False, data=""):
        with pytest.raises(Invalid, match="stop all nodes without TLS first"):
            async with nodes.serving("n2"):
                pass
    async with nodes.serving("n1", secure=False, data=""), nodes.serving("n3", secure=False, data=""):
        pass


async def test_over_sqlite_a_lost_authority_is_replaced_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone = SecureNodes(tmp_path, f"sqlite:///{tmp_path / 'adsum.db'}")
    for _ in range(2):
        async with alone.serving("n1"):
            assert "every host must join again" not in caplog.text
    shutil.rmtree(alone.security("n1"))
    async with alone.serving("n1"):
        assert "every host must join again" in caplog.text
    async with alone.serving("n1", secure=False, data=""):
        assert "this registry was secure before" in caplog.text
