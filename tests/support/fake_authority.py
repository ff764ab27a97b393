"""An authority for tests whose certificates are plain texts."""

from __future__ import annotations

from adsum.core.access.tokens import TokenRole
from adsum.core.errors import Invalid


class FakeAuthority:
    """Implements `access.authority.AuthorityService`. A request that begins with `bad` is malformed."""

    def __init__(self, *, issues: bool = True, is_external: bool = False, hash: str = "a" * 64) -> None:
        self.issues = issues
        self.is_external = is_external
        self.signed: list[tuple[str, str, TokenRole]] = []
        """The name, the token id and the role of each certificate."""
        self._hash = hash

    def certificate_pem(self) -> bytes:
        return b"AUTHORITY"

    def hash(self) -> str:
        return self._hash

    def sign(self, request_pem: bytes, *, name: str, token_id: str, role: TokenRole) -> bytes:
        assert self.issues
        if request_pem.startswith(b"bad"):
            raise Invalid("certificate_request", "must be a request for a certificate, as PEM")
        self.signed.append((name, token_id, role))
        return f"CERTIFICATE {name} {token_id} {role.value}".encode()
