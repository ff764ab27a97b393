"""One service at one revision, with its latest changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from msgspec import Struct

from adsum.core.catalog.changes import Change
from adsum.core.catalog.recent_changes import NO_RECENT_CHANGES, RecentChange, RecentChanges
from adsum.core.catalog.segmented_mapping import edit_mapping, freeze_mapping, mutable_copy
from adsum.core.model import Key, Listing
from adsum.core.provenance import Provenance

MAX_RECENT_CHANGES: Final = 256
"""Changes that a service remembers, so that watchers can resume. A watcher that resumes from before them receives the
whole service."""


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
    recent_changes: RecentChanges = NO_RECENT_CHANGES
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
        listings, recent = edit_mapping(self.listings), list[RecentChange]()
        size, recent_size = self.size, self.recent_changes_size
        for change in changes:
            key, listing = change.key, change.listing
            id = key.id
            if listing is None:
                before = listings.pop(id, None)
            else:
                before = listings.get(id)
                listings[id] = listing
                size += listing.registration.size
            if before is not None:
                size -= before.registration.size
            step = RecentChange(revision, key, change.provenance, listing is not None)
            recent.append(step)
            recent_size += step.size
        recent_changes, dropped = self.recent_changes.extended(recent, MAX_RECENT_CHANGES)
        compact_revision = self.compact_revision
        if dropped:
            compact_revision = dropped[-1].revision
            for step in dropped:
                recent_size -= step.size
        return ServiceSnapshot(
            self.name, revision, freeze_mapping(listings), recent_changes, compact_revision, size, recent_size
        )

    def without_recent_changes(self) -> ServiceSnapshot:
        """Returns the same service without its recent changes."""
        return ServiceSnapshot(self.name, self.revision, self.listings, compact_revision=self.revision, size=self.size)
