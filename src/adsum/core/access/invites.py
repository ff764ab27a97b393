"""Invites: secrets with which a host joins the registry and gets a token, and a certificate, of its own.

An invite is consumed in the same batch in which the token of the joiner is declared, so that a single-use invite makes
one token, however many hosts use it at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from adsum.core.access.scopes import Scopes
from adsum.core.access.tokens import TokenRole, TokenSecret, find_secret
from adsum.core.errors import Unauthenticated

SINGLE_USE_ROLES: Final = frozenset({TokenRole.NODE, TokenRole.GATEWAY})
"""Roles whose invites join one host each."""
REFUSED: Final = "the invite is wrong, was used already, or has expired: get a new one with `adsum token invite`"
"""One sentence for every reason: it does not say which invites exist."""


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
        """Returns the invite after one host has joined; None if it is used up. Raises `Unauthenticated` if it was."""
        if self.uses_left is None:
            return self
        if self.uses_left < 1:
            raise Unauthenticated(REFUSED, reason="wrong-credentials")
        return replace(self, uses_left=self.uses_left - 1) if self.uses_left > 1 else None


def verify_invite(invite: Invite | None, secret: str, now: float) -> Invite:
    """Returns the invite if the secret is its own and it is still valid. `now` is on the wall clock.

    `invite` is the record with the id that the joiner sent; None if there is none. Raises `Unauthenticated`, with the
    same message and after the same work for every reason.
    """
    known = find_secret(invite.secrets if invite is not None else (), secret)
    if invite is None or known is None:
        raise Unauthenticated(REFUSED, reason="wrong-credentials")
    if invite.expires <= now or (known.expires is not None and known.expires <= now):
        raise Unauthenticated(REFUSED, reason="expired")
    if invite.uses_left is not None and invite.uses_left < 1:
        raise Unauthenticated(REFUSED, reason="wrong-credentials")
    return invite
