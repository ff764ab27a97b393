"""Tokens of a registry in tests."""

from __future__ import annotations

import hashlib

from adsum.core.access.invites import USUAL_SCOPES, Invite
from adsum.core.access.scopes import parse_scopes
from adsum.core.access.tokens import Token, TokenRole, TokenSecret, format_token, hash_secret
from adsum.core.catalog import declarations
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.documents import DocumentKey, DocumentKind
from adsum.registry import Registry
from adsum.wire.tokens import encode_invite, encode_token


def make_token(name: str, *scopes: str, expires: float | None = None) -> tuple[Token, str]:
    """Returns the record of a token, and the token as its holder keeps it. Both follow from the name."""
    id = hashlib.sha256(name.encode()).hexdigest()[:16]
    secret = hashlib.sha256(b"secret of " + name.encode()).hexdigest()[:43]
    record = Token(name, id, parse_scopes("scopes", scopes), (TokenSecret(hash_secret(secret)),), expires=expires)
    return record, format_token(id, secret)


async def declare_token(registry: Registry, name: str, *scopes: str, expires: float | None = None) -> str:
    """Declares a token in the registry. Returns it as its holder keeps it."""
    record, text = make_token(name, *scopes, expires=expires)
    key = DocumentKey(DocumentKind.TOKEN, name)
    await registry.write(declarations.declare(key, encode_token(record), Caller("test", 0.0)))
    return text


async def declare_invite(registry: Registry, id: str, secret: str, expires: float) -> None:
    """Declares an invite of clients in the registry. `expires` is on the wall clock."""
    role = TokenRole.CLIENT
    invite = Invite(id, role, USUAL_SCOPES[role], (TokenSecret(hash_secret(secret)),), expires)
    key = DocumentKey(DocumentKind.INVITE, id)
    await registry.write(declarations.declare(key, encode_invite(invite), Caller("test", 0.0)))


async def revoke_token(registry: Registry, name: str) -> None:
    """Withdraws a token."""
    await registry.write(declarations.withdraw(DocumentKey(DocumentKind.TOKEN, name), "", Caller("test", 0.0)))


def bearer(token: str) -> dict[str, str]:
    """Returns the headers that send the token."""
    return {"authorization": f"Bearer {token}"}
