"""The authority of the registry as a node knows it: its own, or that of the operator's certificates."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.serialization import Encoding

from adsum.certificates.authority import Authority
from adsum.certificates.certificate import certificate_hash
from adsum.core.access.tokens import TokenRole
from adsum.core.errors import Invalid
from adsum.node_security.server_certificates import NodeCertificates


class RegistryAuthority:
    """Implements `access.authority.AuthorityService` by the registry's own authority.

    `authority` is replaced when its certificate is renewed.
    """

    is_external = False

    def __init__(self, authority: Authority, wall: Callable[[], float]) -> None:
        """`wall` returns the time on the wall clock."""
        self.authority = authority
        self._wall = wall

    @property
    def issues(self) -> bool:
        return self.authority.can_sign

    def certificate_pem(self) -> bytes:
        return self.authority.certificate_pem()

    def hash(self) -> str:
        return self.authority.hash

    def sign(self, request_pem: bytes, *, name: str, token_id: str, role: TokenRole) -> bytes:
        return self.authority.sign(request_pem, name=name, token_id=token_id, role=role, now=self._wall())


class ExternalAuthority:
    """Implements `access.authority.AuthorityService` where the operator has certificates of another authority."""

    is_external = True
    issues = False

    def __init__(self, certificates: NodeCertificates) -> None:
        self._certificates = certificates

    def certificate_pem(self) -> bytes:
        root = self._certificates.served.pair.root
        return b"" if root is None else root.public_bytes(Encoding.PEM)

    def hash(self) -> str:
        root = self._certificates.served.pair.root
        return "" if root is None else certificate_hash(root)

    def sign(self, request_pem: bytes, *, name: str, token_id: str, role: TokenRole) -> bytes:
        raise Invalid(
            "certificate_request",
            "can't be signed: the operator's own certificates are used here, so get one from their authority",
        )
