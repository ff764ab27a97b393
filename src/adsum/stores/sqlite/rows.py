"""The rows of the tables that batches are folded into, and the checksums of rows.

A checksum covers all other values of its row. SQLite has no checksums: it returns a flipped bit in a text as another
text.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from adsum.stores.sqlite.journal_entry import NULL, JournalEntry

RecordRow = tuple[str, str, int, bytes, int]
"""Service, id, revision, record and checksum. Rows of documents have kind and name in place of service and id."""
RowKey = tuple[str, str]
"""Service and id, or kind and name."""


def checksum(*values: object) -> int:
    """Returns the CRC-32 of a row's other values, given in the order of the table's columns."""
    parts = [value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass") for value in values]
    return zlib.crc32(b"\0".join(parts))


def has_valid_checksum(row: Sequence[object]) -> bool:
    """Returns whether the last value of a row is the checksum of those before it."""
    return row[-1] == checksum(*row[:-1])


@dataclass(slots=True)
class TableRows:
    """What batches are in the tables: the last row of each listing and document, and all rows of history.

    None stands for a deleted listing or document.
    """

    listings: dict[RowKey, RecordRow | None] = field(default_factory=dict)
    documents: dict[RowKey, RecordRow | None] = field(default_factory=dict)
    history: list[RecordRow] = field(default_factory=list)
    edits: list[RecordRow] = field(default_factory=list)
    departures: dict[str, int | None] = field(default_factory=dict)
    """Service → revision of the latest removal of an instance; None if the service was forgotten since."""
    facts: int = 0
    """The number of changes and edits."""

    def add(self, revision: int, entry: JournalEntry) -> None:
        """Adds the batch of that revision, the next one."""
        for change in entry.changes:
            service, id = change.service, change.id
            crc, listing, record = _checksum_of_key(service, id, revision), bytes(change.listing), bytes(change.record)
            self.history.append((service, id, revision, record, zlib.crc32(record, crc)))
            if listing != NULL:
                self.listings[service, id] = (service, id, revision, listing, zlib.crc32(listing, crc))
            elif id:
                self.listings[service, id] = None
                self.departures[service] = revision
            else:
                self.departures[service] = None
        for edit in entry.edits:
            kind, name = edit.kind, edit.name
            crc, document, record = _checksum_of_key(kind, name, revision), bytes(edit.document), bytes(edit.record)
            stored = (kind, name, revision, document, zlib.crc32(document, crc)) if document != NULL else None
            self.documents[kind, name] = stored
            if record != NULL:
                self.edits.append((kind, name, revision, record, zlib.crc32(record, crc)))
        self.facts += entry.facts


def _checksum_of_key(first: str, second: str, revision: int) -> int:
    """Returns the checksum of the values before a record. `crc32(record, …)` continues it to that of the row."""
    return zlib.crc32(f"{first}\0{second}\0{revision}\0".encode())
