"""The tokens of the registry by id, kept in step with its documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from adsum.core.access.principal import ANONYMOUS, Principal, anonymous
from adsum.core.access.scopes import Scopes
from adsum.core.access.tokens import Token
from adsum.core.catalog.documents import NO_DOCUMENTS, Document, DocumentKind, Documents
from adsum.wire.tokens import parse_token_document

_TOKEN: Final = DocumentKind.TOKEN


class TokenIndex:
    """Finds tokens by id. An update costs what changed, and nothing while no token changes."""

    def __init__(self, default_anonymous: Scopes) -> None:
        """`default_anonymous`: the scopes of callers that prove nothing while no token `anonymous` is declared."""
        self._default_anonymous = default_anonymous
        self._table: Mapping[str, Document] = NO_DOCUMENTS.by_kind[_TOKEN]
        self._by_id: dict[str, Token] = {}
        self._by_name: dict[str, Token] = {}
        self._principals: dict[str, Principal] = {}
        self.anonymous = anonymous(default_anonymous)
        """The principal of callers that prove nothing."""
        self.unreadable: dict[str, str] = {}
        """The problem of each token that can't be read, by name: a later version wrote it. It is not accepted."""

    def find(self, id: str) -> Token | None:
        """Returns the token with that id; None if there is none."""
        return self._by_id.get(id)

    def named(self, name: str) -> Token | None:
        """Returns the token with that name; None if there is none."""
        return self._by_name.get(name)

    def principal(self, token: Token) -> Principal:
        """Returns the principal that the token proves: the same object until the token changes."""
        return self._principals[token.id]

    def set_default_anonymous(self, scopes: Scopes) -> bool:
        """Changes the scopes of callers that prove nothing. Returns whether that changes anything now."""
        self._default_anonymous = scopes
        return self._update_anonymous()

    def update(self, documents: Documents) -> set[str]:
        """Takes over the tokens in the documents.

        Returns the ids of the tokens whose principal changed or is gone; `ANONYMOUS` stands for callers without one.
        """
        table = documents.by_kind[_TOKEN]
        if table is self._table:
            return set()
        before, self._table = self._table, table
        changed: set[str] = set()
        for name in before.keys() | table.keys():
            old, new = before.get(name), table.get(name)
            if old is not new:
                changed |= self._replace(name, new)
        if ANONYMOUS in before or ANONYMOUS in table:
            changed |= {ANONYMOUS} if self._update_anonymous() else set()
        return changed

    def _replace(self, name: str, document: Document | None) -> set[str]:
        """Takes over one document. Returns the ids of tokens whose principal changed or is gone."""
        old = self._by_name.pop(name, None)
        old_principal = None
        if old is not None:
            del self._by_id[old.id]
            old_principal = self._principals.pop(old.id)
        self.unreadable.pop(name, None)
        parsed = parse_token_document(name, document.body) if document is not None else None
        if isinstance(parsed, str):
            self.unreadable[name] = parsed
        elif parsed is not None:
            self._by_name[name] = self._by_id[parsed.id] = parsed
            principal = parsed.principal()
            self._principals[parsed.id] = old_principal if old_principal == principal else principal
        if old is None:
            return set()
        new = self._principals.get(old.id)
        return set() if new is old_principal and not _lost_secret(old, self._by_id.get(old.id)) else {old.id}

    def _update_anonymous(self) -> bool:
        token = self._by_name.get(ANONYMOUS)
        scopes = token.scopes if token is not None else self._default_anonymous
        before = self.anonymous
        if scopes != before.scopes:
            self.anonymous = anonymous(scopes)
        return self.anonymous is not before


def _lost_secret(before: Token, after: Token | None) -> bool:
    """Returns whether a secret of the token is gone, so that streams that were opened with it must end."""
    return after is None or not {secret.hash for secret in before.secrets} <= {secret.hash for secret in after.secrets}
