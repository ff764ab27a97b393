"""Documents: JSON that operators declare, such as the routes of gateways.

They are committed in one order with the changes of the catalog. The core knows the provenance of a document, but does
not read its JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from adsum.core import validation
from adsum.core.errors import Invalid
from adsum.core.provenance import Provenance

MAX_DOCUMENT_BYTES: Final = 64 * 1024
"""Bytes of one document; a larger one is refused."""
MAX_DOCUMENTS: Final = 10_000
"""Documents in all. Past it new ones are refused; known ones may still change."""
MAX_EDITS: Final = 2 * MAX_DOCUMENTS
"""Recorded edits that a store keeps. Past it the oldest are deleted."""
MAX_EDITS_PER_DOCUMENT: Final = 100
"""Recorded edits of one document that a store keeps, so that one document can't push out the history of others."""
MAX_DOCUMENTS_BYTES: Final = 64 * 1024 * 1024
"""Bytes of the bodies of all documents. Past it edits that add bytes are refused. The resources that are compiled from
them for gateways take several times as much."""


class DocumentKind(StrEnum):
    """The kinds of documents."""

    ROUTE = "route"
    UPSTREAM = "upstream"


class DocumentKey(NamedTuple):
    """The name of a document."""

    kind: DocumentKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind.value} {self.name}"


@dataclass(frozen=True, slots=True)
class Document:
    """A declared JSON document, with the provenance of its last edit."""

    key: DocumentKey
    body: bytes
    provenance: Provenance

    def __post_init__(self) -> None:
        validation.instance_id("name", self.key.name)
        if len(self.body) > MAX_DOCUMENT_BYTES:
            raise Invalid("", f"must be at most {MAX_DOCUMENT_BYTES} bytes of JSON, not {len(self.body)}")


@dataclass(frozen=True, slots=True)
class Edit:
    """The new state of a document, or its withdrawal if `document` is None, with its provenance."""

    key: DocumentKey
    document: Document | None
    provenance: Provenance
    before: Document | None = field(default=None, compare=False)
    """The document before the edit, for the history. The stream of a store leaves it out."""


class EditKind(StrEnum):
    """The kinds of recorded edits."""

    DECLARED = "declared"
    CHANGED = "changed"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class RecordedEdit:
    """An edit in the history, for people."""

    revision: int
    key: DocumentKey
    kind: EditKind
    before: Mapping[str, bytes]
    """The JSON of each field that the edit changed or removed."""
    after: Mapping[str, bytes]
    """The JSON of each field that the edit changed or added."""
    omitted: Sequence[str]
    """Fields that also changed, but are too long to be recorded."""
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Documents:
    """All documents at the revision of their last edit; it never changes."""

    revision: int
    by_key: Mapping[DocumentKey, Document]
    size: int = 0
    """Bytes of all their bodies."""

    @staticmethod
    def create(revision: int, documents: Iterable[Document]) -> Documents:
        """Returns these documents."""
        by_key = {document.key: document for document in documents}
        return Documents(revision, MappingProxyType(by_key), sum(len(document.body) for document in by_key.values()))

    def of_kind(self, kind: DocumentKind) -> list[Document]:
        """Returns the documents of one kind, sorted by name."""
        return sorted(
            (document for document in self.by_key.values() if document.key.kind is kind),
            key=lambda document: document.key.name,
        )

    def with_edits(self, revision: int, edits: Iterable[Edit]) -> Documents:
        """Returns the documents after `edits`, committed under `revision`."""
        after, size = dict(self.by_key), self.size
        for edit in edits:
            before = after.pop(edit.key, None) if edit.document is None else after.get(edit.key)
            size -= len(before.body) if before is not None else 0
            if edit.document is not None:
                after[edit.key] = edit.document
                size += len(edit.document.body)
        return Documents(revision, MappingProxyType(after), size)


NO_DOCUMENTS: Final = Documents(0, MappingProxyType({}))
