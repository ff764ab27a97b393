"""Pairs of a certificate chain and its key, as PEM: reads, checks and splits them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from adsum.certificates.certificate import MAX_CERTIFICATES_BYTES, parse_certificates
from adsum.core.errors import Invalid

PEM_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)
"""A block of a PEM; its group is the kind."""
_ENCRYPTED: Final = re.compile(rb"-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate chain and its key, as PEM, that belong together."""

    chain: bytes
    key: bytes = field(repr=False)
    certificates: tuple[x509.Certificate, ...] = field(repr=False)
    """The certificates of the chain, that of the server first."""

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate of the server."""
        return self.certificates[0]

    @property
    def root(self) -> x509.Certificate | None:
        """The root at the end of the chain; None if the chain has none."""
        last = self.certificates[-1]
        return last if last.issuer == last.subject else None


def make_pair(chain: bytes, key: bytes, chain_field: str = "tls_cert", key_field: str = "tls_key") -> KeyPair:
    """Returns the pair. Raises `Invalid` unless both can be read and belong together; no message repeats a key.

    Each text may hold other blocks, too: certificates are taken from the one, and the key from the other.
    """
    certificates = b"\n".join(block[0] for block in PEM_BLOCK.finditer(chain) if block[1] == b"CERTIFICATE")
    keys = [block[0] for block in PEM_BLOCK.finditer(key) if block[1].endswith(b"PRIVATE KEY")]
    if is_encrypted(key):
        raise Invalid(
            key_field, "is encrypted, and there is nobody to enter its passphrase: remove it with `openssl pkey`"
        )
    if len(keys) != 1:
        raise Invalid(key_field, "must be a file with one private key in PEM")
    parsed = parse_certificates(chain_field, certificates)
    try:
        private = load_pem_private_key(keys[0], None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Invalid(key_field, "must be a private key in PEM") from None
    if private.public_key() != parsed[0].public_key():
        raise Invalid(key_field, "does not belong to the certificate, which must come first in its file")
    return KeyPair(certificates + b"\n", keys[0] + b"\n", tuple(parsed))


def is_encrypted(pem: bytes) -> bool:
    """Returns whether a key in the text needs a passphrase."""
    return _ENCRYPTED.search(pem) is not None


def read_pem(path: Path, setting: str) -> bytes:
    """Returns the content of a file. Raises `Invalid` for the setting that names it."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CERTIFICATES_BYTES + 1)
    except OSError as error:
        raise Invalid(setting, f"{path} can't be read: {error.strerror}") from None
    if len(content) > MAX_CERTIFICATES_BYTES:
        raise Invalid(setting, f"{path} must have at most {MAX_CERTIFICATES_BYTES} bytes")
    return content


def read_pair(chain: Path, key: Path, chain_setting: str = "tls_cert", key_setting: str = "tls_key") -> KeyPair:
    """Returns the pair in two files. Raises `Invalid` for the setting that names the wrong file."""
    return make_pair(read_pem(chain, chain_setting), read_pem(key, key_setting), chain_setting, key_setting)
