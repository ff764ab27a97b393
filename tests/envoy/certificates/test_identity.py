"""The files of a gateway's identity at its registry: reading, checking, renewal and installation."""

from __future__ import annotations

import json
import logging
import stat
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adsum.client.credentials.folder import CredentialsFolder
from adsum.client.credentials.xds import XdsCredentials, folder_credentials
from adsum.envoy.certificates.gateway_secrets import GatewaySecrets, SecretRenewal
from adsum.envoy.certificates.identity import RegistryIdentity, read_identity, validate_identity
from adsum.envoy.plan import GatewayPlan
from adsum.envoy.preflight import CannotServe
from adsum.envoy.process.registry_cluster import AUTHORITY_FILE, IDENTITY_FILE
from tests.envoy.plans import plan_for
from tests.envoy.secure_registry import SecureRegistry
from tests.support.certificates import certificate as make_certificate

XDS = "10.0.0.5:23787"


class JoinedHost:
    """A host that has joined a registry, and its gateway."""

    def __init__(self, path: Path) -> None:
        self.registry = SecureRegistry()
        self.path = path
        self.folder: CredentialsFolder = self.registry.join(path / "joined", xds=XDS)
        self.plan: GatewayPlan = plan_for(("10.0.0.5", 23787), xds_credentials=folder_credentials(self.folder.path))
        self.work_folder = path / "ours"
        self.work_folder.mkdir()

    def identity(self) -> RegistryIdentity:
        found = read_identity(self.plan)
        assert found is not None
        return found

    def poll_thrice(self, renewal: SecretRenewal) -> list[bool]:
        return [bool(renewal.poll(self.plan, self.work_folder)) for _ in range(3)]


@pytest.fixture
def host(tmp_path: Path) -> JoinedHost:
    return JoinedHost(tmp_path)


def test_a_plan_in_plain_text_has_no_identity() -> None:
    assert read_identity(plan_for(("127.0.0.1", 1))) is None


def test_a_certificate_of_the_same_key_is_used_once_it_was_found_twice(host: JoinedHost) -> None:
    renewal = SecretRenewal(GatewaySecrets(identity=host.identity()))
    assert host.poll_thrice(renewal) == [False, False, False]
    host.registry.renew(host.folder)
    assert host.poll_thrice(renewal) == [False, True, False]
    assert renewal.secrets.identity == host.identity()


def test_a_host_that_joins_again_gets_another_key_and_authority(host: JoinedHost) -> None:
    renewal = SecretRenewal(GatewaySecrets(identity=host.identity()))
    SecureRegistry().join(host.folder.path, xds=XDS, token_id="2" * 16)
    assert host.poll_thrice(renewal) == [False, True, False]


def test_half_a_folder_is_never_used_and_reported_once(host: JoinedHost, caplog: pytest.LogCaptureFixture) -> None:
    before = host.identity()
    renewal = SecretRenewal(GatewaySecrets(identity=before))
    (host.folder.path / "client.key").unlink()
    assert host.poll_thrice(renewal) == [False, False, False]
    other = host.registry.join(host.path / "other", xds=XDS)
    (host.folder.path / "client.key").write_bytes((other.path / "client.key").read_bytes())
    assert host.poll_thrice(renewal) == [False, False, False]
    assert renewal.secrets.identity == before
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert all("the certificate for the registry is not renewed" in message for message in caplog.messages)
    assert "PRIVATE" not in caplog.text


def test_a_problem_with_the_listeners_certificate_does_not_hold_back_this_one(
    host: JoinedHost, caplog: pytest.LogCaptureFixture
) -> None:
    profile = replace(host.plan.profile, tls_certificate=str(host.path / "gone"), tls_key=str(host.path / "gone"))
    host.plan = replace(host.plan, profile=profile)
    renewal = SecretRenewal(GatewaySecrets(b"pair", host.identity()))
    host.registry.renew(host.folder)
    assert host.poll_thrice(renewal) == [False, True, False]
    assert renewal.secrets.pair == b"pair"


def test_what_is_installed_is_private_and_names_files_of_that_folder_only(host: JoinedHost) -> None:
    secrets = GatewaySecrets(identity=host.identity())
    secrets.install(host.work_folder)
    for path in host.work_folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert b"PRIVATE KEY" in (host.work_folder / IDENTITY_FILE).read_bytes()
    assert (host.work_folder / AUTHORITY_FILE).read_bytes() == host.registry.authority.certificate_pem()
    for path in host.work_folder.glob("*.json"):
        text = path.read_text()
        assert json.loads(text)["resources"]
        assert "PRIVATE" not in text
        assert str(host.folder.path) not in text
    assert "PRIVATE" not in repr(secrets)
    host.registry.renew(host.folder)
    renewed = GatewaySecrets(identity=host.identity())
    renewed.install(host.work_folder)
    assert renewed.identity is not None
    assert renewed.identity.pair is not None
    assert renewed.identity.pair.chain in (host.work_folder / IDENTITY_FILE).read_bytes()


@pytest.mark.parametrize("name", ["authority.pem", "client.pem", "client.key"])
@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_a_file_that_can_not_be_used_is_named_with_the_remedy(
    host: JoinedHost, name: str, content: bytes | None
) -> None:
    path = host.folder.path / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(CannotServe) as refused:
        read_identity(host.plan)
    assert str(path) in str(refused.value)
    assert "`adsum join` writes them anew" in str(refused.value)


def test_own_files_are_named_by_their_settings(host: JoinedHost) -> None:
    own = XdsCredentials(host.path / "ca.pem", host.folder.path / "client.pem", host.folder.path / "client.key")
    plan = replace(host.plan, xds_credentials=own)
    with pytest.raises(CannotServe, match=r"--xds-authority: .*ca\.pem can't be read: No such file"):
        read_identity(plan)


@pytest.mark.needs("envoy")
def test_own_certificates_are_checked_with_envoy(host: JoinedHost) -> None:
    chain, key = make_certificate(host.path, "odd", "secp256k1")
    own = XdsCredentials(host.folder.path / "authority.pem", chain, key)
    plan = replace(host.plan, xds_credentials=own)
    with pytest.raises(CannotServe, match=r"--xds-cert .*odd\.pem"):
        validate_identity(read_identity(plan), plan, host.work_folder)
    assert list(host.work_folder.iterdir()) == []
    validate_identity(host.identity(), host.plan, host.work_folder)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["authority.pem", "client.pem", "client.key"]), data=st.data())
def test_no_content_of_a_file_raises_anything_else(host: JoinedHost, name: str, data: st.DataObject) -> None:
    path = host.folder.path / name
    right = path.read_bytes()
    position = data.draw(st.integers(0, len(right)))
    inserted = data.draw(st.binary(max_size=80) | st.just(right))
    path.write_bytes(right[:position] + inserted + right[position + data.draw(st.integers(0, 40)) :])
    try:
        with suppress(CannotServe):
            read_identity(host.plan)
    finally:
        path.write_bytes(right)
