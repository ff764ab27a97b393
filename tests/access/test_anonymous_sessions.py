"""Streams of callers that prove nothing: they end when the scopes of such callers change."""

from __future__ import annotations

from adsum.access.sessions import Sessions
from adsum.access.token_index import TokenIndex
from adsum.core.access.principal import ANONYMOUS
from adsum.core.access.scopes import EVERYTHING, parse_scopes
from adsum.core.access.tokens import Token
from adsum.core.catalog.documents import NO_DOCUMENTS, Document, DocumentKey, DocumentKind, Edit
from adsum.core.provenance import Cause, Provenance
from adsum.wire.tokens import encode_token

PROVENANCE = Provenance(Cause.REGISTERED, "tester")


def test_a_declared_anonymous_token_ends_the_sessions_of_anonymous_callers() -> None:
    index, sessions, ended = TokenIndex(EVERYTHING), Sessions(lambda: 0.0), list[str]()
    key = DocumentKey(DocumentKind.TOKEN, ANONYMOUS)
    token = Token(ANONYMOUS, "0" * 16, parse_scopes("scopes", ["read:orders"]))
    edit = Edit(key, Document(key, encode_token(token), PROVENANCE), PROVENANCE)
    with sessions.open(index.anonymous, lambda: ended.append("before")):
        sessions.end(index.update(NO_DOCUMENTS.with_edits(1, [edit])))
        assert ended == ["before"]
        with sessions.open(index.anonymous, lambda: ended.append("after")):
            sessions.end(index.update(NO_DOCUMENTS.with_edits(2, [])))
            assert ended == ["before", "after"], "without the token the default scopes return"
    assert len(sessions) == 0
