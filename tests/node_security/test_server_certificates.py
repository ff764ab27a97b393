"""The certificate of the servers is replaced when its files fit, and stays otherwise."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import pytest
import trustme

from adsum.core.errors import Invalid
from adsum.node_security.server_certificates import NodeCertificates, ServerFiles


class OwnFiles:
    """The operator's files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.chain, self.key, self.clients = folder / "chain.pem", folder / "key.pem", folder / "clients.pem"
        self.work = folder / "work"
        self.work.mkdir(mode=0o700)
        self.write()
        self.clients.write_bytes(self.authority.cert_pem.bytes())

    def write(self) -> None:
        """Writes another certificate and key."""
        leaf = self.authority.issue_cert("localhost")
        self.chain.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        self.key.write_bytes(leaf.private_key_pem.bytes())

    def load(self) -> NodeCertificates:
        return NodeCertificates(ServerFiles(self.chain, self.key, [(self.clients, "tls_client_ca")]), self.work)


@pytest.fixture
def files(tmp_path: Path) -> OwnFiles:
    return OwnFiles(tmp_path)


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[bytes | None, bytes | None]:
    """Returns the certificates that the client and the server have got."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    left = client.wrap_bio(incoming, outgoing, server_hostname="localhost")
    right = server.wrap_bio(outgoing, incoming, server_side=True)
    for _ in range(4):
        for side in (left, right):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return left.getpeercert(binary_form=True), right.getpeercert(binary_form=True)


def _client(files: OwnFiles, leaf: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=files.authority.cert_pem.bytes().decode())
    if leaf is not None:
        leaf.configure_cert(context)
    return context


def test_a_client_may_have_a_certificate_of_the_authorities_or_none(files: OwnFiles) -> None:
    context = files.load().ssl_context()
    leaf = files.authority.issue_cert(common_name="client")
    assert _handshake(context, _client(files))[1] is None
    assert _handshake(context, _client(files, leaf))[1] == ssl.PEM_cert_to_DER_cert(
        leaf.cert_chain_pems[0].bytes().decode()
    )
    with pytest.raises(ssl.SSLError):
        _handshake(context, _client(files, trustme.CA().issue_cert(common_name="client")))


def test_a_bundle_of_authorities_may_have_comments_in_any_language(files: OwnFiles) -> None:
    files.clients.write_bytes("# Zertifizierungsstelle für Büros\n".encode() + files.clients.read_bytes())
    certificates = files.load()
    leaf = files.authority.issue_cert(common_name="client")
    assert _handshake(certificates.ssl_context(), _client(files, leaf))[1] is not None
    assert certificates.client_authorities() == files.authority.cert_pem.bytes()


def test_old_versions_of_tls_are_refused(files: OwnFiles) -> None:
    assert files.load().ssl_context().minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_new_pair_is_served_once_it_was_found_twice(files: OwnFiles) -> None:
    certificates = files.load()
    context, before = certificates.ssl_context(), certificates.key_pair()
    assert not certificates.poll()
    files.write()
    assert not certificates.poll()
    assert certificates.ssl_context() is context
    assert certificates.poll()
    assert certificates.version == 2
    assert certificates.key_pair() == (files.key.read_bytes(), files.chain.read_bytes()) != before
    assert certificates.ssl_context() is not context
    served, _ = _handshake(certificates.ssl_context(), _client(files))
    assert served == ssl.PEM_cert_to_DER_cert(
        files.chain.read_text().partition("-----END")[0] + "-----END CERTIFICATE-----\n"
    )
    assert not certificates.poll()


def test_a_pair_that_changes_while_it_is_read_is_not_served(files: OwnFiles) -> None:
    certificates = files.load()
    for _ in range(5):
        files.write()
        assert not certificates.poll()
    assert certificates.version == 1


@pytest.mark.parametrize("damage", ["half", "other key", "empty", "missing"])
def test_a_pair_that_does_not_fit_is_reported_once_and_the_old_one_stays(
    files: OwnFiles, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    certificates = files.load()
    context, good = certificates.ssl_context(), files.key.read_bytes()
    chain = files.chain.read_bytes()
    if damage == "half":
        files.chain.write_bytes(chain[: len(chain) // 3])
    elif damage == "other key":
        files.key.write_bytes(files.authority.issue_cert("x").private_key_pem.bytes())
    elif damage == "empty":
        files.key.write_bytes(b"")
    else:
        files.chain.unlink()
    for _ in range(5):
        assert not certificates.poll()
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "stays in use" in errors[0]
    assert good.decode().splitlines()[1] not in errors[0]
    assert (certificates.version, certificates.ssl_context()) == (1, context)
    files.write()
    certificates.poll()
    assert certificates.poll()


def test_the_same_files_again_are_no_new_version(files: OwnFiles) -> None:
    certificates, chain = files.load(), files.chain.read_bytes()
    files.chain.unlink()
    for _ in range(3):
        certificates.poll()
    files.chain.write_bytes(chain)
    for _ in range(3):
        assert not certificates.poll()
    assert certificates.version == 1


def test_other_authorities_of_clients_are_a_new_version(files: OwnFiles) -> None:
    certificates, other = files.load(), trustme.CA()
    files.clients.write_bytes(files.clients.read_bytes() + other.cert_pem.bytes())
    certificates.poll()
    assert certificates.poll()
    assert other.cert_pem.bytes() in certificates.client_authorities()
    _handshake(certificates.ssl_context(), _client(files, other.issue_cert(common_name="client")))


def test_files_that_do_not_fit_at_the_start_are_refused_by_their_setting(files: OwnFiles) -> None:
    files.clients.write_bytes(b"nothing")
    with pytest.raises(Invalid, match="PEM") as refused:
        files.load()
    assert refused.value.field == "tls_client_ca"
    files.key.unlink()
    with pytest.raises(Invalid, match="can't be read") as refused:
        files.load()
    assert refused.value.field == "tls_key"


def test_no_key_is_left_in_the_folder(files: OwnFiles) -> None:
    certificates = files.load()
    files.write()
    for _ in range(2):
        certificates.poll()
    assert certificates.version == 2
    assert list(files.work.iterdir()) == []


def test_a_server_without_authorities_of_clients_requests_no_certificates(files: OwnFiles) -> None:
    certificates = NodeCertificates(ServerFiles(files.chain, files.key), files.work)
    leaf = trustme.CA().issue_cert(common_name="client")
    assert certificates.client_authorities() == b""
    assert _handshake(certificates.ssl_context(), _client(files, leaf))[1] is None
