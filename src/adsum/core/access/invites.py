"""Invites: secrets with which a host joins the registry and gets a token, and a certificate, of its own.

An invite is consumed in the same batch in which the token of the joiner is declared, so that a single-use invite makes
one token, however many hosts use it at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from adsum.core.access.scopes import Right, Scope, Scopes
from adsum.core.access.tokens import TokenRole, TokenSecret, find_secret
from adsum.core.errors import Unauthenticated

SINGLE_USE_ROLES: Final = frozenset({TokenRole.NODE, TokenRole.GATEWAY})
"""Roles whose invites join one host each."""
USUAL_SCOPES: Final[Mapping[TokenRole, Scopes]] = MappingProxyType(
    {
        TokenRole.CLIENT: Scopes([Scope(Right.READ, "*"), Scope(Right.WRITE, "*")]),
        TokenRole.GATEWAY: Scopes([Scope(Right.READ, "*")]),
        TokenRole.NODE: Scopes([Scope(Right.NODE), Scope(Right.READ, "*")]),
    }
)
"""Role → the scopes of the tokens that an invite gives, unless it names others."""
USUAL_LIFETIMES: Final[Mapping[TokenRole, float]] = MappingProxyType(
    {TokenRole.CLIENT: 7 * 86_400.0, TokenRole.GATEWAY: 3_600.0, TokenRole.NODE: 3_600.0}
)
"""Role → the seconds for which an invite is valid, unless another time is given."""
REFUSED: Final = "the invite is wrong, expired or used up: make a new one with `adsum token invite`"
"""The one message for every invite that is not accepted, so that it reveals nothing about the invite."""


@dataclass(frozen=True, slots=True)
class Invite:
    """The record of an invite.

    `scopes` are those of the tokens that it gives. `uses_left`: hosts that may still join by it; None: any number until
    it expires. `expires` and `created` are on the wall clock.
    """

    id: str
    role: TokenRole
    scopes: Scopes
    secrets: Sequence[TokenSecret]
    expires: float
    uses_left: int | None = None
    created: float = 0.0

    def used(self) -> Invite | None:
        """Returns the invite after one host has joined; None if it is used up then."""
        if self.uses_left is None:
            return self
        if self.uses_left < 1:
            raise Unauthenticated(REFUSED, reason="wrong-credentials")
        return replace(self, uses_left=self.uses_left - 1) if self.uses_left > 1 else None


def verify_invite(invite: Invite | None, secret: str, now: float) -> Invite:
    """Returns the invite if the secret is right and the invite can be used. `now` is on the wall clock.

    `invite` is the record with the id that the caller sent; None if there is none. Raises `Unauthenticated`, always
    with the same message, and in the same time for an unknown id and a wrong secret.
    """
    known = find_secret(invite.secrets if invite is not None else (), secret)
    if invite is None or known is None:
        raise Unauthenticated(REFUSED, reason="wrong-credentials")
    if any(end is not None and end <= now for end in (invite.expires, known.expires)):
        raise Unauthenticated(REFUSED, reason="expired")
    if invite.uses_left is not None and invite.uses_left < 1:
        raise Unauthenticated(REFUSED, reason="used")
    return invite
