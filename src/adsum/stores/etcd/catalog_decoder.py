"""Decodes the keys and events of etcd into the full state, batches and recorded changes of a catalog."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from adsum.core.catalog.changes import Batch, Change, FullState, RecordedChange, forget_service
from adsum.core.catalog.documents import Document, DocumentKey, Edit
from adsum.core.errors import AdsumError, StoreOpenFailed
from adsum.core.model import Key, Listing
from adsum.core.provenance import Provenance
from adsum.etcd.values import KeyValue, RangeResult
from adsum.etcd.watch import KeyEvent, RevisionEvents
from adsum.stores.etcd.layout import DELETED_IN_ETCD, FORMAT_VERSION, Head, Layout, LogEntryRecord
from adsum.stores.record_decoder import RecordDecoder, decode_change, decode_document, decode_provenance
from adsum.stores.records import ProvenanceRecord

_HEAD: Final = msgspec.json.Decoder(Head)
_LOG_ENTRY: Final = msgspec.json.Decoder(LogEntryRecord)
_UNREADABLE: Final = (msgspec.DecodeError, ValueError, AdsumError)

_log = logging.getLogger("adsum.store")


@dataclass(frozen=True, slots=True)
class CatalogPosition:
    """The revision of the catalog, and its head.

    `head_revision` is lower than `revision` if another program wrote to the catalog since.
    """

    revision: int
    head_revision: int
    head: Head


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry of the log, with the revision at which etcd wrote it and that of its batch's last part."""

    written_revision: int
    batch_revision: int
    record: LogEntryRecord


_NumberedChange = tuple[int, int, RecordedChange]
"""The number of its part, its number in the batch, and the change."""


def decode_head(key_value: KeyValue) -> Head:
    """Returns the head of the catalog. Raises `StoreOpenFailed`."""
    try:
        head = _HEAD.decode(key_value.value)
    except msgspec.DecodeError as error:
        raise StoreOpenFailed(f"{key_value.key.decode()} in etcd was not written by Adsum: {error}") from None
    if head.format > FORMAT_VERSION:
        raise StoreOpenFailed(
            f"a later version of Adsum wrote what is in etcd (its layout is {head.format}, the latest known here "
            f"{FORMAT_VERSION}): run that version, or use another ?prefix="
        )
    return head


class CatalogDecoder:
    """Decodes the catalog below one prefix. Logs what can't be decoded, and leaves it out."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._records = RecordDecoder()

    async def full_state(self, pages: AsyncIterator[RangeResult]) -> FullState:
        """Returns the catalog, given pages of all its keys.

        Other tasks run between two pages. Raises `StoreOpenFailed` if the head is missing or can't be decoded, and what
        the pages raise.
        """
        listings: list[tuple[int, Listing]] = []
        documents: list[tuple[int, Document]] = []
        removal_revisions: dict[str, int] = {}
        head: KeyValue | None = None
        revision = 0
        async for page in pages:
            for key_value in page.key_values:
                revision = max(revision, key_value.revision)
                if key_value.key == self._layout.head:
                    head = key_value
                elif (service := self._layout.departed_service(key_value.key)) is not None:
                    removal_revisions[service] = key_value.revision
                elif isinstance(value := self._decode_value(key_value), Listing):
                    listings.append((key_value.revision, value))
                elif value is not None:
                    documents.append((key_value.revision, value))
            await asyncio.sleep(0)
        if head is None:
            raise StoreOpenFailed("the head of the catalog in etcd was deleted")
        return FullState(decode_head(head).epoch, revision, listings, documents, removal_revisions)

    def batch(self, parts: Sequence[RevisionEvents]) -> Batch:
        """Returns the batch that was written in these parts."""
        changes: dict[Key, Change] = {}
        edits: dict[DocumentKey, Edit] = {}
        for part in parts:
            deletions = self._deletions(part)
            for event in part.events:
                subject = self._layout.subject(event.key)
                if isinstance(subject, Key) and subject.id:
                    change = self._change(subject, event, deletions)
                    if change is not None:
                        changes[subject] = change
                elif isinstance(subject, DocumentKey):
                    edit = self._edit(subject, event, deletions)
                    if edit is not None:
                        edits[subject] = edit
            # The deletion of a missing key causes no event, so forgotten services are taken from the head. It does not
            # name services that are forgotten past the bound: every node forgets the same ones by itself.
            for path, record in deletions.items():
                if (service := self._layout.forgotten_service(path)) is not None:
                    changes[Key(service, "")] = forget_service(service, decode_provenance(record))
        return Batch(parts[-1].revision, tuple(changes.values()), tuple(edits.values()))

    async def newest_changes(self, pages: AsyncIterator[RangeResult]) -> AsyncGenerator[RecordedChange, None]:
        """Yields the changes of the log, newest first, given pages of its keys, newest first.

        Raises what the pages raise.
        """
        batch: list[_NumberedChange] = []
        later: LogEntry | None = None
        async for page in pages:
            for key_value in page.key_values:
                entry = _decode_log_entry(key_value, later)
                if later is not None and entry.batch_revision != later.batch_revision:
                    for *_, recorded in sorted(batch, key=_order, reverse=True):
                        yield recorded
                    batch.clear()
                batch += self._changes(entry)
                later = entry
        for *_, recorded in sorted(batch, key=_order, reverse=True):
            yield recorded

    def _changes(self, entry: LogEntry) -> Iterator[_NumberedChange]:
        """Yields the changes of an entry with their order in the batch."""
        for index, logged in enumerate(entry.record.changes):
            try:
                recorded = decode_change(entry.batch_revision, Key(logged.service, logged.id), bytes(logged.change))
            except _UNREADABLE as error:
                _log.warning("the history of %s/%s can't be read: %s", logged.service, logged.id, error)
            else:
                yield entry.record.part, logged.number or index, recorded

    def _decode_value(self, key_value: KeyValue) -> Listing | Document | None:
        """Returns the value of a key; None if the key is not of the catalog, or if the value can't be decoded."""
        subject = self._layout.subject(key_value.key)
        if subject is None:
            return None
        try:
            if isinstance(subject, Key):
                return self._records.decode_listing(subject.service, subject.id, key_value.value)
            return decode_document(subject.kind, subject.name, key_value.value)
        except _UNREADABLE as error:
            _log.error("%s in etcd can't be read and is left out: %s", key_value.key.decode(errors="replace"), error)
            return None

    def _deletions(self, part: RevisionEvents) -> dict[str, ProvenanceRecord]:
        """Returns the provenance of the keys that a part deleted, by their paths."""
        for event in part.events:
            if event.key == self._layout.head and event.key_value is not None:
                return decode_head(event.key_value).gone
        return {}

    def _change(self, key: Key, event: KeyEvent, deletions: dict[str, ProvenanceRecord]) -> Change | None:
        if event.key_value is None:
            return Change(key, None, _provenance(deletions.get(self._layout.path(key))))
        listing = self._decode_value(event.key_value)
        return Change(key, listing, listing.provenance) if isinstance(listing, Listing) else None

    def _edit(self, key: DocumentKey, event: KeyEvent, deletions: dict[str, ProvenanceRecord]) -> Edit | None:
        if event.key_value is None:
            return Edit(key, None, _provenance(deletions.get(self._layout.path(key))))
        document = self._decode_value(event.key_value)
        return Edit(key, document, document.provenance) if isinstance(document, Document) else None


def _provenance(record: ProvenanceRecord | None) -> Provenance:
    """Returns the provenance of a deletion. Without a record another program deleted the key."""
    return DELETED_IN_ETCD if record is None else decode_provenance(record)


def _decode_log_entry(key_value: KeyValue, later: LogEntry | None) -> LogEntry:
    """Returns an entry of the log; one without changes if it can't be decoded. `later` is the entry after it."""
    revision = key_value.revision
    try:
        record = _LOG_ENTRY.decode(key_value.value)
    except msgspec.DecodeError:
        return LogEntry(revision, revision, LogEntryRecord([]))
    if later is not None and (revision == later.written_revision or _is_previous_part(record, later.record)):
        return LogEntry(revision, later.batch_revision, record)
    return LogEntry(revision, revision, record)


def _is_previous_part(record: LogEntryRecord, later: LogEntryRecord) -> bool:
    """Returns whether `later` is of the next part of the same batch."""
    return record.part < record.parts == later.parts and later.part == record.part + 1


def _order(change: _NumberedChange) -> tuple[int, int]:
    return change[:2]
