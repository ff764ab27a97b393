"""The rows of the tables that batches are folded into, and the checksums of rows.

A checksum covers all other values of its row. SQLite has no checksums: it returns a flipped bit in a text as another
text.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from adsum.stores.sqlite.journal_entry import JournalEntry, bytes_or_none

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
            listing = bytes_or_none(change.listing)
            if listing is not None:
                self.listings[service, id] = _row(service, id, revision, listing)
            elif id:
                self.listings[service, id] = None
                self.departures[service] = revision
            else:
                self.departures[service] = None
            self.history.append(_row(service, id, revision, bytes(change.record)))
        for edit in entry.edits:
            document, record = bytes_or_none(edit.document), bytes_or_none(edit.record)
            key = (edit.kind, edit.name)
            self.documents[key] = None if document is None else _row(*key, revision, document)
            if record is not None:
                self.edits.append(_row(*key, revision, record))
        self.facts += len(entry.changes) + len(entry.edits)


def _row(first: str, second: str, revision: int, body: bytes) -> RecordRow:
    # The same value as that of `checksum`, in half of the time.
    head = f"{first}\0{second}\0{revision}\0".encode(errors="surrogatepass")
    return (first, second, revision, body, zlib.crc32(body, zlib.crc32(head)))
