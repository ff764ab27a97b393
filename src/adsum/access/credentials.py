"""What a caller sends to prove who it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple


class Credentials(NamedTuple):
    """The credentials of one request: a token or JWT, the client certificate of its connection (DER), its address."""

    token: str = ""
    certificate: bytes = b""
    address: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.address})"  # Without the token: it must not reach a log.


NO_CREDENTIALS: Final = Credentials()


UNKNOWN_SCHEME: Final = "-"
"""Stands for a header of another scheme than Bearer, and for several headers."""


def presented_token(authorizations: Sequence[str]) -> str:
    """Returns the token in the Authorization headers of a request (RFC 6750); "" if there is none.

    Wrong credentials are never taken for none: a header of another scheme gives `UNKNOWN_SCHEME`. So do several
    headers, because a proxy may have checked another one than this node would.
    """
    if not authorizations:
        return ""
    scheme, _, token = authorizations[0].partition(" ")
    is_bearer = len(authorizations) == 1 and scheme.lower() == "bearer"
    return token.strip() if is_bearer and token.strip() else UNKNOWN_SCHEME
