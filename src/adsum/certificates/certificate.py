"""Certificates: read from PEM texts, and recognized by the hash of their public key."""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from adsum.core.errors import Invalid

MAX_CERTIFICATES_BYTES: Final = 1024 * 1024
"""Bytes of a PEM file with certificates. A larger one is refused."""


def certificate_hash(certificate: x509.Certificate) -> str:
    """Returns SHA-256 of the certificate's public key (DER, SubjectPublicKeyInfo) in hex."""
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(key).hexdigest()


def parse_certificates(field: str, pem: bytes) -> list[x509.Certificate]:
    """Returns the certificates in a PEM text, at least one. Raises `Invalid`, which names the field."""
    if len(pem) > MAX_CERTIFICATES_BYTES:
        raise Invalid(field, f"must have at most {MAX_CERTIFICATES_BYTES} bytes of certificates, not {len(pem)}")
    try:
        certificates = x509.load_pem_x509_certificates(pem)
        for certificate in certificates:
            _read_all(certificate)
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension):
        raise Invalid(
            field, "must have certificates in PEM: blocks that begin with -----BEGIN CERTIFICATE-----"
        ) from None
    return certificates


def _read_all(certificate: x509.Certificate) -> None:
    """Reads the parts of a certificate that are parsed only when they are read, so that they can't fail later."""
    certificate.public_key()
    for part in ("extensions", "subject", "issuer", "not_valid_before_utc", "not_valid_after_utc"):
        getattr(certificate, part)
