"""Callers with scopes, and declarations of their tokens."""

from __future__ import annotations

from dataclasses import replace

from adsum.core.access.principal import Principal
from adsum.core.access.scopes import parse_scopes
from adsum.core.access.tokens import Token, TokenSecret, format_token, hash_secret
from adsum.core.catalog import declarations
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.declarations import Declaration
from adsum.core.catalog.documents import DocumentKey, DocumentKind
from adsum.wire.tokens import encode_token

CALLER = Caller("tester", 0.0)


def principal(name: str, *scopes: str) -> Principal:
    """Returns a caller that has proved its name."""
    return Principal(name, parse_scopes("scopes", scopes))


class DeclaredToken:
    """A token of a caller. Its id and secret follow from its name."""

    def __init__(self, name: str, *scopes: str, expires: float | None = None) -> None:
        secret = (name.replace("-", "_") + "x" * 43)[:43]
        id = f"{sum(ord(letter) * 31**n for n, letter in enumerate(name)) % 16**16:016x}"
        self.text = format_token(id, secret)
        self.key = DocumentKey(DocumentKind.TOKEN, name)
        self.token = Token(
            name, id, parse_scopes("scopes", scopes), (TokenSecret(hash_secret(secret)),), expires=expires
        )

    def declare(self, *scopes: str) -> Declaration:
        """Returns the declaration of the token, with other scopes if any are given."""
        token = replace(self.token, scopes=parse_scopes("scopes", scopes)) if scopes else self.token
        return declarations.declare(self.key, encode_token(token), CALLER)

    def revoke(self) -> Declaration:
        """Returns the declaration that revokes the token."""
        return declarations.withdraw(self.key, "", CALLER)
