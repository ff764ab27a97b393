"""Which certificate a gateway shows: one that fits its key and that Envoy takes, else the one before."""

from __future__ import annotations

import logging
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from adsum.envoy.certificates import certificate
from adsum.envoy.certificates.renewal import CertificateRenewal
from adsum.envoy.plan import GatewayPlan
from adsum.envoy.preflight import CannotServe
from tests.envoy.plans import plan_for
from tests.support.certificates import certificate as made
from tests.support.programs import need

PLAN = plan_for()

pytestmark = pytest.mark.needs("envoy")


class CertificateFiles:
    """The files that an operator replaces, in two folders."""

    def __init__(self, folder: Path) -> None:
        self.chain, self.key = folder / "certs" / "chain.pem", folder / "keys" / "key.pem"
        for each in (self.chain, self.key):
            each.parent.mkdir()
        shape = replace(PLAN.profile, tls_certificate=str(self.chain), tls_key=str(self.key))
        self.plan: GatewayPlan = replace(PLAN, profile=shape)
        self.ours = folder / "ours"
        self.ours.mkdir()
        self._made = folder

    def make(self, name: str, curve: str = "prime256v1") -> tuple[bytes, bytes]:
        chain, key = made(self._made, name, curve)
        return chain.read_bytes(), key.read_bytes()

    def put(self, chain: bytes, key: bytes) -> None:
        self.chain.write_bytes(chain)
        self.key.write_bytes(key)

    def looks(self, renewal: CertificateRenewal) -> list[bool]:
        """Of three in a row."""
        return [renewal.poll(self.plan, self.ours) for _ in range(3)]


@pytest.fixture
def files(tmp_path: Path) -> CertificateFiles:
    return CertificateFiles(tmp_path)


def test_another_pair_is_taken_once_it_was_found_twice(files: CertificateFiles) -> None:
    files.put(*files.make("first"))
    renewal = CertificateRenewal(certificate.read_pair(files.plan.profile))
    assert files.looks(renewal) == [False, False, False]
    files.put(*files.make("second"))
    assert files.looks(renewal) == [False, True, False]
    assert renewal.pair == certificate.read_pair(files.plan.profile)
    assert list(files.ours.iterdir()) == []


def test_half_a_pair_is_never_taken_and_told_of_once(files: CertificateFiles, caplog: pytest.LogCaptureFixture) -> None:
    first, second = files.make("first"), files.make("second")
    files.put(*first)
    renewal = CertificateRenewal(certificate.read_pair(files.plan.profile))
    before = renewal.pair
    files.put(second[0], first[1])
    assert files.looks(renewal) == [False, False, False]
    assert renewal.pair == before
    assert [each.levelno for each in caplog.records] == [logging.ERROR]
    assert caplog.messages[0].endswith("the key is not the certificate's")
    files.put(*second)
    assert files.looks(renewal) == [False, True, False]


def test_what_is_being_replaced_is_not_told_of(files: CertificateFiles, caplog: pytest.LogCaptureFixture) -> None:
    first, second = files.make("first"), files.make("second")
    files.put(*first)
    renewal = CertificateRenewal(certificate.read_pair(files.plan.profile))
    files.chain.unlink()
    assert not renewal.poll(files.plan, files.ours)
    files.put(second[0], first[1])
    assert not renewal.poll(files.plan, files.ours)
    files.put(*second)
    assert files.looks(renewal) == [False, True, False]
    assert caplog.messages == []


def test_files_that_are_gone_leave_the_pair_that_is_shown(
    files: CertificateFiles, caplog: pytest.LogCaptureFixture
) -> None:
    files.put(*files.make("first"))
    renewal = CertificateRenewal(certificate.read_pair(files.plan.profile))
    files.key.unlink()
    assert files.looks(renewal) == [False, False, False]
    assert [each.rpartition(": ")[2] for each in caplog.messages] == ["No such file or directory"]


def test_what_envoy_refuses_is_not_taken(files: CertificateFiles, caplog: pytest.LogCaptureFixture) -> None:
    files.put(*files.make("first"))
    renewal = CertificateRenewal(certificate.read_pair(files.plan.profile))
    files.put(*files.make("odd", "secp256k1"))  # Python's library takes it.
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.chain, files.key)
    assert files.looks(renewal) == [False, False, False]
    assert caplog.messages[0].endswith("Envoy refuses them: Failed to load certificate chain")


@pytest.mark.parametrize(
    ("chain", "key", "why"),
    [
        (b"", b"", "they are no PEM files that can be used"),
        (None, b"", "they are no PEM files that can be used"),
    ],
    ids=["empty", "keyless"],
)
def test_what_is_no_pair_is_refused(files: CertificateFiles, chain: bytes | None, key: bytes, why: str) -> None:
    good = files.make("first")
    files.put(good[0] if chain is None else chain, key)
    with pytest.raises(CannotServe, match=why):
        certificate.validate_pair(certificate.read_pair(files.plan.profile), files.plan, files.ours)


@pytest.mark.parametrize("form", [[], ["-traditional"]], ids=["pkcs8", "traditional"])
def test_an_encrypted_key_is_refused_with_what_to_do(files: CertificateFiles, tmp_path: Path, form: list[str]) -> None:
    chain, key = files.make("first")
    plain, encrypted = tmp_path / "plain.key", tmp_path / "encrypted.key"
    plain.write_bytes(key)
    command = [str(need("openssl")), "pkey", *form, "-aes256", "-passout", "pass:secret"]
    subprocess.run([*command, "-in", str(plain), "-out", str(encrypted)], check=True, capture_output=True)
    files.put(chain, encrypted.read_bytes())
    with pytest.raises(CannotServe, match=r"the key is encrypted, .*openssl pkey"):
        certificate.validate_pair(certificate.read_pair(files.plan.profile), files.plan, files.ours)


def test_a_chain_and_a_key_in_one_file_are_told_apart(files: CertificateFiles) -> None:
    chain, key = files.make("first")
    files.put(chain + key, chain + key)
    pair = certificate.read_pair(files.plan.profile)
    assert pair == b"\n".join([chain.strip(), key.strip(), b""])
    certificate.validate_pair(pair, files.plan, files.ours)


def test_a_folder_that_is_gone_is_a_reason_and_no_crash(files: CertificateFiles) -> None:
    files.put(*files.make("first"))
    with pytest.raises(CannotServe, match="can't be proven in"):
        certificate.validate_pair(certificate.read_pair(files.plan.profile), files.plan, files.ours / "gone")
