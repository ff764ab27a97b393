"""The rows that a transaction writes, and their checksums.

A checksum covers all other values of its row. SQLite has no checksums: it returns a flipped bit in a text as another
text.
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
"""Service, id, revision, record and checksum. Rows of documents have kind and name in place of service and id."""


def checksum(*values: object) -> int:
    """Returns the CRC-32 of a row's other values, given in the order of the table's columns."""
    parts = [value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass") for value in values]
    return zlib.crc32(b"\0".join(parts))


def has_valid_checksum(row: Sequence[object]) -> bool:
    """Returns whether the last value of a row is the checksum of those before it."""
    return row[-1] == checksum(*row[:-1])


@dataclass(frozen=True, slots=True)
class BatchWrite:
    """A batch to be written if the file is still at `base_revision`."""

    changes: Sequence[Change]
    base_revision: int
    edits: Sequence[Edit] = ()


@dataclass(frozen=True, slots=True)
class TransactionRows:
    """The rows that a transaction writes: the last row of each listing and document, and all rows of history.

    None stands for a deleted listing or document.
    """

    listings: dict[Key, RecordRow | None]
    documents: dict[DocumentKey, RecordRow | None]
    history: list[RecordRow]
    departures: dict[str, int | None]
    """Service → revision of the latest removal of an instance; None if the service was forgotten since."""
    edits: list[RecordRow]

    def add(self, revision: int, batch: BatchWrite) -> None:
        """Adds a batch. Raises what encoding it raises; then nothing of the batch is added."""
        listings = {change.key: _listing(revision, change) for change in batch.changes if not change.forgets_service}
        documents = {edit.key: _document(revision, edit) for edit in batch.edits}
        history = [_row(*change.key, revision, records.encode_change(change)) for change in batch.changes]
        edits = [
            _row(*key, revision, msgspec.json.encode(record)) for key, record in edit_log.edit_records(batch.edits)
        ]
        self.listings.update(listings)
        self.documents.update(documents)
        self.history.extend(history)
        self.edits.extend(edits)
        removals = (change for change in batch.changes if change.listing is None)
        self.departures.update(
            (change.key.service, None if change.forgets_service else revision) for change in removals
        )


def _listing(revision: int, change: Change) -> RecordRow | None:
    return _row(*change.key, revision, records.encode_listing(change.listing)) if change.listing is not None else None


def _document(revision: int, edit: Edit) -> RecordRow | None:
    document = edit.document
    return _row(*edit.key, revision, records.encode_document(document)) if document is not None else None


def _row(first: str, second: str, revision: int, body: bytes) -> RecordRow:
    return (first, second, revision, body, checksum(first, second, revision, body))
