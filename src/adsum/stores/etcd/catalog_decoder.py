"""What etcd shows becomes what a registry follows: the whole catalog, and one batch after the other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from adsum.core.catalog.changes import Batch, Change, Recorded, Whole, forgetting
from adsum.core.catalog.documents import Document, Edit, Title
from adsum.core.errors import AdsumError, StoreRefused
from adsum.core.model import Key, Listing
from adsum.etcd.values import KeyValue, Ranged
from adsum.etcd.watch import Event, Seen
from adsum.stores import record_decoder
from adsum.stores.etcd.layout import FORMAT, SOMEBODY, Head, Layout, Log
from adsum.stores.records import WhyRecord

_HEAD: Final = msgspec.json.Decoder(Head)
_LOG: Final = msgspec.json.Decoder(Log)
_UNREADABLE: Final = (msgspec.DecodeError, ValueError, AdsumError)

_log = logging.getLogger("adsum.store")


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the catalog is: its revision, and the head's own, which lags behind if somebody wrote past us."""

    revision: int
    head: int
    said: Head


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the log: the revision that etcd gave it, and that of its batch, which may have later parts."""

    written: int
    revision: int
    log: Log


def head(found: KeyValue) -> Head:
    """What the head says. Raises `StoreRefused`."""
    try:
        said = _HEAD.decode(found.value)
    except msgspec.DecodeError as error:
        raise StoreRefused(f"{found.key.decode()} in etcd is not what Adsum wrote: {error}") from None
    if said.format > FORMAT:
        raise StoreRefused(
            f"a later version of Adsum wrote what is in etcd (its layout is {said.format}, the latest known here "
            f"{FORMAT}): run that one, or use another ?prefix="
        )
    return said


class Reading:
    """Reads the catalog below one prefix. What can't be read, and so is none of ours, is left out and told."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._reader = record_decoder.Reader()

    async def whole(self, pages: AsyncIterator[Ranged]) -> Whole:
        """The catalog, of all its keys. Raises `StoreRefused` if it has no head that can be read, and `EtcdError`.

        Page by page, so that whoever else has something to do has turns between.
        """
        listings: list[tuple[int, Listing]] = []
        documents: list[tuple[int, Document]] = []
        left: dict[str, int] = {}
        top: KeyValue | None = None
        revision = 0
        async for page in pages:
            for each in page.found:
                revision = max(revision, each.revision)
                if each.key == self._layout.head:
                    top = each
                elif (service := self._layout.departed(each.key)) is not None:
                    left[service] = each.revision
                elif isinstance(said := self._said(each), Listing):
                    listings.append((each.revision, said))
                elif said is not None:
                    documents.append((each.revision, said))
            await asyncio.sleep(0)
        if top is None:
            raise StoreRefused("somebody deleted the head of the catalog in etcd")
        return Whole(head(top).epoch, revision, listings, documents, left)

    def batch(self, seen: Sequence[Seen]) -> Batch:
        """The batch that was written at those revisions, its parts."""
        changes: dict[Key, Change] = {}
        edits: dict[Title, Edit] = {}
        for each in seen:
            gone = self._gone(each)
            for event in each.events:
                subject = self._layout.subject(event.key)
                if isinstance(subject, Key) and subject.id:
                    change = self._change(subject, event, gone)
                    if change is not None:
                        changes[subject] = change
                elif isinstance(subject, Title):
                    edit = self._edit(subject, event, gone)
                    if edit is not None:
                        edits[subject] = edit
            # A key that was not there is deleted without an event. Those that are deleted to make room are not named:
            # each node forgets the same ones by itself.
            for path, why in gone.items():
                if (service := self._layout.forgotten(path)) is not None:
                    changes[Key(service, "")] = forgetting(service, record_decoder.to_why(why))
        return Batch(seen[-1].revision, tuple(changes.values()), tuple(edits.values()))

    async def newest(self, pages: AsyncIterator[Ranged]) -> AsyncGenerator[Recorded, None]:
        """The changes of the log, newest first, from its entries, newest first. Raises what the pages raise."""
        batch: list[tuple[int, int, Recorded]] = []
        later: Entry | None = None
        async for page in pages:
            for each in page.found:
                entry = _entry(each, later)
                if later is not None and entry.revision != later.revision:
                    for *_, recorded in sorted(batch, key=_place, reverse=True):
                        yield recorded
                    batch.clear()
                batch += self._changes(entry)
                later = entry
        for *_, recorded in sorted(batch, key=_place, reverse=True):
            yield recorded

    def _changes(self, entry: Entry) -> Iterator[tuple[int, int, Recorded]]:
        """Its changes, each behind the part and its number, by which it has its place in the batch."""
        for position, logged in enumerate(entry.log.changes):
            try:
                recorded = record_decoder.change(entry.revision, Key(logged.service, logged.id), bytes(logged.change))
            except _UNREADABLE as error:
                _log.warning("history of %s/%s can't be read: %s", logged.service, logged.id, error)
            else:
                yield entry.log.part, logged.number or position, recorded

    def _said(self, found: KeyValue) -> Listing | Document | None:
        subject = self._layout.subject(found.key)
        if subject is None:
            return None
        try:
            if isinstance(subject, Key):
                return self._reader.listing(subject.service, subject.id, found.value)
            return record_decoder.document(subject.kind, subject.name, found.value)
        except _UNREADABLE as error:
            _log.error("%s in etcd can't be read and is left out: %s", found.key.decode(errors="replace"), error)
            return None

    def _gone(self, seen: Seen) -> dict[str, WhyRecord]:
        for event in seen.events:
            if event.key == self._layout.head and event.now is not None:
                return head(event.now).gone
        return {}

    def _change(self, key: Key, event: Event, gone: dict[str, WhyRecord]) -> Change | None:
        why = gone.get(self._layout.path(key))
        if event.now is None:
            return Change(key, None, SOMEBODY if why is None else record_decoder.to_why(why))
        listing = self._said(event.now)
        return Change(key, listing, listing.why) if isinstance(listing, Listing) else None

    def _edit(self, title: Title, event: Event, gone: dict[str, WhyRecord]) -> Edit | None:
        if event.now is None:
            why = gone.get(self._layout.path(title))
            return Edit(title, None, SOMEBODY if why is None else record_decoder.to_why(why))
        document = self._said(event.now)
        return Edit(title, document, document.why) if isinstance(document, Document) else None


def _entry(found: KeyValue, later: Entry | None) -> Entry:
    """An entry of the log; `later` is the entry after it."""
    try:
        log = _LOG.decode(found.value)
    except msgspec.DecodeError:
        return Entry(found.revision, found.revision, Log([]))
    if later is not None and (found.revision == later.written or _goes_on(log, later.log)):
        return Entry(found.revision, later.revision, log)
    return Entry(found.revision, found.revision, log)


def _goes_on(log: Log, later: Log) -> bool:
    """Whether the later entry is of the next part of the same batch."""
    return log.part < log.parts == later.parts and later.part == log.part + 1


def _place(change: tuple[int, int, Recorded]) -> tuple[int, int]:
    return change[:2]
