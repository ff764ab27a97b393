"""Certificate renewal: a new pair is used only if it fits and Envoy accepts it."""

from __future__ import annotations

import logging
import os
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from adsum.certificates.certificate import MAX_CERTIFICATES_BYTES
from adsum.envoy.certificates import certificate
from adsum.envoy.certificates.gateway_secrets import GatewaySecrets, SecretRenewal
from adsum.envoy.plan import GatewayPlan
from adsum.envoy.preflight import CannotServe
from tests.envoy.plans import plan_for
from tests.support.certificates import certificate as make_certificate
from tests.support.programs import need

PLAN = plan_for()

pytestmark = pytest.mark.needs("envoy")


class CertificateFiles:
    """The files that an operator replaces, in two folders."""

    def __init__(self, folder: Path) -> None:
        self.chain, self.key = folder / "certs" / "chain.pem", folder / "keys" / "key.pem"
        for path in (self.chain, self.key):
            path.parent.mkdir()
        profile = replace(PLAN.profile, tls_certificate=str(self.chain), tls_key=str(self.key))
        self.plan: GatewayPlan = replace(PLAN, profile=profile)
        self.work_folder = folder / "ours"
        self.work_folder.mkdir()
        self._folder = folder

    def make(self, name: str, curve: str = "prime256v1") -> tuple[bytes, bytes]:
        chain, key = make_certificate(self._folder, name, curve)
        return chain.read_bytes(), key.read_bytes()

    def put(self, chain: bytes, key: bytes) -> None:
        self.chain.write_bytes(chain)
        self.key.write_bytes(key)

    def poll_thrice(self, renewal: SecretRenewal) -> list[bool]:
        """The results of three polls in a row: whether there was a new pair."""
        return [bool(renewal.poll(self.plan, self.work_folder)) for _ in range(3)]


@pytest.fixture
def files(tmp_path: Path) -> CertificateFiles:
    return CertificateFiles(tmp_path)


def test_a_new_pair_is_used_once_it_was_found_twice(files: CertificateFiles) -> None:
    files.put(*files.make("first"))
    renewal = SecretRenewal(GatewaySecrets(certificate.read_pair(files.plan)))
    assert files.poll_thrice(renewal) == [False, False, False]
    files.put(*files.make("second"))
    assert files.poll_thrice(renewal) == [False, True, False]
    assert renewal.secrets.pair == certificate.read_pair(files.plan)
    assert list(files.work_folder.iterdir()) == []


def test_half_a_pair_is_never_used_and_reported_once(files: CertificateFiles, caplog: pytest.LogCaptureFixture) -> None:
    first, second = files.make("first"), files.make("second")
    files.put(*first)
    renewal = SecretRenewal(GatewaySecrets(certificate.read_pair(files.plan)))
    before = renewal.secrets.pair
    files.put(second[0], first[1])
    assert files.poll_thrice(renewal) == [False, False, False]
    assert renewal.secrets.pair == before
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert caplog.messages[0].endswith("the key does not belong to the certificate")
    files.put(*second)
    assert files.poll_thrice(renewal) == [False, True, False]


def test_files_that_are_being_replaced_are_not_reported(
    files: CertificateFiles, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = files.make("first"), files.make("second")
    files.put(*first)
    renewal = SecretRenewal(GatewaySecrets(certificate.read_pair(files.plan)))
    files.chain.unlink()
    assert not renewal.poll(files.plan, files.work_folder)
    files.put(second[0], first[1])
    assert not renewal.poll(files.plan, files.work_folder)
    files.put(*second)
    assert files.poll_thrice(renewal) == [False, True, False]
    assert caplog.messages == []


def test_missing_files_keep_the_current_pair(files: CertificateFiles, caplog: pytest.LogCaptureFixture) -> None:
    files.put(*files.make("first"))
    renewal = SecretRenewal(GatewaySecrets(certificate.read_pair(files.plan)))
    files.key.unlink()
    assert files.poll_thrice(renewal) == [False, False, False]
    assert [message.rpartition(": ")[2] for message in caplog.messages] == ["No such file or directory"]


def test_a_pair_that_envoy_rejects_is_not_used(files: CertificateFiles, caplog: pytest.LogCaptureFixture) -> None:
    files.put(*files.make("first"))
    renewal = SecretRenewal(GatewaySecrets(certificate.read_pair(files.plan)))
    files.put(*files.make("odd", "secp256k1"))  # Python's library accepts it.
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.chain, files.key)
    assert files.poll_thrice(renewal) == [False, False, False]
    assert caplog.messages[0].endswith("Envoy rejects them: Failed to load certificate chain")


@pytest.mark.parametrize(
    ("chain", "key", "reason"),
    [
        (b"", b"", "they are not valid PEM files"),
        (None, b"", "they are not valid PEM files"),
    ],
    ids=["empty", "keyless"],
)
def test_an_invalid_pair_is_rejected(files: CertificateFiles, chain: bytes | None, key: bytes, reason: str) -> None:
    good = files.make("first")
    files.put(good[0] if chain is None else chain, key)
    with pytest.raises(CannotServe, match=reason):
        certificate.validate_pair(certificate.read_pair(files.plan), files.plan, files.work_folder)


@pytest.mark.parametrize("options", [[], ["-traditional"]], ids=["pkcs8", "traditional"])
def test_an_encrypted_key_is_rejected_with_the_remedy(
    files: CertificateFiles, tmp_path: Path, options: list[str]
) -> None:
    chain, key = files.make("first")
    plain, encrypted = tmp_path / "plain.key", tmp_path / "encrypted.key"
    plain.write_bytes(key)
    command = [str(need("openssl")), "pkey", *options, "-aes256", "-passout", "pass:secret"]
    subprocess.run([*command, "-in", str(plain), "-out", str(encrypted)], check=True, capture_output=True)
    files.put(chain, encrypted.read_bytes())
    with pytest.raises(CannotServe, match=r"the key is encrypted .*openssl pkey"):
        certificate.validate_pair(certificate.read_pair(files.plan), files.plan, files.work_folder)


def test_a_chain_and_a_key_may_share_one_file(files: CertificateFiles) -> None:
    chain, key = files.make("first")
    files.put(chain + key, chain + key)
    pair = certificate.read_pair(files.plan)
    assert pair == b"\n".join([chain.strip(), key.strip(), b""])
    certificate.validate_pair(pair, files.plan, files.work_folder)


def test_a_huge_file_is_refused_before_it_is_read_as_a_whole(files: CertificateFiles) -> None:
    files.put(*files.make("first"))
    os.truncate(files.chain, 2 * MAX_CERTIFICATES_BYTES)
    with pytest.raises(CannotServe, match=r"--tls-cert: .* must have at most 1048576 bytes"):
        certificate.read_pair(files.plan)


def test_a_missing_folder_is_reported(files: CertificateFiles) -> None:
    files.put(*files.make("first"))
    with pytest.raises(CannotServe, match="can't be checked in"):
        certificate.validate_pair(certificate.read_pair(files.plan), files.plan, files.work_folder / "gone")
