"""Replaces certificates by others of the same keys that expire soon."""

from __future__ import annotations

import time
from pathlib import Path

from adsum.certificates.authority import AUTHORITY_LIFETIME, Authority, token_id_of
from adsum.certificates.certificate import parse_certificates
from adsum.certificates.requests import create_request, decode_key
from adsum.certificates.server_names import ServerNames
from adsum.core.access.tokens import TokenRole


class ShortLivedAuthority:
    """The authority in the security folder of an issuing node, whose certificate expires in `lifetime` seconds."""

    def __init__(self, security: Path, lifetime: float) -> None:
        key = decode_key("key", (security / "authority.key").read_bytes())
        self._authority = Authority.of_key(key, time.time() - AUTHORITY_LIFETIME + lifetime)

    def replace(self, folder: Path, name: str, role: TokenRole) -> None:
        """Replaces the certificates in a folder: authority.pem and NAME.pem, whose key is NAME.key."""
        leaf = parse_certificates("certificate", (folder / f"{name}.pem").read_bytes())[0]
        names, key = ServerNames.of_certificate(leaf), decode_key("key", (folder / f"{name}.key").read_bytes())
        request = create_request(key, name, names.dns_names, names.addresses)
        chain = self._authority.sign(request, name=name, token_id=token_id_of(leaf), role=role, now=time.time())
        (folder / "authority.pem").write_bytes(self._authority.certificate_pem())
        (folder / f"{name}.pem").write_bytes(chain)
