"""Rows of the tables: what a transaction writes, and the checksum that each row carries.

A checksum covers everything else in its row. SQLite checks none of that: a bit that a disk or a copy flips in a text
reads back as another text.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from adsum.core.catalog.changes import Change
from adsum.core.catalog.documents import DocumentKey, Edit
from adsum.core.model import Key
from adsum.stores import edit_log, records

RecordRow = tuple[str, str, int, bytes, int]
"""Service, id, revision, record, checksum. Rows of documents have kind and name in place of service and id."""


def checksum(*values: object) -> int:
    """The CRC-32 of a row's other values, in the order of the table's columns."""
    parts = [value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass") for value in values]
    return zlib.crc32(b"\0".join(parts))


def has_valid_checksum(row: Sequence[object]) -> bool:
    """Whether the last value of a row is the checksum of those before it."""
    return row[-1] == checksum(*row[:-1])


@dataclass(frozen=True, slots=True)
class BatchWrite:
    """A batch to be written if the file is still at `base_revision`."""

    changes: Sequence[Change]
    base_revision: int
    edits: Sequence[Edit] = ()


@dataclass(frozen=True, slots=True)
class TransactionRows:
    """What a transaction writes: the last row of all that it touches (None: it is gone), and all of its history."""

    listings: dict[Key, RecordRow | None]
    documents: dict[DocumentKey, RecordRow | None]
    history: list[RecordRow]
    departures: dict[str, int | None]
    """The revision at which an instance last left each service; None: the service was forgotten since."""
    edits: list[RecordRow]

    def add(self, revision: int, batch: BatchWrite) -> None:
        """Add a batch, or nothing of it if something can't be encoded."""
        listings = {each.key: _listing(revision, each) for each in batch.changes if not each.forgets_service}
        documents = {each.key: _document(revision, each) for each in batch.edits}
        history = [_row(*each.key, revision, records.encode_change(each)) for each in batch.changes]
        edited = [_row(*each.key, revision, msgspec.json.encode(edit_log.edit_record(each))) for each in batch.edits]
        self.listings.update(listings)
        self.documents.update(documents)
        self.history.extend(history)
        self.edits.extend(edited)
        gone = (each for each in batch.changes if each.listing is None)
        self.departures.update((each.key.service, None if each.forgets_service else revision) for each in gone)


def _listing(revision: int, change: Change) -> RecordRow | None:
    return _row(*change.key, revision, records.encode_listing(change.listing)) if change.listing is not None else None


def _document(revision: int, edit: Edit) -> RecordRow | None:
    document = edit.document
    return _row(*edit.key, revision, records.encode_document(document)) if document is not None else None


def _row(first: str, second: str, revision: int, body: bytes) -> RecordRow:
    return (first, second, revision, body, checksum(first, second, revision, body))
