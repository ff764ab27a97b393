"""The tokens of the registry by id, kept in step with its documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from adsum.core.access.principal import ANONYMOUS, Principal, anonymous
from adsum.core.access.scopes import NO_SCOPES, Scopes
from adsum.core.access.tokens import Token, TokenSecret
from adsum.core.catalog.documents import NO_DOCUMENTS, Document, DocumentKind, Documents
from adsum.wire.tokens import parse_token_document

AMBIGUOUS_ID: Final = "another token has the same id, so neither is accepted: revoke both and create new ones"

_TOKEN: Final = DocumentKind.TOKEN


@dataclass(slots=True)
class TokenChanges:
    """What an update of the index means for open sessions."""

    ended: set[str] = field(default_factory=set)
    """Ids of tokens that are gone, or whose principal is another one. `ANONYMOUS` stands for callers without one."""
    rotated: dict[str, Mapping[str, float | None]] = field(default_factory=dict)
    """Ids of tokens whose secrets changed, with the end of each secret by its id (`TokenSecret.id`)."""


class _Known:
    """A token that is accepted, and the principal that each of its secrets proves."""

    __slots__ = ("base", "principals", "token")

    def __init__(self, token: Token, before: _Known | None) -> None:
        """Principals that are equal to those of `before` are the same objects."""
        self.token = token
        self.base = token.principal()
        known = before.principals if before is not None else {}
        self.principals: dict[str, Principal] = {}
        for secret in token.secrets:
            principal, old = token.principal(secret), known.get(secret.hash)
            self.principals[secret.hash] = old if old is not None and old == principal else principal

    def secret_ends(self) -> dict[str, float | None]:
        """Returns the end of each secret by its id."""
        return {principal.secret_id: principal.expires for principal in self.principals.values()}


class TokenIndex:
    """Finds tokens by id. An update parses what changed, and costs nothing while no token changes."""

    def __init__(self, default_anonymous: Scopes) -> None:
        """`default_anonymous`: the scopes of callers that prove nothing while no token `anonymous` is declared."""
        self._default_anonymous = default_anonymous
        self._table: Mapping[str, Document] = NO_DOCUMENTS.by_kind[_TOKEN]
        self._by_name: dict[str, Token] = {}
        self._names_by_id: dict[str, set[str]] = {}
        self._known: dict[str, _Known] = {}
        self.anonymous = anonymous(default_anonymous)
        """The principal of callers that prove nothing."""
        self.generation = 0
        """Another number after each update that changed a token."""
        self.unreadable: dict[str, str] = {}
        """The problem of each token that is not accepted, by name: a later version wrote it, for example."""

    def find(self, id: str) -> Token | None:
        """Returns the token with that id; None if there is none. The token `anonymous` is not found by its id."""
        known = self._known.get(id)
        return known.token if known is not None else None

    def named(self, name: str) -> Token | None:
        """Returns the token with that name; None if there is none."""
        return self._by_name.get(name)

    def names(self) -> list[str]:
        """Returns the names of all tokens that can be read, sorted."""
        return sorted(self._by_name)

    def principal(self, id: str, secret: TokenSecret) -> Principal:
        """Returns the principal that a secret of a token proves: the same object until the token or secret changes."""
        return self._known[id].principals[secret.hash]

    def is_current(self, principal: Principal) -> bool:
        """Returns whether the principal still has its rights. A principal without a token always has."""
        if not principal.token_id:
            return True
        if principal.token_id == ANONYMOUS:
            return principal.scopes == self.anonymous.scopes
        known = self._known.get(principal.token_id)
        if known is None or (known.token.name, known.token.scopes) != (principal.name, principal.scopes):
            return False
        return not principal.secret_id or principal.secret_id in known.secret_ends()

    def update(self, documents: Documents) -> TokenChanges:
        """Takes over the tokens in the documents. Returns what that means for open sessions."""
        table, changes = documents.by_kind[_TOKEN], TokenChanges()
        if table is self._table:
            return changes
        before, self._table = self._table, table
        self.generation += 1
        touched: set[str] = set()
        for name in before.keys() | table.keys():
            old, new = before.get(name), table.get(name)
            if old is not new:
                touched |= self._replace(name, new)
        for id in touched:
            self._accept(id, changes)
        if self._update_anonymous():
            changes.ended.add(ANONYMOUS)
        return changes

    def _replace(self, name: str, document: Document | None) -> set[str]:
        """Takes over one document. Returns the ids that it had and has."""
        ids: set[str] = set()
        old = self._by_name.pop(name, None)
        if old is not None and name != ANONYMOUS:
            ids.add(old.id)
            self._names_by_id[old.id].discard(name)
        self.unreadable.pop(name, None)
        parsed = parse_token_document(name, document.body) if document is not None else None
        if isinstance(parsed, str):
            self.unreadable[name] = parsed
        elif parsed is not None:
            self._by_name[name] = parsed
            if name != ANONYMOUS:
                ids.add(parsed.id)
                self._names_by_id.setdefault(parsed.id, set()).add(name)
        return ids

    def _accept(self, id: str, changes: TokenChanges) -> None:
        """Accepts the token that has the id, and notes what changed. Nothing is accepted if several have it."""
        before = self._known.pop(id, None)
        names = self._names_by_id.get(id, set())
        for name in names:
            self.unreadable.pop(name, None)
            if len(names) > 1:
                self.unreadable[name] = AMBIGUOUS_ID
        if not names:
            self._names_by_id.pop(id, None)
        after = None
        if len(names) == 1:
            (name,) = names
            after = self._known[id] = _Known(self._by_name[name], before)
        if before is None:
            return
        if after is None or after.base != before.base:
            changes.ended.add(id)
        elif (ends := after.secret_ends()) != before.secret_ends():
            changes.rotated[id] = ends

    def _update_anonymous(self) -> bool:
        """Takes over the token `anonymous`. Returns whether callers that prove nothing have other rights now."""
        token = self._by_name.get(ANONYMOUS)
        after = token.principal() if token is not None else anonymous(self._default_anonymous)
        if ANONYMOUS in self.unreadable:
            after = anonymous(NO_SCOPES)
        before, self.anonymous = self.anonymous, after if after != self.anonymous else self.anonymous
        return self.anonymous is not before
