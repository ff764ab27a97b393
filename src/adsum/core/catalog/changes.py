"""Facts that alter the catalog, in the form in which stores keep them.

A change says what an instance's listing is from now on, not what to do to it: applying it twice is harmless, and a
store needs no rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from adsum.core.catalog.documents import Document, Edit
from adsum.core.model import Key, Listing
from adsum.core.provenance import Provenance

MAX_HISTORY_PER_SERVICE: Final = 1_000
"""How many recorded changes of one service a store keeps for people who ask why; past it that service's oldest are
forgotten. One answer shows as many."""
MAX_HISTORY: Final = 25_000
"""How many of all services; past it the oldest of the service that has the most are forgotten first, so that no service
pushes out what another one has fewer of. A recorded change takes at most some 6 KB, and 500 bytes as a rule: 150 MB and
12 MB in all."""
MAX_REMOVAL_REVISIONS: Final = 10_000
"""How many services that an instance left a store remembers; past it the one that was left longest ago is forgotten."""


@dataclass(frozen=True, slots=True)
class Change:
    """From now on the instance is listed as `listing`, or, if that is None, not at all; `why` says why.

    With an empty id it is about the service: from now on it is as unknown as one that never was. Only a service without
    an instance can be forgotten; for any other the change means nothing.
    """

    key: Key
    listing: Listing | None
    provenance: Provenance

    @property
    def forgets_service(self) -> bool:
        """Whether it is a service that is forgotten, and no instance that changes."""
        return not self.key.id


def forget_service(service: str, provenance: Provenance) -> Change:
    """The service is no longer known."""
    return Change(Key(service, ""), None, provenance)


Fact = Change | Edit
"""What a decision comes to."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Facts committed under one revision."""

    revision: int
    changes: Sequence[Change]
    edits: Sequence[Edit] = ()


@dataclass(frozen=True, slots=True)
class FullState:
    """Everything that a store knows: the start of a stream, or its new start when it could not go on."""

    epoch: str
    revision: int
    listings: Iterable[tuple[int, Listing]]
    """Every listing with the revision of its last change."""
    documents: Iterable[tuple[int, Document]] = ()
    """Every document with the revision of its last edit."""
    removal_revisions: Mapping[str, int] = field(default_factory=dict)
    """Services that instances left, with the revision of the latest one's leaving: known, though all may have left."""


@dataclass(frozen=True, slots=True)
class RecordedChange:
    """A change as history keeps it, for people. One without an id forgot the service."""

    revision: int
    key: Key
    status: str
    """The status it led to, or "" if the instance left."""
    provenance: Provenance
