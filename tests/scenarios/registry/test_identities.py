"""Callers that prove who they are with certificates and JWTs, at a node that serves TLS."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from adsum.config.serve import ServeConfig
from tests.access.authorities import TestAuthority
from tests.access.issuers import AUDIENCE, ISSUER, jwk, jwk_set, sign
from tests.support.registry_daemon import RunningDaemon

INSTANCE = {"address": "127.0.0.9", "port": 8000}


class SecureNode:
    """A node that was started with `--secure`, and trusts a corporate authority and an issuer of JWTs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.corporate = TestAuthority("Corporate authority", time.time())
        (folder / "corporate.pem").write_bytes(self.corporate.pem)
        (folder / "keys.json").write_bytes(jwk_set(jwk("p256", kid="k1")))
        self.config = ServeConfig(
            secure=True,
            data=str(folder / "data"),
            store="memory:",
            listen="127.0.0.1:0",
            xds="off",
            node="n1",
            tls_client_ca=str(folder / "corporate.pem"),
            certificate_scopes=("spiffe://corp/team-a/*=write:team-a-*",),
            jwt_issuer=ISSUER,
            jwt_audience=AUDIENCE,
            jwt_keys=str(folder / "keys.json"),
            jwt_scopes=("groups=team-a=read:*",),
        )
        self.daemon = RunningDaemon(self.config)
        self.security = folder / "data" / "security"

    @property
    def admin_token(self) -> str:
        return (self.security / "admin-token").read_text().strip()

    def client(self, certificate: tuple[str, str] | None = None, token: str = "") -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self.security / "authority.pem"))
        if certificate is not None:
            context.load_cert_chain(*certificate)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=f"{self.daemon.url}/api/v1", verify=context, headers=headers, trust_env=False)

    def own_authority(self) -> TestAuthority:
        key = load_pem_private_key((self.security / "authority.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return TestAuthority("Adsum authority", time.time(), key)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureNode]:
    node = SecureNode(tmp_path_factory.mktemp("node"))
    yield node
    node.daemon.stop()


def caller(client: httpx.Client) -> tuple[str, str, list[str]]:
    answer = client.get("/caller")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return body["name"], body["method"], body["scopes"]


def test_a_certificate_of_another_authority_has_the_scopes_of_the_rules(node: SecureNode, tmp_path: Path) -> None:
    with node.client(node.corporate.write(tmp_path, "spiffe://corp/team-a/web")) as client:
        assert caller(client) == ("spiffe://corp/team-a/web", "certificate", ["write:team-a-*"])
        assert client.put("/services/team-a-x/instances/i1", json=INSTANCE).status_code in (200, 201)
        assert client.put("/services/orders/instances/i1", json=INSTANCE).status_code == 403
        assert client.get("/services/orders").status_code == 404


def test_a_jwt_has_the_scopes_of_its_claims(node: SecureNode) -> None:
    with node.client(token=sign(exp=time.time() + 600)) as client:
        assert caller(client) == ("jwt:ann@login.example.org", "jwt", ["read:*"])
        assert client.delete("/services/team-a-x/instances/i1").status_code == 403
    with node.client(token=sign(exp=time.time() + 600, aud="another")) as client:
        assert client.get("/services/orders").status_code == 401


def test_a_certificate_of_the_registry_is_its_token_until_that_is_revoked(node: SecureNode, tmp_path: Path) -> None:
    with node.client(token=node.admin_token) as admin:
        issued = admin.post("/tokens", json={"name": "web", "scopes": ["read:*"]}).json()
        id = issued["token"].split("_")[1]
        with node.client(node.own_authority().write(tmp_path, f"spiffe://adsum/token/{id}")) as client:
            assert caller(client) == ("web", "certificate", ["read:*"])
            assert admin.delete("/tokens/web").status_code == 200
            refused = client.get("/services/orders")
            assert (refused.status_code, refused.headers["www-authenticate"][:6]) == (401, "Bearer")
            assert "revoked" in refused.json()["detail"]


def test_another_authority_can_not_claim_a_token_of_the_registry(node: SecureNode, tmp_path: Path) -> None:
    with node.client(token=node.admin_token) as admin:
        id = admin.post("/tokens", json={"name": "victim", "scopes": ["admin"]}).json()["token"].split("_")[1]
    with node.client(node.corporate.write(tmp_path, f"spiffe://adsum/token/{id}")) as client:
        assert client.get("/services/orders").status_code == 401


def test_a_token_outranks_the_certificate_of_the_connection(node: SecureNode, tmp_path: Path) -> None:
    certificate = node.corporate.write(tmp_path, "spiffe://corp/team-a/web")
    with node.client(certificate, node.admin_token) as client:
        assert caller(client)[:2] == ("admin@n1", "token")
    with node.client(certificate, "adsum_" + "0" * 16 + "_" + "x" * 43) as client:
        assert client.get("/services/team-a-x").status_code == 401


def test_other_scopes_count_after_a_reload(node: SecureNode, tmp_path: Path) -> None:
    with node.client(node.corporate.write(tmp_path, "spiffe://corp/team-a/web")) as client:
        node.daemon.reload(replace(node.config, certificate_scopes=("spiffe://corp/*=read:orders",)))
        assert caller(client) == ("spiffe://corp/team-a/web", "certificate", ["read:orders"])
        node.daemon.reload(node.config)
        assert caller(client)[2] == ["write:team-a-*"]
