"""The journal: one row a batch, durable when the commit returns. Blocking.

The rows after the revision in `meta` are not yet folded into the other tables. `fold` moves them there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

from adsum.stores.sqlite import schema
from adsum.stores.sqlite.journal_entry import JournalEntry, decode_entry
from adsum.stores.sqlite.rows import RecordRow, checksum, has_valid_checksum

JournalRow = tuple[int, int, bytes, int]
"""Revision, number of facts, entry and checksum."""

_APPEND: Final = "INSERT INTO journal SELECT ?, ?, ?, ? FROM meta WHERE epoch = ? AND revision = ?"
_ROWS: Final = "SELECT revision, facts, body, checksum FROM journal WHERE revision > ? ORDER BY revision"
_NEXT: Final = "SELECT revision, facts, body, checksum FROM journal WHERE revision = ?"
_DELETE: Final = "DELETE FROM journal WHERE revision <= ?"


def journal_row(revision: int, facts: int, body: bytes) -> JournalRow:
    """Returns the row of a batch."""
    return (revision, facts, body, checksum(revision, facts, body))


class Journal:
    """The journal of an open file."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.epoch = ""
        self.folded = 0
        """The revision that the other tables are at."""
        self.revision = 0
        """The revision of the file: that of the newest row, or `folded` without rows."""
        self.unfolded_facts = 0
        self.unfolded_bytes = 0
        """The facts, and the bytes of entries, that are not yet folded."""

    def load(self, epoch: str, folded: int) -> None:
        """Reads the rows after `folded`. Raises `sqlite3.DatabaseError` if one is damaged or missing."""
        revision, facts, size = folded, 0, 0
        for row in self._db.execute(_ROWS, (folded,)):
            revision += 1
            if row[0] != revision or not has_valid_checksum(row) or type(row[2]) is not bytes:
                raise sqlite3.DatabaseError(f"the journal's row of revision {revision} is missing or damaged")
            facts += row[1]
            size += len(row[2])
        self.epoch, self.folded, self.revision = epoch, folded, revision
        self.unfolded_facts, self.unfolded_bytes = facts, size

    def append(self, rows: Sequence[JournalRow]) -> bool:
        """Writes the next rows in one durable transaction.

        Returns False, and writes nothing, if another program has written to the file since it was loaded.
        """
        values = [(*row, self.epoch, self.folded) for row in rows]
        try:
            # `executemany`, also for one row: it gives up the interpreter's lock less often than `execute`.
            if len(values) == 1:
                written = self._db.executemany(_APPEND, values).rowcount
            else:
                with schema.transaction(self._db):
                    written = self._db.executemany(_APPEND, values).rowcount
        except sqlite3.IntegrityError:
            return False  # There is a row of that revision.
        if not written:
            return False
        self.revision = rows[-1][0]
        self.unfolded_facts += sum(row[1] for row in rows)
        self.unfolded_bytes += sum(len(row[2]) for row in rows)
        return True

    def entry(self, revision: int) -> tuple[JournalEntry, int]:
        """Returns the entry of a revision and its size in bytes. Raises `sqlite3.DatabaseError` if it is damaged."""
        row = self._db.execute(_NEXT, (revision,)).fetchone()
        try:
            if row is None or not has_valid_checksum(row):
                raise ValueError("it is missing, or its checksum is wrong")
            entry = decode_entry(row[2])
            if entry.facts != row[1]:
                raise ValueError(f"it has {entry.facts} facts, not {row[1]}")
        except (ValueError, TypeError, ArithmeticError) as error:
            raise sqlite3.DatabaseError(f"the journal's row of revision {revision} can't be read: {error}") from error
        return entry, len(row[2])

    def oldest_first(self) -> Iterator[tuple[int, JournalEntry]]:
        """Yields the entries that are not folded, with their revisions. Raises as `entry` does."""
        return ((revision, self.entry(revision)[0]) for revision in range(self.folded + 1, self.revision + 1))

    def newest_first(self) -> Iterator[tuple[int, JournalEntry]]:
        """Yields the same entries in the opposite order."""
        return ((revision, self.entry(revision)[0]) for revision in range(self.revision, self.folded, -1))

    def holds(self, row: RecordRow) -> bool:
        """Returns whether an intact row of history is of a batch that is not folded, so that the journal has it too."""
        return type(row[2]) is int and self.folded < row[2] <= self.revision and has_valid_checksum(row)

    def delete_through(self, revision: int) -> None:
        """Deletes the rows up to a revision, within the transaction that sets the revision in `meta`."""
        self._db.execute(_DELETE, (revision,))

    def note_folded(self, revision: int, facts: int, size: int) -> None:
        """Notes that these facts and bytes were folded. Called when that transaction has succeeded."""
        self.folded = revision
        self.unfolded_facts -= facts
        self.unfolded_bytes -= size
