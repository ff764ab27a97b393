"""Decisions on requests about documents. Like `decisions`, they are pure and idempotent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.documents import (
    INTENT_KINDS,
    MAX_ACCESS_BYTES,
    MAX_AUTHORITIES,
    MAX_DOCUMENT_BYTES,
    MAX_DOCUMENTS,
    MAX_DOCUMENTS_BYTES,
    MAX_INVITES,
    MAX_TOKENS,
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
"""A request about documents that waits to be decided on the newest view of the catalog."""

ValidateDocuments = Callable[[Documents], None]
"""Raises `Invalid` if the documents contradict one another."""


def accept_all(documents: Documents) -> None:
    """Accepts all documents."""


def declare(
    key: DocumentKey, body: bytes, caller: Caller, validate: ValidateDocuments = accept_all, *, reason: str = ""
) -> Declaration:
    """Declares a document, or replaces its body. Raises `CatalogFull`, and `Invalid` for its name or body.

    `validate` checks all documents as they would be after the edit.
    """
    document = Document(key, body, caller.provenance(Cause.DECLARED, reason))

    def decide(view: CatalogView) -> list[Edit]:
        return _checked(view.documents, _edits(view.documents, document), validate)

    return decide


def withdraw(key: DocumentKey, reason: str, caller: Caller) -> Declaration:
    """Withdraws a document. A document that is not declared is no error."""

    def decide(view: CatalogView) -> list[Edit]:
        before = view.documents.find(key)
        return [] if before is None else [Edit(key, None, caller.provenance(Cause.WITHDRAWN, reason), before)]

    return decide


class DocumentReplacement:
    """A declaration that replaces all documents of some kinds.

    An empty list of documents withdraws everything only with `prune`, because an empty list is more often a mistake.
    Without `prune` deciding raises `Invalid`. It also raises what `declare` raises. `prepare` decides ahead, in any
    thread, so that deciding costs nothing if the documents have not changed by then.
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
        provenance = caller.provenance(Cause.DECLARED, reason)
        self._documents = {key: Document(key, body, provenance) for key, body in bodies.items()}
        self._withdrawal = caller.provenance(Cause.WITHDRAWN, reason)
        self._validate = validate
        self._prune = prune
        self._prepared: tuple[Documents, list[Edit] | AdsumError] | None = None

    def prepare(self, documents: Documents, validate: ValidateDocuments) -> None:
        """Decides on these documents ahead of the call, with `validate` in place of the constructor's."""
        try:
            self._prepared = documents, self._decide(documents, validate)
        except AdsumError as error:
            self._prepared = documents, error

    def __call__(self, view: CatalogView) -> list[Edit]:
        documents = view.documents
        if self._prepared is None or self._prepared[0] is not documents:
            return self._decide(documents, self._validate)
        decision = self._prepared[1]
        if isinstance(decision, AdsumError):
            raise decision
        return decision

    def _decide(self, known: Documents, validate: ValidateDocuments) -> list[Edit]:
        withdrawals = [
            Edit(key, None, self._withdrawal, before)
            for kind in self._kinds
            for before in known.by_kind[kind].values()
            if (key := before.key) not in self._documents
        ]
        if withdrawals and not self._documents and not self._prune:
            raise Invalid(
                "prune",
                f"must be true to withdraw everything: the request has no documents, and {len(withdrawals)} would go",
            )
        declared = [edit for document in self._documents.values() for edit in _edits(known, document)]
        return _checked(known, withdrawals + declared, validate)


def _edits(known: Documents, document: Document) -> list[Edit]:
    before = known.find(document.key)
    if before is not None and before.body == document.body:
        return []
    return [Edit(document.key, document, document.provenance, before)]


def _checked(known: Documents, edits: list[Edit], validate: ValidateDocuments) -> list[Edit]:
    """Returns the edits. Raises `CatalogFull` if they exceed a bound, and what `validate` raises."""
    if edits:
        after = known.with_edits(known.revision, edits)
        for bound in _bounds():
            bound.check(known, after)
        validate(after)
    return edits


class _Bound(NamedTuple):
    """A bound on the documents of some kinds, so that those of other kinds can't use up their room."""

    kinds: tuple[DocumentKind, ...]
    noun: str
    most: int
    most_bytes: int

    def check(self, known: Documents, after: Documents) -> None:
        """Raises `CatalogFull` if there would be more documents, or bytes of them, than before and than the bound."""
        count, new_count = known.count(self.kinds), after.count(self.kinds)
        if new_count > max(count, self.most):
            raise CatalogFull(f"there are already {count} {self.noun} of at most {self.most}")
        size, new_size = known.size(self.kinds), after.size(self.kinds)
        if new_size > max(size, self.most_bytes):
            raise CatalogFull(
                f"all {self.noun} may take {format_size(self.most_bytes)} together, and would now take "
                f"{format_size(new_size)}: remove or shorten some"
            )


def _bounds() -> tuple[_Bound, ...]:
    return (
        _Bound(INTENT_KINDS, "routes and upstreams", MAX_DOCUMENTS, MAX_DOCUMENTS_BYTES),
        _Bound((DocumentKind.TOKEN,), "tokens", MAX_TOKENS, MAX_ACCESS_BYTES),
        _Bound((DocumentKind.INVITE,), "invites", MAX_INVITES, MAX_ACCESS_BYTES),
        _Bound((DocumentKind.AUTHORITY,), "records of an authority", MAX_AUTHORITIES, MAX_DOCUMENT_BYTES),
    )
