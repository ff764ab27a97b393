"""Authorities and certificates for tests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_CLIENT_KEY = ec.generate_private_key(ec.SECP256R1())
"""The key of every client certificate."""


class TestAuthority:
    """Signs certificates."""

    __test__ = False

    def __init__(
        self, name: str = "Adsum authority", now: float = 1_700_000_000.0, key: ec.EllipticCurvePrivateKey | None = None
    ) -> None:
        """`now`: the present on the wall clock, near which certificates are valid. Without a key it makes one."""
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.now = datetime.fromtimestamp(now, UTC)
        self.certificate = self._sign(self.key, self.name, [], 3_650 * 86_400.0, -60.0)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(
        self, *uris: str, common_names: Sequence[str] = ("x",), lifetime: float = 3_600.0, begins: float = -60.0
    ) -> bytes:
        """A client certificate (DER) with these URIs as alternative names."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common_names])
        return self._sign(_CLIENT_KEY, subject, uris, lifetime, begins).public_bytes(Encoding.DER)

    def write(self, folder: Path, *uris: str) -> tuple[str, str]:
        """Writes a client certificate with these URIs. Returns the files of the certificate and its key."""
        certificate, key = folder / "client.pem", folder / "client.key"
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client")])
        signed = self._sign(_CLIENT_KEY, subject, uris, 3_600.0, -60.0)
        certificate.write_bytes(signed.public_bytes(Encoding.PEM))
        key.write_bytes(_CLIENT_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return str(certificate), str(key)

    def _sign(
        self, key: ec.EllipticCurvePrivateKey, subject: x509.Name, uris: Sequence[str], lifetime: float, begins: float
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now + timedelta(seconds=begins))
            .not_valid_after(self.now + timedelta(seconds=lifetime))
        )
        if key is self.key:
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        if uris:
            names = [x509.UniformResourceIdentifier(uri) for uri in uris]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())
