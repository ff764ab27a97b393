"""The index of tokens: kept in step with the documents, and what its changes mean for open sessions."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from adsum.access.token_index import TokenIndex
from adsum.core.access.principal import ANONYMOUS, Principal
from adsum.core.access.scopes import EVERYTHING, NO_SCOPES, Scopes
from adsum.core.access.tokens import Token, TokenSecret, hash_secret
from adsum.core.catalog.documents import NO_DOCUMENTS, Document, DocumentKey, DocumentKind, Documents, Edit
from adsum.core.provenance import Cause, Provenance
from tests.access.tokens import TOKEN, document, documents, id_of, make_token, secret_of
from tests.core.access.principals import scopes

WHY = Provenance(Cause.DECLARED, "x")


def index(*tokens: Token, default: Scopes = NO_SCOPES) -> TokenIndex:
    made = TokenIndex(default)
    made.update(documents(*tokens))
    return made


@st.composite
def edits(draw: st.DrawFn) -> Edit:
    """Any edit of few tokens, some of them unreadable, with ids and secrets that repeat."""
    name = draw(st.sampled_from(["a", "b", "c", ANONYMOUS]))
    key = DocumentKey(TOKEN, name)
    kind = draw(st.sampled_from(["declared", "declared", "withdrawn", "unreadable"]))
    if kind == "withdrawn":
        return Edit(key, None, WHY)
    if kind == "unreadable":
        return Edit(key, Document(key, draw(st.sampled_from([b"", b"{}", b"[]", b'{"id":"x","scopes":[]}'])), WHY), WHY)
    secrets: list[int] = draw(st.lists(st.integers(0, 2), max_size=2, unique=True))
    known = make_token(
        name,
        draw(st.integers(0, 2)),
        draw(st.sampled_from(["read:*", "write:a"])),
        expires=draw(st.sampled_from([None, 5.0])),
        secrets=secrets,
    )
    if secrets and draw(st.sampled_from([True, False])):
        known = replace(known, secrets=[replace(known.secrets[0], expires=7.0), *known.secrets[1:]])
    return Edit(key, document(known), WHY)


def _state(made: TokenIndex) -> tuple[object, ...]:
    found = {id_of(number): made.find(id_of(number)) for number in range(3)}
    principals = {
        (id, secret.hash): made.principal(id, secret)
        for id, token in found.items()
        if token is not None
        for secret in token.secrets
    }
    named = {name: made.named(name) for name in ("a", "b", "c", ANONYMOUS)}
    return found, named, made.anonymous, made.unreadable, principals, made.names()


def _principals(made: TokenIndex) -> list[Principal]:
    """Every principal that the index gives now: of secrets, of certificates of tokens, and of nobody."""
    found = [made.anonymous]
    for number in range(3):
        token = made.find(id_of(number))
        if token is not None:
            found += [token.principal(), *(made.principal(token.id, secret) for secret in token.secrets)]
    return found


@given(st.lists(st.lists(edits(), min_size=1, max_size=3), max_size=6))
def test_an_updated_index_equals_one_that_is_made_from_scratch(batches: list[list[Edit]]) -> None:
    known, table = TokenIndex(EVERYTHING), NO_DOCUMENTS
    for revision, batch in enumerate(batches, 1):
        table = table.with_edits(revision, batch)
        known.update(table)
        scratch = TokenIndex(EVERYTHING)
        scratch.update(table)
        assert _state(known) == _state(scratch)


@given(st.lists(st.lists(edits(), min_size=1, max_size=3), max_size=6))
def test_sessions_end_exactly_for_principals_that_lost_or_changed_their_rights(batches: list[list[Edit]]) -> None:
    known, table = TokenIndex(EVERYTHING), NO_DOCUMENTS
    for revision, batch in enumerate(batches, 1):
        before = _principals(known)
        table = table.with_edits(revision, batch)
        changes = known.update(table)
        after = _principals(known)
        for principal in before:
            secrets = changes.rotated.get(principal.token_id)
            is_ended = principal.token_id in changes.ended
            is_limited = secrets is not None and secrets.get(principal.secret_id, -1.0) != principal.expires
            if principal.secret_id == "":
                is_limited = False
            # Only the end of a session that goes on may change.
            still = [p for p in after if replace(p, expires=None) == replace(principal, expires=None)]
            assert (is_ended or is_limited) is (principal not in after), (changes, principal)
            if is_limited and not is_ended and secrets is not None and principal.secret_id in secrets:
                assert [p.expires for p in still] == [secrets[principal.secret_id]]
            if not is_ended and (secrets is None or not principal.secret_id or principal.secret_id in secrets):
                assert known.is_current(principal)
            if principal in after:
                assert known.is_current(principal)


def test_an_update_without_a_change_of_tokens_does_nothing() -> None:
    table = documents(make_token("a", 1))
    known = TokenIndex(NO_SCOPES)
    known.update(table)
    key = DocumentKey(DocumentKind.ROUTE, "r")
    changes = known.update(table.with_edits(2, [Edit(key, Document(key, b"{}", WHY), WHY)]))
    assert (changes.ended, changes.rotated) == (set(), {})


def test_a_principal_is_the_same_object_until_its_token_changes() -> None:
    one, other = make_token("a", 1), make_token("b", 2)
    known = index(one, other)
    before = known.principal(one.id, one.secrets[0])
    known.update(documents(replace(one, used=86_400.0), make_token("b", 2, "write:*")))
    assert known.principal(one.id, one.secrets[0]) is before


def test_the_day_of_the_last_use_ends_no_session() -> None:
    known = index(make_token("a", 1))
    changes = known.update(documents(replace(make_token("a", 1), used=86_400.0)))
    assert (changes.ended, changes.rotated) == (set(), {})


def test_a_changed_scope_a_revocation_and_a_new_id_end_sessions() -> None:
    known = index(make_token("a", 1), make_token("b", 2), make_token("c", 3), make_token("d", 4))
    changes = known.update(documents(make_token("a", 1, "write:*"), make_token("c", 5), make_token("d", 4)))
    assert changes.ended == {id_of(1), id_of(2), id_of(3)}
    assert not known.is_current(make_token("b", 2).principal())


def test_a_new_expiry_ends_sessions() -> None:
    known = index(make_token("a", 1))
    assert known.update(documents(make_token("a", 1, expires=50.0))).ended == {id_of(1)}


def test_a_rotation_states_the_end_of_each_secret() -> None:
    token = make_token("a", 1)
    known = index(token)
    rotated = token.rotated(secret_of(9), 100.0, 60.0)
    changes = known.update(documents(rotated))
    assert changes.ended == set()
    assert changes.rotated == {id_of(1): {rotated.secrets[0].id: None, token.secrets[0].id: 160.0}}


def test_the_token_anonymous_replaces_the_default_scopes_always() -> None:
    for default in (EVERYTHING, NO_SCOPES):
        known = index(default=default)
        assert (known.anonymous.scopes, known.anonymous.is_proven) == (default, False)
        assert known.update(documents(make_token(ANONYMOUS, 1, "read:a"))).ended == {ANONYMOUS}
        assert known.anonymous.scopes == scopes("read:a")
        assert known.find(id_of(1)) is None, "it proves nothing, so its id finds nothing"
        assert known.update(documents()).ended == {ANONYMOUS}
        assert known.anonymous.scopes == default


def test_an_unreadable_token_anonymous_gives_no_scopes() -> None:
    key = DocumentKey(TOKEN, ANONYMOUS)
    known = TokenIndex(EVERYTHING)
    known.update(Documents.create(1, [Document(key, b'{"of":"a later version"}', WHY)]))
    assert known.anonymous.scopes == NO_SCOPES
    assert ANONYMOUS in known.unreadable


def test_tokens_with_the_same_id_are_not_accepted_until_one_is_gone() -> None:
    known = index(make_token("a", 1), make_token("b", 1))
    assert known.find(id_of(1)) is None
    assert known.unreadable.keys() == {"a", "b"}
    known.update(documents(make_token("b", 1)))
    found = known.find(id_of(1))
    assert found is not None
    assert found.name == "b"
    assert known.unreadable == {}


def test_a_token_that_can_not_be_read_is_not_accepted_and_its_sessions_end() -> None:
    known = index(make_token("a", 1))
    key = DocumentKey(TOKEN, "a")
    changes = known.update(Documents.create(2, [Document(key, b'{"id":7}', WHY)]))
    assert changes.ended == {id_of(1)}
    assert known.find(id_of(1)) is None
    assert "a" in known.unreadable


def test_a_principal_of_another_secret_of_the_token_is_not_current() -> None:
    token = make_token("a", 1)
    known = index(token)
    assert known.is_current(known.principal(token.id, token.secrets[0]))
    assert not known.is_current(token.principal(TokenSecret(hash_secret("other"))))
    assert known.is_current(token.principal()), "that of a certificate"
