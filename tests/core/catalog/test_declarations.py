"""Documents: declared, replaced and withdrawn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.core.catalog import declarations, documents
from adsum.core.catalog.changes import Batch
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.declarations import Declaration, DocumentReplacement
from adsum.core.catalog.documents import Document, DocumentKey, DocumentKind
from adsum.core.catalog.draft import Draft
from adsum.core.catalog.snapshots import EMPTY_SNAPSHOT, Snapshot
from adsum.core.errors import CatalogFull, Invalid
from adsum.core.provenance import Cause

ANN = Caller("ann", 100.0)
ROUTE, UPSTREAM = DocumentKind.ROUTE, DocumentKind.UPSTREAM
MANY = [kind for kind in DocumentKind if kind is not DocumentKind.AUTHORITY]
"""The kinds of which there may be several documents."""


def _after(*requests: Declaration, start: Snapshot = EMPTY_SNAPSHOT) -> Snapshot:
    for declaration in requests:
        start = start.apply(Batch(start.revision + 1, [], declaration(start)))
    return start


def _bodies(snapshot: Snapshot) -> dict[str, bytes]:
    return {str(document.key): document.body for kind in DocumentKind for document in snapshot.documents.of_kind(kind)}


def _declared(name: str, body: bytes, kind: DocumentKind = ROUTE) -> Declaration:
    return declarations.declare(DocumentKey(kind, name), body, ANN)


def test_a_declared_document_has_its_author_and_cause() -> None:
    snapshot = _after(_declared("r1", b"1"))
    (document,) = snapshot.documents.of_kind(ROUTE)
    assert (document.body, document.provenance.actor, document.provenance.cause) == (b"1", "ann", Cause.DECLARED)
    assert snapshot.documents.revision == 1


def _replaced(bodies: dict[str, bytes], *, prune: bool = True) -> Declaration:
    by_key = {DocumentKey(ROUTE, name): body for name, body in bodies.items()}
    return DocumentReplacement({ROUTE}, by_key, ANN, prune=prune)


def test_declaring_the_same_again_changes_nothing_and_keeps_the_first_author() -> None:
    snapshot = _after(_declared("r1", b"1"))
    assert declarations.declare(DocumentKey(ROUTE, "r1"), b"1", Caller("bob", 200.0))(snapshot) == []


def test_withdrawing_is_idempotent_and_of_one_kind() -> None:
    snapshot = _after(_declared("x", b"1"), _declared("x", b"2", UPSTREAM))
    gone = declarations.withdraw(DocumentKey(ROUTE, "x"), "old", ANN)
    snapshot = _after(gone, start=snapshot)
    assert _bodies(snapshot) == {"upstream x": b"2"}
    assert gone(snapshot) == []


def test_replacing_a_kind_leaves_the_others_alone() -> None:
    snapshot = _after(_declared("a", b"1"), _declared("b", b"1"), _declared("a", b"9", UPSTREAM))
    snapshot = _after(_replaced({"b": b"2", "c": b"3"}), start=snapshot)
    assert _bodies(snapshot) == {"route b": b"2", "route c": b"3", "upstream a": b"9"}


names = st.sampled_from(["a", "b", "c"])
bodies = st.sampled_from([b"1", b"2"])
requests = st.one_of(
    st.builds(_declared, names, bodies, st.sampled_from(MANY)),
    st.builds(lambda name, kind: declarations.withdraw(DocumentKey(kind, name), "", ANN), names, st.sampled_from(MANY)),
    st.builds(_replaced, st.dictionaries(names, bodies)),
)


@given(st.lists(requests, max_size=8), requests)
def test_a_repeated_declaration_changes_nothing_and_a_draft_sees_earlier_ones(
    history: list[Declaration], last: Declaration
) -> None:
    draft, edits = Draft(EMPTY_SNAPSHOT), []
    for declaration in (*history, last):
        decided = declaration(draft)
        draft.add(decided)
        edits += decided
    together, alone = EMPTY_SNAPSHOT.apply(Batch(1, [], edits)), _after(*history, last)
    assert _bodies(together) == _bodies(alone)
    assert last(alone) == []


def test_documents_that_contradict_one_another_are_refused_and_change_nothing() -> None:
    def at_most_one(documents: documents.Documents) -> None:
        if len(documents) > 1:
            raise Invalid("to", "is one too many")

    snapshot = _after(declarations.declare(DocumentKey(ROUTE, "a"), b"1", ANN, at_most_one))
    for declaration in (
        declarations.declare(DocumentKey(ROUTE, "b"), b"1", ANN, at_most_one),
        DocumentReplacement([ROUTE], {DocumentKey(ROUTE, "b"): b"1", DocumentKey(ROUTE, "c"): b"1"}, ANN, at_most_one),
    ):
        with pytest.raises(Invalid):
            declaration(snapshot)
    assert declarations.declare(DocumentKey(ROUTE, "a"), b"2", ANN, at_most_one)(snapshot)
    assert DocumentReplacement([ROUTE], {DocumentKey(ROUTE, "b"): b"1"}, ANN, at_most_one)(snapshot)


def test_too_many_documents_are_refused_and_known_ones_may_still_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declarations, "MAX_DOCUMENTS", 1)
    snapshot = _after(_declared("a", b"1"))
    with pytest.raises(CatalogFull, match="at most 1"):
        _declared("b", b"1")(snapshot)
    assert _bodies(_after(_declared("a", b"2"), start=snapshot)) == {"route a": b"2"}
    assert _bodies(_after(_replaced({"b": b"2"}), start=snapshot)) == {"route b": b"2"}


def test_a_document_with_a_bad_name_or_a_large_body_is_refused() -> None:
    with pytest.raises(Invalid, match="name"):
        Document(DocumentKey(ROUTE, "a b"), b"1", ANN.provenance(Cause.DECLARED))
    with pytest.raises(Invalid, match="at most"):
        Document(DocumentKey(ROUTE, "a"), b"1" * (documents.MAX_DOCUMENT_BYTES + 1), ANN.provenance(Cause.DECLARED))


def test_an_empty_list_withdraws_everything_only_with_prune() -> None:
    snapshot = _after(_replaced({"a": b"1"}))
    with pytest.raises(Invalid, match="1 would go") as refused:
        _replaced({}, prune=False)(snapshot)
    assert refused.value.field == "prune"
    assert _bodies(_after(_replaced({}), start=snapshot)) == {}
    assert _replaced({}, prune=False)(_after()) == [], "nothing is declared, so nothing is withdrawn"


def test_documents_of_too_many_bytes_are_refused_and_shorter_ones_always_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = _after(_declared("a", b"1" * 40), start=_after(_declared("b", b"1" * 40)))
    assert snapshot.documents.size([ROUTE]) == 80
    monkeypatch.setattr(declarations, "MAX_DOCUMENTS_BYTES", 79)
    for larger in (_declared("c", b"1"), _declared("a", b"1" * 41), _replaced({"c": b"1" * 81})):
        with pytest.raises(CatalogFull, match="may take 79 bytes together"):
            larger(snapshot)
    assert _after(_declared("a", b"1" * 39), start=snapshot).documents.size([ROUTE]) == 79
    assert _after(_declared("a", b"2" * 40), start=snapshot).documents.size([ROUTE]) == 80
    assert _after(_replaced({"c": b"1" * 7}), start=snapshot).documents.size([ROUTE]) == 7


def test_a_prepared_decision_is_used_only_while_the_documents_are_unchanged() -> None:
    validated: list[documents.Documents] = []
    snapshot = _after(_declared("a", b"1"))
    prepared = DocumentReplacement([ROUTE], {DocumentKey(ROUTE, "b"): b"2"}, ANN, validated.append)
    prepared.prepare(snapshot.documents, declarations.accept_all)
    assert {str(edit.key) for edit in prepared(snapshot)} == {"route a", "route b"}
    assert validated == []
    other = _after(_declared("c", b"1"), start=snapshot)
    assert {str(edit.key) for edit in prepared(other)} == {"route a", "route b", "route c"}
    assert len(validated) == 1


def test_a_prepared_refusal_is_raised_only_while_the_documents_are_unchanged() -> None:
    snapshot = _after(_declared("a", b"1"))
    nothing = DocumentReplacement([ROUTE], {}, ANN)
    nothing.prepare(snapshot.documents, declarations.accept_all)
    with pytest.raises(Invalid, match="1 would go"):
        nothing(snapshot)
    assert nothing(EMPTY_SNAPSHOT) == []
