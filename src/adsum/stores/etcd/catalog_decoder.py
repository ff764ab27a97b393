"""What etcd shows becomes what a registry follows: the whole catalog, and one batch after the other."""

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
from adsum.etcd.values import KeyValue, RangeResult
from adsum.etcd.watch import KeyEvent, RevisionEvents
from adsum.stores import record_decoder
from adsum.stores.etcd.layout import DELETED_IN_ETCD, FORMAT_VERSION, Head, Layout, LogEntryRecord
from adsum.stores.records import ProvenanceRecord

_HEAD: Final = msgspec.json.Decoder(Head)
_LOG: Final = msgspec.json.Decoder(LogEntryRecord)
_UNREADABLE: Final = (msgspec.DecodeError, ValueError, AdsumError)

_log = logging.getLogger("adsum.store")


@dataclass(frozen=True, slots=True)
class CatalogPosition:
    """How far the catalog is: its revision, and the head's own, which lags behind if somebody wrote past us."""

    revision: int
    head_revision: int
    head: Head


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry of the log: the revision that etcd gave it, and that of its batch, which may have later parts."""

    written_revision: int
    batch_revision: int
    record: LogEntryRecord


def decode_head(found: KeyValue) -> Head:
    """What the head says. Raises `StoreOpenFailed`."""
    try:
        said = _HEAD.decode(found.value)
    except msgspec.DecodeError as error:
        raise StoreOpenFailed(f"{found.key.decode()} in etcd is not what Adsum wrote: {error}") from None
    if said.format > FORMAT_VERSION:
        raise StoreOpenFailed(
            f"a later version of Adsum wrote what is in etcd (its layout is {said.format}, the latest known here "
            f"{FORMAT_VERSION}): run that one, or use another ?prefix="
        )
    return said


class CatalogDecoder:
    """Reads the catalog below one prefix. What can't be read, and so is none of ours, is left out and told."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._reader = record_decoder.RecordDecoder()

    async def full_state(self, pages: AsyncIterator[RangeResult]) -> FullState:
        """The catalog, of all its keys. Raises `StoreOpenFailed` if it has no head that can be read, and `EtcdError`.

        Page by page, so that whoever else has something to do has turns between.
        """
        listings: list[tuple[int, Listing]] = []
        documents: list[tuple[int, Document]] = []
        left: dict[str, int] = {}
        top: KeyValue | None = None
        revision = 0
        async for page in pages:
            for each in page.key_values:
                revision = max(revision, each.revision)
                if each.key == self._layout.head:
                    top = each
                elif (service := self._layout.departed_service(each.key)) is not None:
                    left[service] = each.revision
                elif isinstance(said := self._said(each), Listing):
                    listings.append((each.revision, said))
                elif said is not None:
                    documents.append((each.revision, said))
            await asyncio.sleep(0)
        if top is None:
            raise StoreOpenFailed("somebody deleted the head of the catalog in etcd")
        return FullState(decode_head(top).epoch, revision, listings, documents, left)

    def batch(self, parts: Sequence[RevisionEvents]) -> Batch:
        """The batch that was written at those revisions, its parts."""
        changes: dict[Key, Change] = {}
        edits: dict[DocumentKey, Edit] = {}
        for each in parts:
            gone = self._gone(each)
            for event in each.events:
                subject = self._layout.subject(event.key)
                if isinstance(subject, Key) and subject.id:
                    change = self._change(subject, event, gone)
                    if change is not None:
                        changes[subject] = change
                elif isinstance(subject, DocumentKey):
                    edit = self._edit(subject, event, gone)
                    if edit is not None:
                        edits[subject] = edit
            # A key that was not there is deleted without an event. Those that are deleted to make room are not named:
            # each node forgets the same ones by itself.
            for path, why in gone.items():
                if (service := self._layout.forgotten_service(path)) is not None:
                    changes[Key(service, "")] = forget_service(service, record_decoder.decode_provenance(why))
        return Batch(parts[-1].revision, tuple(changes.values()), tuple(edits.values()))

    async def newest_changes(self, pages: AsyncIterator[RangeResult]) -> AsyncGenerator[RecordedChange, None]:
        """The changes of the log, newest first, from its entries, newest first. Raises what the pages raise."""
        batch: list[tuple[int, int, RecordedChange]] = []
        later: LogEntry | None = None
        async for page in pages:
            for each in page.key_values:
                entry = _entry(each, later)
                if later is not None and entry.batch_revision != later.batch_revision:
                    for *_, recorded in sorted(batch, key=_place, reverse=True):
                        yield recorded
                    batch.clear()
                batch += self._changes(entry)
                later = entry
        for *_, recorded in sorted(batch, key=_place, reverse=True):
            yield recorded

    def _changes(self, entry: LogEntry) -> Iterator[tuple[int, int, RecordedChange]]:
        """Its changes, each behind the part and its number, by which it has its place in the batch."""
        for position, logged in enumerate(entry.record.changes):
            try:
                recorded = record_decoder.decode_change(
                    entry.batch_revision, Key(logged.service, logged.id), bytes(logged.change)
                )
            except _UNREADABLE as error:
                _log.warning("history of %s/%s can't be read: %s", logged.service, logged.id, error)
            else:
                yield entry.record.part, logged.number or position, recorded

    def _said(self, found: KeyValue) -> Listing | Document | None:
        subject = self._layout.subject(found.key)
        if subject is None:
            return None
        try:
            if isinstance(subject, Key):
                return self._reader.decode_listing(subject.service, subject.id, found.value)
            return record_decoder.decode_document(subject.kind, subject.name, found.value)
        except _UNREADABLE as error:
            _log.error("%s in etcd can't be read and is left out: %s", found.key.decode(errors="replace"), error)
            return None

    def _gone(self, seen: RevisionEvents) -> dict[str, ProvenanceRecord]:
        for event in seen.events:
            if event.key == self._layout.head and event.key_value is not None:
                return decode_head(event.key_value).gone
        return {}

    def _change(self, key: Key, event: KeyEvent, gone: dict[str, ProvenanceRecord]) -> Change | None:
        why = gone.get(self._layout.path(key))
        if event.key_value is None:
            return Change(key, None, DELETED_IN_ETCD if why is None else record_decoder.decode_provenance(why))
        listing = self._said(event.key_value)
        return Change(key, listing, listing.provenance) if isinstance(listing, Listing) else None

    def _edit(self, title: DocumentKey, event: KeyEvent, gone: dict[str, ProvenanceRecord]) -> Edit | None:
        if event.key_value is None:
            why = gone.get(self._layout.path(title))
            return Edit(title, None, DELETED_IN_ETCD if why is None else record_decoder.decode_provenance(why))
        document = self._said(event.key_value)
        return Edit(title, document, document.provenance) if isinstance(document, Document) else None


def _entry(found: KeyValue, later: LogEntry | None) -> LogEntry:
    """An entry of the log; `later` is the entry after it."""
    try:
        log = _LOG.decode(found.value)
    except msgspec.DecodeError:
        return LogEntry(found.revision, found.revision, LogEntryRecord([]))
    if later is not None and (found.revision == later.written_revision or _goes_on(log, later.record)):
        return LogEntry(found.revision, later.batch_revision, log)
    return LogEntry(found.revision, found.revision, log)


def _goes_on(log: LogEntryRecord, later: LogEntryRecord) -> bool:
    """Whether the later entry is of the next part of the same batch."""
    return log.part < log.parts == later.parts and later.part == log.part + 1


def _place(change: tuple[int, int, RecordedChange]) -> tuple[int, int]:
    return change[:2]
