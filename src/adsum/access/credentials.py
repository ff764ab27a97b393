"""What a caller sends to prove who it is."""

from __future__ import annotations

from typing import Final, NamedTuple


class Credentials(NamedTuple):
    """The credentials of one request: a token or JWT, the client certificate of its connection (DER), its address."""

    token: str = ""
    certificate: bytes = b""
    address: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.address})"  # Without the token: it must not reach a log.


NO_CREDENTIALS: Final = Credentials()


def bearer_token(authorization: str) -> str:
    """Returns the token in an Authorization header of the scheme Bearer (RFC 6750); "" for any other header."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
