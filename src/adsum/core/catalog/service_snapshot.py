"""One service at one revision, with its latest changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from adsum.core.catalog.changes import Change
from adsum.core.catalog.segmented_mapping import edit_mapping, freeze_mapping, mutable_copy
from adsum.core.memory_sizes import text_size
from adsum.core.model import Key, Listing
from adsum.core.provenance import Provenance

MAX_RECENT_CHANGES: Final = 256
"""Changes that a service remembers, so that watchers can resume. A watcher that resumes from before them receives the
whole service."""
RECENT_CHANGE_BYTES: Final = 400
"""Bytes of a remembered change without its reason."""


class RecentChange(Struct, frozen=True, gc=False):
    """A change of one instance at a revision, without the listing. `listed`: whether the change left it listed."""

    revision: int
    key: Key
    provenance: Provenance
    listed: bool

    @property
    def id(self) -> str:
        return self.key.id

    @property
    def size(self) -> int:
        """Bytes of memory, estimated."""
        return RECENT_CHANGE_BYTES + text_size(self.provenance.reason)


@dataclass(frozen=True, slots=True)
class ServiceDiff:
    """The difference between a service at revision `since` and at `revision`.

    `changed` holds the new listing of every changed instance, `removed` the last change of every instance that left.
    """

    service: str
    since: int
    revision: int
    changed: tuple[Listing, ...]
    removed: tuple[Change, ...]

    def apply(self, listings: Mapping[str, Listing]) -> dict[str, Listing]:
        """Returns the listings by id after this diff. `removed` may name instances that `listings` does not hold."""
        after = mutable_copy(listings)
        for listing in self.changed:
            after[listing.instance.id] = listing
        for change in self.removed:
            after.pop(change.key.id, None)
        return after


class ServiceSnapshot(Struct, frozen=True, gc=False):
    """One service at the revision of its last change; it never changes.

    A service stays known, and empty, after its last instance left.
    """

    name: str
    revision: int
    listings: Mapping[str, Listing]
    recent_changes: tuple[RecentChange, ...] = ()
    compact_revision: int = 0
    """`recent_changes` holds every change after this revision."""
    size: int = 0
    """Bytes of memory of the registrations, estimated."""
    recent_changes_size: int = 0
    """Bytes of memory of the recent changes, estimated."""

    def diff_since(self, revision: int) -> ServiceDiff | None:
        """Returns what changed after `revision`; None if the service no longer remembers that far back.

        The diff is empty if `revision` is this one or a later one.
        """
        if revision < self.compact_revision:
            return None
        last: dict[str, Provenance] = {}
        for change in reversed(self.recent_changes):
            if change.revision <= revision:
                break
            last.setdefault(change.id, change.provenance)
        changed = tuple(self.listings[id] for id in reversed(last) if id in self.listings)
        gone = (id for id in reversed(last) if id not in self.listings)
        removals = tuple(Change(Key(self.name, id), None, last[id]) for id in gone)
        return ServiceDiff(self.name, revision, max(revision, self.revision), changed, removals)

    def with_changes(self, revision: int, changes: Iterable[Change]) -> ServiceSnapshot:
        """Returns the service after `changes`, committed under `revision`."""
        listings, recent = edit_mapping(self.listings), list(self.recent_changes)
        size, recent_size = self.size, self.recent_changes_size
        for change in changes:
            before = listings.pop(change.key.id, None) if change.listing is None else listings.get(change.key.id)
            size -= before.registration.size if before is not None else 0
            if change.listing is not None:
                listings[change.key.id] = change.listing
                size += change.listing.registration.size
            latest = RecentChange(revision, change.key, change.provenance, change.listing is not None)
            recent.append(latest)
            recent_size += latest.size
        compact_revision = self.compact_revision
        if len(recent) > MAX_RECENT_CHANGES:
            first = len(recent) - MAX_RECENT_CHANGES
            compact_revision = recent[first - 1].revision
            while first < len(recent) and recent[first].revision == compact_revision:
                first += 1  # The changes of one revision are remembered together or not at all.
            recent_size -= sum(change.size for change in recent[:first])
            recent = recent[first:]
        return ServiceSnapshot(
            name=self.name,
            revision=revision,
            listings=freeze_mapping(listings),
            recent_changes=tuple(recent),
            compact_revision=compact_revision,
            size=size,
            recent_changes_size=recent_size,
        )

    def without_recent_changes(self) -> ServiceSnapshot:
        """Returns the same service without its recent changes."""
        return replace(self, recent_changes=(), compact_revision=self.revision, recent_changes_size=0)
