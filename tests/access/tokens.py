"""Token documents for tests of access control."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from adsum.core.access.principal import REGISTRY
from adsum.core.access.tokens import Token, TokenSecret, format_token, hash_secret
from adsum.core.catalog import declarations
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.declarations import Declaration
from adsum.core.catalog.documents import Document, DocumentKey, DocumentKind, Documents
from adsum.core.provenance import Cause, Provenance
from adsum.wire.tokens import encode_token
from tests.core.access.principals import scopes

TOKEN: Final = DocumentKind.TOKEN
ADMIN: Final = Caller("registry", 0.0, principal=REGISTRY)


def id_of(number: int) -> str:
    return f"{number:016x}"


def secret_of(number: int) -> str:
    return f"{number:043d}"


def make_token(
    name: str, number: int, scope: str = "read:*", *, expires: float | None = None, secrets: Iterable[int] | None = None
) -> Token:
    """A token with the id of that number and one secret, which has the same number unless others are given."""
    hashes = [TokenSecret(hash_secret(secret_of(secret))) for secret in (secrets if secrets is not None else [number])]
    return Token(name, id_of(number), scopes(*scope.split()), hashes, expires=expires)


def text_of(number: int, secret: int | None = None) -> str:
    """The token as its holder keeps it."""
    return format_token(id_of(number), secret_of(number if secret is None else secret))


def document(token: Token) -> Document:
    return Document(DocumentKey(TOKEN, token.name), encode_token(token), Provenance(Cause.DECLARED, "x"))


def documents(*tokens: Token, revision: int = 1) -> Documents:
    return Documents.create(revision, map(document, tokens))


def declared(token: Token) -> Declaration:
    return declarations.declare(DocumentKey(TOKEN, token.name), encode_token(token), ADMIN)


def revoked(name: str) -> Declaration:
    return declarations.withdraw(DocumentKey(TOKEN, name), "leaked", ADMIN)
