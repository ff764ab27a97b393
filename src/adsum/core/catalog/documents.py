"""What operators declare beside the catalog, such as the routes of gateways: kept in its order, read by others.

The core knows who declared a document, when and why, but not what it says.
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
"""How many documents there are at most; past it new ones are refused, known ones may still change."""
MAX_EDITS: Final = 2 * MAX_DOCUMENTS
"""How many recorded edits a store keeps for people who ask why; the oldest are forgotten first."""
MAX_EDITS_PER_DOCUMENT: Final = 100
"""How many of them are of one document, so that one can't flush the history of the others."""


MAX_DOCUMENTS_BYTES: Final = 64 * 1024 * 1024
"""Bytes of the bodies of all documents; past it those that make them more are refused. What is compiled of them for
gateways takes some times as much."""


class DocumentKind(StrEnum):
    """What documents are about."""

    ROUTE = "route"
    UPSTREAM = "upstream"


class DocumentKey(NamedTuple):
    """What names a document."""

    kind: DocumentKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind.value} {self.name}"


@dataclass(frozen=True, slots=True)
class Document:
    """JSON that was declared, and why it says what it says."""

    key: DocumentKey
    body: bytes
    provenance: Provenance

    def __post_init__(self) -> None:
        validation.instance_id("name", self.key.name)
        if len(self.body) > MAX_DOCUMENT_BYTES:
            raise Invalid("", f"must be at most {MAX_DOCUMENT_BYTES} bytes of JSON, not {len(self.body)}")


@dataclass(frozen=True, slots=True)
class Edit:
    """From now on the document says what `document` says, or, if that is None, is gone; `why` says why."""

    key: DocumentKey
    document: Document | None
    provenance: Provenance
    before: Document | None = field(default=None, compare=False)
    """What it replaces, for the record. Followers of a store are not told it."""


class EditKind(StrEnum):
    """What became of a document."""

    DECLARED = "declared"
    CHANGED = "changed"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class RecordedEdit:
    """An edit as history keeps it, for people."""

    revision: int
    key: DocumentKey
    kind: EditKind
    before: Mapping[str, bytes]
    """The JSON of each field that the edit changed or removed."""
    after: Mapping[str, bytes]
    """The JSON of each field that the edit changed or added."""
    omitted: Sequence[str]
    """Fields that changed, too, but are too long to be kept."""
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
        """These documents and no others."""
        of = {each.key: each for each in documents}
        return Documents(revision, MappingProxyType(of), sum(len(each.body) for each in of.values()))

    def of_kind(self, kind: DocumentKind) -> list[Document]:
        """Those of one kind, by name."""
        return sorted((each for each in self.by_key.values() if each.key.kind is kind), key=lambda each: each.key.name)

    def with_edits(self, revision: int, edits: Iterable[Edit]) -> Documents:
        """The documents after `edits`, committed under `revision`."""
        after, size = dict(self.by_key), self.size
        for edit in edits:
            before = after.pop(edit.key, None) if edit.document is None else after.get(edit.key)
            size -= len(before.body) if before is not None else 0
            if edit.document is not None:
                after[edit.key] = edit.document
                size += len(edit.document.body)
        return Documents(revision, MappingProxyType(after), size)


NO_DOCUMENTS: Final = Documents(0, MappingProxyType({}))
