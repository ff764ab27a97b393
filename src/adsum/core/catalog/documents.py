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
"""Routes and upstreams in all. Past it new ones are refused; known ones may still change."""
MAX_TOKENS: Final = 10_000
"""Tokens. Past it new ones are refused; known ones may still change."""
MAX_INVITES: Final = 1_000
"""Invites. Past it new ones are refused until some are used up or expire."""
MAX_AUTHORITIES: Final = 1
"""Records of an authority. Another one is refused."""
MAX_EDITS: Final = 2 * MAX_DOCUMENTS
"""Recorded edits that a store keeps. Past it the oldest are deleted."""
MAX_EDITS_PER_DOCUMENT: Final = 100
"""Recorded edits of one document that a store keeps, so that one document can't push out the history of others."""
MAX_DOCUMENTS_BYTES: Final = 64 * 1024 * 1024
"""Bytes of the bodies of all routes and upstreams. Past it edits that add bytes are refused. The resources that are
compiled from them for gateways take several times as much."""
MAX_ACCESS_BYTES: Final = 32 * 1024 * 1024
"""Bytes of the bodies of all tokens, and as many of all invites. Past it edits that add bytes are refused."""


class DocumentKind(StrEnum):
    """The kinds of documents."""

    ROUTE = "route"
    UPSTREAM = "upstream"
    TOKEN = "token"
    """The record of a token: its scopes, and the hashes of its secrets."""
    INVITE = "invite"
    """The record of an invitation to join the registry, with the hash of its secret."""
    AUTHORITY = "authority"
    """The record of the registry's authority: there is one, by which nodes notice that they belong together."""


INTENT_KINDS: Final = (DocumentKind.ROUTE, DocumentKind.UPSTREAM)
"""The kinds of documents that gateways follow."""
ACCESS_KINDS: Final = (DocumentKind.TOKEN, DocumentKind.INVITE, DocumentKind.AUTHORITY)
"""The kinds of documents that say who may do what."""


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
    is_recorded: bool = field(default=True, compare=False)
    """False for an edit that the history leaves out: no person made it, and it happens again and again."""


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
    """Fields that also changed, but are secret or too long to be recorded."""
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Documents:
    """All documents at the revision of their last edit; it never changes.

    A kind whose documents are the same as before keeps its table, so that whatever was computed from it stays valid.
    """

    revision: int
    by_kind: Mapping[DocumentKind, Mapping[str, Document]]
    """The documents of each kind, by name."""
    sizes: Mapping[DocumentKind, int]
    """Bytes of the bodies of each kind."""

    @staticmethod
    def create(revision: int, documents: Iterable[Document]) -> Documents:
        """Returns these documents."""
        tables: dict[DocumentKind, dict[str, Document]] = {kind: {} for kind in DocumentKind}
        for document in documents:
            tables[document.key.kind][document.key.name] = document
        sizes = {kind: sum(len(document.body) for document in table.values()) for kind, table in tables.items()}
        return Documents(revision, _frozen(tables), MappingProxyType(sizes))

    def __len__(self) -> int:
        """The number of all documents."""
        return self.count(DocumentKind)

    def count(self, kinds: Iterable[DocumentKind]) -> int:
        """Returns the number of documents of these kinds."""
        return sum(len(self.by_kind[kind]) for kind in kinds)

    def size(self, kinds: Iterable[DocumentKind]) -> int:
        """Returns the bytes of the bodies of all documents of these kinds."""
        return sum(self.sizes[kind] for kind in kinds)

    def find(self, key: DocumentKey) -> Document | None:
        """Returns the document; None if it is not declared."""
        return self.by_kind[key.kind].get(key.name)

    def of_kind(self, kind: DocumentKind) -> list[Document]:
        """Returns the documents of one kind, sorted by name."""
        return sorted(self.by_kind[kind].values(), key=lambda document: document.key.name)

    def with_edits(self, revision: int, edits: Iterable[Edit]) -> Documents:
        """Returns the documents after `edits`, committed under `revision`."""
        changed: dict[DocumentKind, dict[str, Document]] = {}
        sizes = dict(self.sizes)
        for edit in edits:
            kind, name = edit.key
            table = changed.get(kind)
            if table is None:
                table = changed[kind] = dict(self.by_kind[kind])
            before = table.pop(name, None) if edit.document is None else table.get(name)
            sizes[kind] -= len(before.body) if before is not None else 0
            if edit.document is not None:
                table[name] = edit.document
                sizes[kind] += len(edit.document.body)
        tables = MappingProxyType({**self.by_kind, **_frozen(changed)})
        return Documents(revision, tables, MappingProxyType(sizes))


def intent_changed(before: Documents, after: Documents) -> bool:
    """Returns whether routes or upstreams differ. Costs nothing: unchanged tables are the same objects."""
    return any(before.by_kind[kind] is not after.by_kind[kind] for kind in INTENT_KINDS)


def _frozen(tables: Mapping[DocumentKind, dict[str, Document]]) -> Mapping[DocumentKind, Mapping[str, Document]]:
    return MappingProxyType({kind: MappingProxyType(table) for kind, table in tables.items()})


NO_DOCUMENTS: Final = Documents.create(0, ())
