"""New ids and secrets of tokens and invites."""

from __future__ import annotations

import secrets

from adsum.core.access.tokens import ID_BYTES, SECRET_BYTES, TokenParts


def make_id() -> str:
    """Returns a new id of a token or an invite."""
    return secrets.token_hex(ID_BYTES)


def make_secret() -> str:
    """Returns a new secret of a token or an invite."""
    return secrets.token_urlsafe(SECRET_BYTES)


def make_token() -> TokenParts:
    """Returns a new token."""
    return TokenParts(make_id(), make_secret())
