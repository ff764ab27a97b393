"""The interface between the operations that issue certificates and the authority of the registry."""

from __future__ import annotations

from typing import Protocol

from adsum.core.access.tokens import TokenRole


class AuthorityService(Protocol):
    """The authority of the registry, as one node knows it."""

    @property
    def issues(self) -> bool:
        """True if this node holds the key of the authority, so that `sign` works here."""
        ...

    @property
    def is_external(self) -> bool:
        """True if the operator's own certificates are used: no node of the registry signs, and `issues` is False."""
        ...

    def certificate_pem(self) -> bytes:
        """Returns the certificate of the authority as PEM.

        Of an external authority it is the root at the end of the server's chain; empty if the chain has none.
        """
        ...

    def hash(self) -> str:
        """Returns SHA-256 of the authority's public key in hex; "" if `certificate_pem` is empty."""
        ...

    def sign(self, request_pem: bytes, *, name: str, token_id: str, role: TokenRole) -> bytes:
        """Returns a certificate for the key in a request, as a PEM chain.

        The certificate names the token with this name and id, whatever the request contains. Only a node's certificate
        has the host names and addresses of the request. Raises `Invalid` if the request is malformed, and if this node
        can't sign.
        """
        ...
