"""Documents by kind: edits, and what they leave untouched."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adsum.core.catalog.documents import (
    ACCESS_KINDS,
    INTENT_KINDS,
    NO_DOCUMENTS,
    Document,
    DocumentKey,
    DocumentKind,
    Documents,
    Edit,
    intent_changed,
)
from adsum.core.provenance import Cause, Provenance

WHY = Provenance(Cause.DECLARED, "ann")

keys = st.builds(DocumentKey, st.sampled_from(DocumentKind), st.sampled_from(["a", "b", "c"]))
bodies = st.binary(max_size=3)


@st.composite
def edits(draw: st.DrawFn) -> Edit:
    key = draw(keys)
    body = draw(st.none() | bodies)
    return Edit(key, Document(key, body, WHY) if body is not None else None, WHY)


batches = st.lists(st.lists(edits(), max_size=4), max_size=5)


@given(batches)
def test_edited_documents_equal_those_that_are_made_from_scratch(found: list[list[Edit]]) -> None:
    edited, expected = NO_DOCUMENTS, dict[DocumentKey, Document]()
    for revision, batch in enumerate(found, 1):
        edited = edited.with_edits(revision, batch)
        for edit in batch:
            expected.pop(edit.key, None)
            if edit.document is not None:
                expected[edit.key] = edit.document
    made = Documents.create(len(found), expected.values())
    assert edited == made
    assert len(made) == len(expected)
    assert made.size(DocumentKind) == sum(len(document.body) for document in expected.values())
    for kind in DocumentKind:
        names = [document.key.name for document in made.of_kind(kind)]
        assert names == sorted(key.name for key in expected if key.kind is kind)
    for key in expected:
        assert made.find(key) is expected[key]


@given(batches, st.lists(edits(), min_size=1, max_size=4))
def test_a_kind_without_an_edit_keeps_its_table(before: list[list[Edit]], last: list[Edit]) -> None:
    documents = NO_DOCUMENTS
    for revision, batch in enumerate(before, 1):
        documents = documents.with_edits(revision, batch)
    tables = {kind: dict(documents.by_kind[kind]) for kind in DocumentKind}
    after = documents.with_edits(99, last)
    edited = {edit.key.kind for edit in last}
    for kind in DocumentKind:
        assert (after.by_kind[kind] is documents.by_kind[kind]) is (kind not in edited)
        assert documents.by_kind[kind] == tables[kind], "documents never change"
    assert intent_changed(documents, after) is bool(edited & set(INTENT_KINDS))


def test_a_document_that_is_given_twice_counts_once() -> None:
    key = DocumentKey(DocumentKind.ROUTE, "a")
    documents = Documents.create(1, [Document(key, b"123", WHY), Document(key, b"45", WHY)])
    assert (len(documents), documents.size(DocumentKind)) == (1, 2)


def test_every_kind_is_one_of_intent_or_of_access() -> None:
    assert set(INTENT_KINDS) | set(ACCESS_KINDS) == set(DocumentKind)
    assert not set(INTENT_KINDS) & set(ACCESS_KINDS)
