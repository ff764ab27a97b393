"""The bounds of documents: each kind has its own room."""

from __future__ import annotations

import pytest

from adsum.core.catalog import declarations
from adsum.core.catalog.changes import Batch
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.documents import ACCESS_KINDS, INTENT_KINDS, DocumentKey, DocumentKind
from adsum.core.catalog.snapshots import EMPTY_SNAPSHOT, Snapshot
from adsum.core.errors import CatalogFull

ANN = Caller("ann", 100.0)
ROUTE, TOKEN, INVITE = DocumentKind.ROUTE, DocumentKind.TOKEN, DocumentKind.INVITE


def _after(snapshot: Snapshot, kind: DocumentKind, name: str, body: bytes = b"1") -> Snapshot:
    edits = declarations.declare(DocumentKey(kind, name), body, ANN)(snapshot)
    return snapshot.apply(Batch(snapshot.revision + 1, [], edits))


@pytest.mark.parametrize(
    ("bound", "full", "others"),
    [
        ("MAX_DOCUMENTS", DocumentKind.UPSTREAM, ACCESS_KINDS),
        ("MAX_TOKENS", TOKEN, (*INTENT_KINDS, INVITE)),
        ("MAX_INVITES", INVITE, (*INTENT_KINDS, TOKEN)),
    ],
)
def test_a_kind_without_room_takes_none_from_the_others(
    bound: str, full: DocumentKind, others: tuple[DocumentKind, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declarations, bound, 1)
    snapshot = _after(EMPTY_SNAPSHOT, full, "a")
    with pytest.raises(CatalogFull, match=r"there are already 1 .* of at most 1"):
        _after(snapshot, full, "b")
    assert _after(snapshot, full, "a", b"22").documents.find(DocumentKey(full, "a")) is not None
    for kind in others:
        snapshot = _after(snapshot, kind, "b")
    assert len(snapshot.documents) == 1 + len(others)


def test_routes_and_tokens_have_bounds_in_bytes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declarations, "MAX_DOCUMENTS_BYTES", 10)
    monkeypatch.setattr(declarations, "MAX_ACCESS_BYTES", 5)
    snapshot = _after(_after(EMPTY_SNAPSHOT, ROUTE, "a", b"1" * 10), TOKEN, "a", b"1" * 5)
    assert (snapshot.documents.size(INTENT_KINDS), snapshot.documents.size(ACCESS_KINDS)) == (10, 5)
    with pytest.raises(CatalogFull, match="all routes and upstreams may take 10 bytes together"):
        _after(snapshot, ROUTE, "b")
    with pytest.raises(CatalogFull, match="all tokens may take 5 bytes together"):
        _after(snapshot, TOKEN, "b")
    assert _after(snapshot, INVITE, "b", b"1" * 5).documents.size(ACCESS_KINDS) == 10
