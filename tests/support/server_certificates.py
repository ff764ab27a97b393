"""Certificates of servers and clients from authorities of the test, and a `ServerCertificates` of them."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import trustme
from cryptography import x509

SERVER_NAMES = ("localhost", "127.0.0.1", "::1")


class FakeServerCertificates:
    """A `ports.ServerCertificates` of an authority that lives as long as the test."""

    def __init__(self) -> None:
        self.authority = trustme.CA()
        self.version = 0
        self._pair = self._issue()
        self._context = self._create_context()

    def replace(self) -> None:
        """Issues another certificate for new connections, of the same authority."""
        self._pair = self._issue()
        self._context = self._create_context()
        self.version += 1

    @property
    def serial_number(self) -> int:
        """The serial number of the newest certificate."""
        return x509.load_pem_x509_certificate(self._pair[1]).serial_number

    def ssl_context(self) -> ssl.SSLContext:
        return self._context

    def key_pair(self) -> tuple[bytes, bytes]:
        return self._pair

    def client_authorities(self) -> bytes:
        return self.authority.cert_pem.bytes()

    def client_context(self, client: trustme.LeafCert | None = None) -> ssl.SSLContext:
        """Returns the context of a client that trusts the server, and sends the certificate of `client`, if any."""
        context = ssl.create_default_context(cadata=self.authority.cert_pem.bytes().decode())
        if client is not None:
            client.configure_cert(context)
        return context

    def issue_client(self) -> trustme.LeafCert:
        """Returns a client certificate of the authority."""
        return issue_client(self.authority)

    def issue_expired_client(self) -> trustme.LeafCert:
        """Returns a client certificate of the authority that expired an hour ago."""
        return issue_client(self.authority, not_after=datetime.now(UTC) - timedelta(hours=1))

    def _issue(self) -> tuple[bytes, bytes]:
        leaf = self.authority.issue_cert(*SERVER_NAMES)
        return leaf.private_key_pem.bytes(), b"".join(blob.bytes() for blob in leaf.cert_chain_pems)

    def _create_context(self) -> ssl.SSLContext:
        key, chain = self._pair
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.num_tickets = 0
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=self.client_authorities().decode())
        with trustme.Blob(key + chain).tempfile() as file:
            context.load_cert_chain(file)
        return context


def issue_client(authority: trustme.CA, not_after: datetime | None = None) -> trustme.LeafCert:
    """Returns a client certificate of an authority."""
    return authority.issue_cert(common_name="client", organization_name="tests", not_after=not_after)


def der(leaf: trustme.LeafCert) -> bytes:
    """Returns a certificate as DER."""
    return ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())
