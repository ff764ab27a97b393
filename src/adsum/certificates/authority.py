"""The authority of a registry: makes itself, and signs certificates that name tokens.

Times are seconds since 1970. The authority is recognized by the hash of its public key, so its certificate may be
renewed with the same key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from adsum.certificates.certificate import certificate_hash, parse_certificates
from adsum.certificates.expiry import format_expiry
from adsum.certificates.requests import (
    MAX_COMMON_NAME,
    CertificateRequest,
    decode_key,
    encode_key,
    general_names,
    new_key,
    parse_request,
)
from adsum.core.access.tokens import ID_BYTES, TokenRole
from adsum.core.errors import Invalid

AUTHORITY_NAME: Final = "Adsum authority"
"""The common name of every authority."""
TOKEN_URI: Final = "spiffe://adsum/token/"
"""The start of the URI that names the token of a certificate. The id of the token follows."""
AUTHORITY_LIFETIME: Final = 3_653 * 86_400.0
"""Seconds for which the certificate of an authority is valid: 10 years."""
LIFETIMES: Final[Mapping[TokenRole, float]] = MappingProxyType(
    {
        TokenRole.NODE: 7 * 86_400.0,
        TokenRole.GATEWAY: 30 * 86_400.0,
        TokenRole.CLIENT: 90 * 86_400.0,
        TokenRole.PLAIN: 90 * 86_400.0,
    }
)
"""Seconds for which a certificate is valid, by the role of its token. Its holder renews it from half of that on."""
BACKDATED: Final = 3_600.0
"""Seconds by which a certificate is valid before it is signed, because the clocks of hosts differ."""

_TOKEN_URI: Final = re.compile(rf"{re.escape(TOKEN_URI)}(?P<id>[0-9a-f]{{{2 * ID_BYTES}}})")


class Authority:
    """An authority: its certificate, and its key if this host may sign."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey | None = None) -> None:
        """Raises `Invalid` if the key does not belong to the certificate, or the certificate is of no authority."""
        if not _is_authority(certificate):
            raise Invalid("authority", "must be the certificate of an authority")
        if key is not None and key.public_key() != certificate.public_key():
            raise Invalid("authority", "must have the key that belongs to its certificate")
        self.certificate = certificate
        self._key = key

    @staticmethod
    def create(now: float) -> Authority:
        """Returns a new authority with a new key."""
        return Authority.of_key(new_key(), now)

    @staticmethod
    def of_key(key: ec.EllipticCurvePrivateKey, now: float) -> Authority:
        """Returns the authority of a key, with a new certificate."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, AUTHORITY_NAME)])
        builder = _builder(name, name, now, now + AUTHORITY_LIFETIME).public_key(key.public_key())
        usage = _key_usage(key_cert_sign=True, crl_sign=True, digital_signature=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(identifier, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return Authority(certificate, key)

    @staticmethod
    def load(certificate_pem: bytes, key_pem: bytes | None = None) -> Authority:
        """Returns the authority in PEM texts; without a key it can't sign. Raises `Invalid`."""
        certificate = parse_certificates("authority", certificate_pem)[0]
        return Authority(certificate, decode_key("authority", key_pem) if key_pem is not None else None)

    def renewed(self, now: float) -> Authority:
        """Returns the authority with a new certificate of the same key, so with the same hash. Raises `Invalid`."""
        return Authority.of_key(self._signing_key(), now)

    @property
    def can_sign(self) -> bool:
        """True if it has its key."""
        return self._key is not None

    @property
    def hash(self) -> str:
        """SHA-256 of its public key in hex."""
        return certificate_hash(self.certificate)

    @property
    def expires(self) -> float:
        """The time at which its certificate expires."""
        return self.certificate.not_valid_after_utc.timestamp()

    def certificate_pem(self) -> bytes:
        """Returns its certificate as PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self) -> bytes:
        """Returns its private key as PEM. Raises `Invalid` if it has none."""
        return encode_key(self._signing_key())

    def has_signed(self, certificate: x509.Certificate) -> bool:
        """Returns whether this authority's key signed the certificate. Says nothing about times."""
        return is_signed_by(certificate, self.certificate)

    def sign(self, request_pem: bytes, *, name: str, token_id: str, role: TokenRole, now: float) -> bytes:
        """Returns a certificate for the key in a request, as a PEM chain.

        It names the token, and has only the host names and addresses of the request that the role allows: those of a
        node. Raises `Invalid`.
        """
        key, request = self._signing_key(), parse_request(request_pem)
        if self.expires <= now:
            raise Invalid(
                "authority",
                f"expired at {format_expiry(self.expires)}, so it signs nothing: run `adsum init --renew` on the node "
                "that has its key",
            )
        return _signed(self.certificate, key, request, name, token_id, role, now).public_bytes(Encoding.PEM)

    def _signing_key(self) -> ec.EllipticCurvePrivateKey:
        if self._key is None:
            raise Invalid("authority", "has no key on this node, so that it can't sign here")
        return self._key


def _signed(
    issuer: x509.Certificate,
    issuer_key: ec.EllipticCurvePrivateKey,
    request: CertificateRequest,
    name: str,
    token_id: str,
    role: TokenRole,
    now: float,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:MAX_COMMON_NAME])])
    # A certificate that outlives its authority would fail later, and with an error that is harder to understand.
    until = min(now + LIFETIMES[role], issuer.not_valid_after_utc.timestamp())
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(f"{TOKEN_URI}{token_id}")]
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if role is TokenRole.NODE:
        names += general_names(request.dns_names, request.addresses)
        purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
    usage = _key_usage(digital_signature=True, key_encipherment=isinstance(request.key, rsa.RSAPublicKey))
    return (
        _builder(subject, issuer.subject, now, until)
        .public_key(request.key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(request.key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _builder(subject: x509.Name, issuer: x509.Name, now: float, until: float) -> x509.CertificateBuilder:
    # Certificates have whole seconds.
    start, end = (datetime.fromtimestamp(int(at), UTC) for at in (now - BACKDATED, until))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(max(end, start + timedelta(seconds=1)))
    )


def _key_usage(
    *,
    digital_signature: bool = False,
    key_encipherment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Returns whether the key of the issuer signed the certificate. The name of the issuer alone proves nothing."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def token_id_of(certificate: x509.Certificate) -> str:
    """Returns the id of the token that a certificate names; "" if it names none, or has further URIs.

    The name proves something only if the registry's authority signed the certificate (`Authority.has_signed`).
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ""
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    match = _TOKEN_URI.fullmatch(uris[0]) if len(uris) == 1 else None
    return match["id"] if match is not None else ""
