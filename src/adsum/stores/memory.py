"""The store in memory. It is empty after a restart: for tests, demos and registries that may start empty."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from itertools import count, islice
from typing import Final

from adsum.core.catalog.changes import MAX_REMOVAL_REVISIONS, Batch, Change, FullState, RecordedChange
from adsum.core.catalog.documents import Document, DocumentKey, DocumentKind, Edit, RecordedEdit
from adsum.core.errors import Invalid, StoreConflict, StoreUnavailable
from adsum.core.model import Key, Listing
from adsum.core.nodes.sharding import SingleNode
from adsum.stores.batch_feed import BatchFeed
from adsum.stores.edit_log import MAX_EDITS_ON_EVENT_LOOP, EditLog, edit_records
from adsum.stores.retention import Retention


class MemoryStore:
    """Implements `ports.Store` in this process's memory."""

    is_shared: Final = False

    def __init__(self) -> None:
        self._epoch = secrets.token_hex(16)
        self._revision = 0
        self._listings: dict[Key, tuple[int, Listing]] = {}
        self._documents: dict[DocumentKey, tuple[int, Document]] = {}
        self._removal_revisions: dict[str, int] = {}
        """Service → revision of the latest removal of an instance, the oldest first."""
        self._history: dict[int, RecordedChange] = {}
        """Sequence number → recorded change, the oldest first."""
        self._retention = Retention[int]()
        self._numbers = count()
        self._edits = EditLog()
        self._feed = BatchFeed(self._full_state)
        self._open = False

    @classmethod
    def from_url(cls, url: str) -> MemoryStore:
        """Returns the store of `memory:`. Raises `Invalid` for any other URL."""
        if url != "memory:":
            raise Invalid("store", f"must be exactly memory:, not {url!r}")
        return cls()

    def join(self, name: str) -> SingleNode:
        return SingleNode(name)

    async def open(self) -> None:
        self._open = True

    async def commit(self, changes: Sequence[Change], base_revision: int, edits: Sequence[Edit] = ()) -> int:
        many = len(edits) > MAX_EDITS_ON_EVENT_LOOP
        recorded = await asyncio.to_thread(edit_records, edits) if many else edit_records(edits)
        await self.confirm(base_revision)
        self._revision += 1
        for change in changes:
            self._apply_change(change)
        for edit in edits:
            self._apply_edit(edit)
        self._edits.add(self._revision, recorded)
        self._feed.publish(Batch(self._revision, tuple(changes), tuple(edits)))
        return self._revision

    async def wait_for_turn(self) -> None:
        """Returns at once: no other node writes."""

    async def confirm(self, base_revision: int) -> None:
        self._must_be_open()
        if base_revision != self._revision:
            raise StoreConflict(f"decided on revision {base_revision}, but the store is at {self._revision}")

    def _apply_change(self, change: Change) -> None:
        if change.listing is None:
            self._listings.pop(change.key, None)
            self._removal_revisions.pop(change.key.service, None)  # So that the latest removal is the last in the dict.
            if not change.forgets_service:
                self._add_removal(change.key.service)
            status = ""
        else:
            self._listings[change.key] = (self._revision, change.listing)
            status = change.listing.status.value
        number = next(self._numbers)
        self._history[number] = RecordedChange(self._revision, change.key, status, change.provenance)
        self._retention.add(change.key.service, number)
        for trimmed in self._retention.trim():
            del self._history[trimmed]

    def _add_removal(self, service: str) -> None:
        self._removal_revisions[service] = self._revision
        if len(self._removal_revisions) > MAX_REMOVAL_REVISIONS:
            del self._removal_revisions[next(iter(self._removal_revisions))]

    def _apply_edit(self, edit: Edit) -> None:
        if edit.document is None:
            self._documents.pop(edit.key, None)
        else:
            self._documents[edit.key] = (self._revision, edit.document)

    def watch(self) -> AsyncIterator[FullState | Batch]:
        return self._feed.watch()

    async def _full_state(self) -> FullState:
        self._must_be_open()
        listings, documents = list(self._listings.values()), list(self._documents.values())
        return FullState(self._epoch, self._revision, listings, documents, dict(self._removal_revisions))

    async def history(self, service: str | None, id: str | None, limit: int) -> Sequence[RecordedChange]:
        self._must_be_open()
        numbers = reversed(self._history) if service is None else self._retention.newest_first(service)
        newest = (self._history[number] for number in numbers)
        found = (recorded for recorded in newest if id in (None, recorded.key.id))
        return list(islice(found, max(0, limit)))

    async def edits(self, kinds: Collection[DocumentKind], name: str | None, limit: int) -> Sequence[RecordedEdit]:
        self._must_be_open()
        return self._edits.newest(kinds, name, limit)

    def age(self) -> float:
        return 0.0

    def isolated_seconds(self) -> float:
        return 0.0

    def condition(self) -> Mapping[str, str]:
        return {}

    async def close(self) -> None:
        self._open = False

    def _must_be_open(self) -> None:
        if not self._open:
            raise StoreUnavailable("the store is closed")
