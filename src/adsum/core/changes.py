"""Facts that alter the catalog, in the form in which stores keep them.

A change says what an instance's listing is from now on, not what to do to it: applying it twice is harmless, and a
store needs no rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from adsum.core.documents import Document, Edit
from adsum.core.model import Key, Listing, Why

HISTORY: Final = 10_000
"""How many recorded changes a store keeps for people who ask why; the oldest are forgotten first."""


@dataclass(frozen=True, slots=True)
class Change:
    """From now on the instance is listed as `listing`, or, if that is None, not at all; `why` says why."""

    key: Key
    listing: Listing | None
    why: Why


Fact = Change | Edit
"""What a decision comes to."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Facts committed under one revision."""

    revision: int
    changes: Sequence[Change]
    edits: Sequence[Edit] = ()


@dataclass(frozen=True, slots=True)
class Whole:
    """Everything that a store knows: the start of a stream, or its new start when it could not go on."""

    epoch: str
    revision: int
    listings: Iterable[tuple[int, Listing]]
    """Every listing with the revision of its last change."""
    documents: Iterable[tuple[int, Document]] = ()
    """Every document with the revision of its last edit."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A change as history keeps it, for people."""

    revision: int
    key: Key
    status: str
    """The status it led to, or "" if the instance left."""
    why: Why
