"""The facts that change the catalog, in the form in which stores keep them.

A change is a new state, not a command: it holds the instance's listing from now on. So applying it twice is harmless,
and a store needs no rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec import Struct

from adsum.core.catalog.documents import Document, Edit
from adsum.core.model import Key, Listing
from adsum.core.provenance import Provenance

MAX_HISTORY_PER_SERVICE: Final = 1_000
"""Recorded changes of one service that a store keeps. Past it the service's oldest are deleted. One answer of the API
holds as many."""
MAX_HISTORY: Final = 25_000
"""Recorded changes of all services that a store keeps. Past it the oldest of the service with the most are deleted, so
that a busy service can't push out the history of a quiet one. A recorded change takes about 500 bytes and at most 6 KB:
12 MB and at most 150 MB in all."""
MAX_REMOVAL_REVISIONS: Final = 10_000
"""Services with a removed instance that a store remembers. Past it the one with the oldest removal is deleted."""


class Change(Struct, frozen=True, gc=False):
    """The new listing of an instance, or its removal if `listing` is None, with its provenance.

    A change whose key has an empty id forgets the service: it is no longer known. It has no effect on a service with
    instances.
    """

    key: Key
    listing: Listing | None
    provenance: Provenance

    @property
    def forgets_service(self) -> bool:
        """True if the change forgets a service, instead of changing an instance."""
        return not self.key.id


def forget_service(service: str, provenance: Provenance) -> Change:
    """Returns the change that forgets the service."""
    return Change(Key(service, ""), None, provenance)


Fact = Change | Edit
"""A change of an instance, or an edit of a document."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Facts committed under one revision."""

    revision: int
    changes: Sequence[Change]
    edits: Sequence[Edit] = ()


@dataclass(frozen=True, slots=True)
class FullState:
    """Everything that a store knows. A stream of batches starts with it, and again after an interruption."""

    epoch: str
    revision: int
    listings: Iterable[tuple[int, Listing]]
    """Every listing with the revision of its last change."""
    documents: Iterable[tuple[int, Document]] = ()
    """Every document with the revision of its last edit."""
    removal_revisions: Mapping[str, int] = field(default_factory=dict)
    """Services from which instances were removed, with the revision of the last removal. They may be empty now."""


class RecordedChange(Struct, frozen=True, gc=False):
    """A change in the history, for people. A key without an id means that the service was forgotten."""

    revision: int
    key: Key
    status: str
    """The status after the change; "" if the instance was removed."""
    provenance: Provenance
