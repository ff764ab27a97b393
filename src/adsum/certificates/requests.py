"""Keys, and requests for certificates (PKCS #10)."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from adsum.core import validation
from adsum.core.errors import Invalid

MAX_REQUEST_BYTES: Final = 16 * 1024
"""Bytes of a request as PEM. A larger one is refused."""
MAX_REQUEST_NAMES: Final = 64
"""Host names and addresses in a request. A request with more is refused."""
MAX_COMMON_NAME: Final = 64
"""Characters of a common name (RFC 5280, ub-common-name). A longer one is cut."""
MIN_RSA_BITS: Final = 2_048
"""Bits of an RSA key. A shorter one is refused."""
MAX_RSA_BITS: Final = 8_192
"""Bits of an RSA key. A longer one is refused, because verifying its signatures takes long."""
KEY_RULE: Final = f"an EC key on P-256, P-384 or P-521, an Ed25519 key, or an RSA key of {MIN_RSA_BITS} bits or more"
"""A description of the keys that get certificates."""

RequestKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """What a request proves and asks for: its key, and the host names and addresses. Everything else is ignored."""

    key: RequestKey
    dns_names: Sequence[str] = ()
    addresses: Sequence[IpAddress] = ()


def new_key() -> ec.EllipticCurvePrivateKey:
    """Returns a new key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def encode_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Returns the private key as PEM (PKCS #8), not encrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def decode_key(field: str, pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Returns the EC key in a PEM text. Raises `Invalid`; its message repeats nothing of the text."""
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Invalid(field, "must have a private key in PEM that is not encrypted") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Invalid(field, "must have an EC key")
    return key


def create_request(
    key: ec.EllipticCurvePrivateKey,
    name: str,
    dns_names: Collection[str] = (),
    addresses: Collection[IpAddress] = (),
) -> bytes:
    """Returns a request as PEM for a certificate with this common name ("": none), host names and addresses."""
    # A common name can't be empty, and the folder of a host may name none.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:MAX_COMMON_NAME])] if name else [])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    names = general_names(dns_names, addresses)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def general_names(dns_names: Collection[str], addresses: Collection[IpAddress]) -> list[x509.GeneralName]:
    """Returns host names and addresses as they stand in a certificate."""
    return [*map(x509.DNSName, dns_names), *map(x509.IPAddress, addresses)]


def parse_request(pem: bytes, field: str = "certificate_request") -> CertificateRequest:
    """Returns what a request proves and asks for.

    Raises `Invalid` if the request is malformed, its signature is wrong, its key is weak, or a name is no host name.
    """
    if len(pem) > MAX_REQUEST_BYTES:
        raise Invalid(field, f"must be at most {MAX_REQUEST_BYTES} bytes, not {len(pem)}")
    try:
        request = x509.load_pem_x509_csr(pem)
        key = _usable_key(request.public_key())
    except (ValueError, UnsupportedAlgorithm):
        raise Invalid(field, "must be a request for a certificate in PEM (PKCS #10)") from None
    if key is None:
        raise Invalid(field, f"must have {KEY_RULE}")
    try:
        is_signed, names = request.is_signature_valid, _requested_names(request)
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension):
        raise Invalid(field, "must have a signature and extensions that can be read") from None
    if not is_signed:
        raise Invalid(field, "must be signed with the key that it contains")
    if len(names) > MAX_REQUEST_NAMES:
        raise Invalid(field, f"must have at most {MAX_REQUEST_NAMES} host names and addresses, not {len(names)}")
    dns_names = tuple(dict.fromkeys(name.value for name in names if isinstance(name, x509.DNSName)))
    for name in dns_names:
        check_dns_name(field, name)
    addresses = [name.value for name in names if isinstance(name, x509.IPAddress)]
    return CertificateRequest(key, dns_names, tuple(dict.fromkeys(_plain_address(field, one) for one in addresses)))


def check_dns_name(field: str, name: str) -> None:
    """Raises `Invalid` unless the name is a host name that a certificate of a node may have: no pattern, no address."""
    validation.address(field, name)
    if not name.isascii() or ":" in name or name.endswith(".") or name.replace(".", "").isdigit():
        raise Invalid(field, f"must be a host name, not {validation.quoted(name)}")


def _requested_names(request: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    try:
        return list(request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def _plain_address(field: str, value: object) -> IpAddress:
    if (
        not isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address)
        or value.is_unspecified
        or value.is_multicast
    ):
        raise Invalid(field, "must have addresses of hosts, not of networks or groups")
    return value


def _usable_key(key: object) -> RequestKey | None:
    if isinstance(key, rsa.RSAPublicKey):
        return key if MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS else None
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key if isinstance(key.curve, _CURVES) else None
    return key if isinstance(key, ed25519.Ed25519PublicKey) else None
