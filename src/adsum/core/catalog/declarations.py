"""What a request about documents changes: like `decisions`, pure and idempotent by construction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.documents import (
    MAX_DOCUMENTS,
    MAX_DOCUMENTS_BYTES,
    Document,
    DocumentKey,
    DocumentKind,
    Documents,
    Edit,
)
from adsum.core.catalog.draft import CatalogView
from adsum.core.errors import AdsumError, CatalogFull, Invalid
from adsum.core.provenance import Cause
from adsum.core.sizes import format_size

Declaration = Callable[[CatalogView], list[Edit]]
"""A request about documents, waiting for the freshest basis to be decided on."""


ValidateDocuments = Callable[[Documents], None]
"""Raises `Invalid` for documents that can't stand together."""


def accept_all(documents: Documents) -> None:
    """Admits all documents."""


def declare(
    title: DocumentKey, body: bytes, caller: Caller, validate: ValidateDocuments = accept_all, *, reason: str = ""
) -> Declaration:
    """From now on the document says this. Raises `CatalogFull`, and `Invalid` for a name or a body that can't be.

    `admit` judges the documents that there are then.
    """
    document = Document(title, body, caller.provenance(Cause.DECLARED, reason))

    def decide(basis: CatalogView) -> list[Edit]:
        return _bounded(basis.documents, _edits(basis.documents, document), validate)

    return decide


def withdraw(title: DocumentKey, reason: str, caller: Caller) -> Declaration:
    """The document is gone. One that is not there is gone already."""

    def decide(basis: CatalogView) -> list[Edit]:
        before = basis.documents.by_key.get(title)
        return [] if before is None else [Edit(title, None, caller.provenance(Cause.WITHDRAWN, reason), before)]

    return decide


class DocumentReplacement:
    """The declaration that, from now on, these are all the documents of those kinds.

    No documents at all withdraw everything only with `prune`: an empty list is more often a mistake. To decide raises
    `Invalid` then, and what `declare` raises. `prepare` decides ahead, in any thread, so that deciding costs nothing
    if the documents are still the same then.
    """

    def __init__(
        self,
        kinds: Collection[DocumentKind],
        bodies: Mapping[DocumentKey, bytes],
        caller: Caller,
        validate: ValidateDocuments = accept_all,
        *,
        prune: bool = False,
        reason: str = "",
    ) -> None:
        self._kinds = kinds
        why = caller.provenance(Cause.DECLARED, reason)
        self._documents = {title: Document(title, body, why) for title, body in bodies.items()}
        self._withdrawn = caller.provenance(Cause.WITHDRAWN, reason)
        self._admit = validate
        self._prune = prune
        self._prepared: tuple[Documents, list[Edit] | AdsumError] | None = None

    def prepare(self, documents: Documents, validate: ValidateDocuments) -> None:
        """Decide on those documents; `admit` judges in place of the one that decides later."""
        try:
            self._prepared = documents, self._decided(documents, validate)
        except AdsumError as refusal:
            self._prepared = documents, refusal

    def __call__(self, basis: CatalogView) -> list[Edit]:
        documents = basis.documents
        if self._prepared is None or self._prepared[0] is not documents:
            return self._decided(documents, self._admit)
        decided = self._prepared[1]
        if isinstance(decided, AdsumError):
            raise decided
        return decided

    def _decided(self, known: Documents, admit: ValidateDocuments) -> list[Edit]:
        left = [
            Edit(title, None, self._withdrawn, before)
            for title, before in known.by_key.items()
            if title.kind in self._kinds and title not in self._documents
        ]
        if left and not self._documents and not self._prune:
            raise Invalid("prune", f"must be true to withdraw everything: this names nothing, and {len(left)} would go")
        put = [edit for document in self._documents.values() for edit in _edits(known, document)]
        return _bounded(known, left + put, admit)


def _edits(known: Documents, document: Document) -> list[Edit]:
    before = known.by_key.get(document.key)
    if before is not None and before.body == document.body:
        return []
    return [Edit(document.key, document, document.provenance, before)]


def _bounded(known: Documents, edits: list[Edit], admit: ValidateDocuments) -> list[Edit]:
    new = sum(edit.document is not None and edit.key not in known.by_key for edit in edits)
    gone = sum(edit.document is None for edit in edits)
    if new and len(known.by_key) + new - gone > MAX_DOCUMENTS:
        raise CatalogFull(f"there are already {len(known.by_key)} documents, and at most {MAX_DOCUMENTS}")
    if edits:
        after = known.with_edits(known.revision, edits)
        if after.size > max(known.size, MAX_DOCUMENTS_BYTES):
            raise CatalogFull(
                f"all routes and upstreams together may take {format_size(MAX_DOCUMENTS_BYTES)}, and these make {format_size(after.size)}: "
                "remove or shorten some"
            )
        admit(after)
    return edits
