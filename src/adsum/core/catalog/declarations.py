"""What a request about documents changes: like `decisions`, pure and idempotent by construction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.documents import MAX_DOCUMENTS, MAX_SIZE, Document, DocumentKind, Documents, Edit, Title
from adsum.core.catalog.draft import Basis
from adsum.core.errors import AdsumError, CatalogFull, Invalid
from adsum.core.model import Cause
from adsum.core.sizes import spoken

Declaration = Callable[[Basis], list[Edit]]
"""A request about documents, waiting for the freshest basis to be decided on."""


Admit = Callable[[Documents], None]
"""Raises `Invalid` for documents that can't stand together."""


def anything(documents: Documents) -> None:
    """Admits all documents."""


def declared(title: Title, body: bytes, caller: Caller, admit: Admit = anything, *, reason: str = "") -> Declaration:
    """From now on the document says this. Raises `CatalogFull`, and `Invalid` for a name or a body that can't be.

    `admit` judges the documents that there are then.
    """
    document = Document(title, body, caller.why(Cause.DECLARED, reason))

    def decide(basis: Basis) -> list[Edit]:
        return _bounded(basis.documents, _edits(basis.documents, document), admit)

    return decide


def withdrawn(title: Title, reason: str, caller: Caller) -> Declaration:
    """The document is gone. One that is not there is gone already."""

    def decide(basis: Basis) -> list[Edit]:
        before = basis.documents.of.get(title)
        return [] if before is None else [Edit(title, None, caller.why(Cause.WITHDRAWN, reason), before)]

    return decide


class Replacement:
    """The declaration that, from now on, these are all the documents of those kinds.

    No documents at all withdraw everything only with `prune`: an empty list is more often a mistake. To decide raises
    `Invalid` then, and what `declared` raises. `prepare` decides ahead, in any thread, so that deciding costs nothing
    if the documents are still the same then.
    """

    def __init__(
        self,
        kinds: Collection[DocumentKind],
        bodies: Mapping[Title, bytes],
        caller: Caller,
        admit: Admit = anything,
        *,
        prune: bool = False,
        reason: str = "",
    ) -> None:
        self._kinds = kinds
        why = caller.why(Cause.DECLARED, reason)
        self._documents = {title: Document(title, body, why) for title, body in bodies.items()}
        self._withdrawn = caller.why(Cause.WITHDRAWN, reason)
        self._admit = admit
        self._prune = prune
        self._prepared: tuple[Documents, list[Edit] | AdsumError] | None = None

    def prepare(self, documents: Documents, admit: Admit) -> None:
        """Decide on those documents; `admit` judges in place of the one that decides later."""
        try:
            self._prepared = documents, self._decided(documents, admit)
        except AdsumError as refusal:
            self._prepared = documents, refusal

    def __call__(self, basis: Basis) -> list[Edit]:
        documents = basis.documents
        if self._prepared is None or self._prepared[0] is not documents:
            return self._decided(documents, self._admit)
        decided = self._prepared[1]
        if isinstance(decided, AdsumError):
            raise decided
        return decided

    def _decided(self, known: Documents, admit: Admit) -> list[Edit]:
        left = [
            Edit(title, None, self._withdrawn, before)
            for title, before in known.of.items()
            if title.kind in self._kinds and title not in self._documents
        ]
        if left and not self._documents and not self._prune:
            raise Invalid("prune", f"must be true to withdraw everything: this names nothing, and {len(left)} would go")
        put = [edit for document in self._documents.values() for edit in _edits(known, document)]
        return _bounded(known, left + put, admit)


def _edits(known: Documents, document: Document) -> list[Edit]:
    before = known.of.get(document.title)
    if before is not None and before.body == document.body:
        return []
    return [Edit(document.title, document, document.why, before)]


def _bounded(known: Documents, edits: list[Edit], admit: Admit) -> list[Edit]:
    new = sum(edit.document is not None and edit.title not in known.of for edit in edits)
    gone = sum(edit.document is None for edit in edits)
    if new and len(known.of) + new - gone > MAX_DOCUMENTS:
        raise CatalogFull(f"there are already {len(known.of)} documents, and at most {MAX_DOCUMENTS}")
    if edits:
        after = known.with_edits(known.revision, edits)
        if after.size > max(known.size, MAX_SIZE):
            raise CatalogFull(
                f"all routes and upstreams together may take {spoken(MAX_SIZE)}, and these make {spoken(after.size)}: "
                "remove or shorten some"
            )
        admit(after)
    return edits
