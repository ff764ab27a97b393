"""Moves batches from the journal into the other tables, in slices that are short enough for a commit to wait. Blocking.

Slices are written in the order of keys, so that rows beside each other are written together. Meanwhile the tables hold
a part of the batches. That is harmless: the journal keeps them until the last slice, readers prefer what it holds, and
folding the same batches again gives the same tables. So slices are not synced: what a power cut takes is in the
journal.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

from adsum.core.catalog.changes import MAX_REMOVAL_REVISIONS
from adsum.core.errors import StoreUnavailable
from adsum.stores.sqlite import edits_table, schema
from adsum.stores.sqlite.history_table import HistoryTable
from adsum.stores.sqlite.journal import Journal
from adsum.stores.sqlite.rows import RecordRow, TableRows, checksum

FOLD_FROM_FACTS: Final = 5_000
"""Facts in the journal from which on it is folded while no commit waits. Fewer stay there until the file is closed."""
FOLD_FROM_BYTES: Final = 1024 * 1024
"""Bytes of the journal from which on it is folded, likewise."""
MAX_UNFOLDED_FACTS: Final = 50_000
"""Facts in the journal. From half of it on, folding keeps up with the commits. Past it a commit folds before it
writes."""
MAX_UNFOLDED_BYTES: Final = 16 * 1024 * 1024
"""Bytes of the journal, likewise."""
MAX_FOLD_FACTS: Final = 10_000
"""Facts that are folded together. Further batches are folded the next time. A batch is folded as a whole."""
MAX_FOLD_BYTES: Final = 4 * 1024 * 1024
"""Bytes of the journal that are folded together, likewise."""
MAX_SLICE_ROWS: Final = 100
"""Rows of a slice, some 1 ms of work. The others wait for the next slice."""
SLICES_PER_FACTS: Final = 4
"""Slices that are folded for each `MAX_SLICE_ROWS` facts while folding has to keep up with the commits. A fact takes
about 3: it is read, and a row of it is written into two tables."""
MAX_SLICE_BYTES: Final = 256 * 1024
"""Bytes of the records in a slice, likewise. A single record may be larger."""

_PUT: Final = "INSERT OR REPLACE INTO listings VALUES (?, ?, ?, ?, ?)"
_DELETE: Final = "DELETE FROM listings WHERE service = ? AND id = ?"
_PUT_DOCUMENT: Final = "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?)"
_DELETE_DOCUMENT: Final = "DELETE FROM documents WHERE kind = ? AND name = ?"
_PUT_DEPARTURE: Final = "INSERT OR REPLACE INTO departures VALUES (?, ?, ?)"
_DELETE_DEPARTURE: Final = "DELETE FROM departures WHERE service = ?"
_TRIM_DEPARTURES: Final = """DELETE FROM departures WHERE service IN
    (SELECT service FROM departures ORDER BY revision DESC LIMIT -1 OFFSET ?)"""
_DISCARD: Final = ("DELETE FROM history WHERE revision > ?", "DELETE FROM edits WHERE revision > ?")
_MOVE: Final = "UPDATE meta SET revision = ?, checksum = ? WHERE epoch = ? AND revision = ?"


class JournalFolding:
    """Folds the journal of an open file, slice by slice."""

    def __init__(self, db: sqlite3.Connection, journal: Journal, history: HistoryTable) -> None:
        self._db = db
        self._journal = journal
        self._history = history
        self._steps: Iterator[None] | None = None
        """The fold that is under way."""
        self._may_be_partial = True
        """True if an interrupted fold may have left a part of the journal's batches in the tables."""
        self._not_below = 0
        """Facts in the journal below which a failed fold is not tried again while no commit needs it."""

    @property
    def is_due(self) -> bool:
        """True if the journal should be folded when nothing else is to do."""
        facts, size = self._journal.unfolded_facts, self._journal.unfolded_bytes
        due = self._steps is not None or facts >= FOLD_FROM_FACTS or size >= FOLD_FROM_BYTES
        return due and facts >= self._not_below

    def slices_due(self, written_facts: int) -> int:
        """Returns how many slices to fold after a commit of so many facts, although the next commit may have to wait.

        0 while the journal is less than half full.
        """
        facts, size = self._journal.unfolded_facts, self._journal.unfolded_bytes
        if not self.is_due or (facts <= MAX_UNFOLDED_FACTS // 2 and size <= MAX_UNFOLDED_BYTES // 2):
            return 0
        return SLICES_PER_FACTS * written_facts // MAX_SLICE_ROWS + 1

    @property
    def is_overdue(self) -> bool:
        """True if the next commit has to fold first."""
        return self._journal.unfolded_facts > MAX_UNFOLDED_FACTS or self._journal.unfolded_bytes > MAX_UNFOLDED_BYTES

    def restart(self) -> None:
        """Ends the fold that is under way. Called when the journal was loaded, or a transaction failed."""
        self._steps = None
        self._may_be_partial = True
        self._history.invalidate()

    def fold_slice(self) -> None:
        """Folds a slice. Raises `sqlite3.Error`, and `StoreUnavailable` if another program wrote to the file."""
        try:
            if self._steps is None:
                self._discard_partial_fold()
                self._steps = _fold(self._db, self._journal, self._history)
            if next(self._steps, self) is self:
                self._steps = None
                self._not_below = 0
        except BaseException:
            self.restart()
            self._not_below = self._journal.unfolded_facts + FOLD_FROM_FACTS
            raise

    def fold_all(self) -> None:
        """Folds the whole journal. Raises as `fold_slice` does."""
        while self._journal.folded < self._journal.revision:
            self.fold_slice()

    def _discard_partial_fold(self) -> None:
        """Deletes the history that an interrupted fold has left. The journal has it."""
        if self._may_be_partial:
            with schema.transaction(self._db):
                for statement in _DISCARD:
                    self._db.execute(statement, (self._journal.folded,))
            self._history.invalidate()
            self._may_be_partial = False


def _fold(db: sqlite3.Connection, journal: Journal, history: HistoryTable) -> Iterator[None]:
    """Folds the oldest batches of the journal. Each step of the iterator is one slice."""
    rows, size, revision = TableRows(), 0, journal.folded
    while revision < journal.revision and rows.facts < MAX_FOLD_FACTS and size < MAX_FOLD_BYTES:
        facts, sliced = rows.facts, 0
        while revision < journal.revision and rows.facts - facts < MAX_SLICE_ROWS and sliced < MAX_SLICE_BYTES:
            revision += 1
            entry, length = journal.entry(revision)
            rows.add(revision, entry)
            sliced += length
        size += sliced
        yield
    for statement, records in _record_statements(rows):
        for part in _slices(records):
            with schema.unsynced_transaction(db):
                db.executemany(statement, part)
            yield
    for statement, values in _short_statements(rows):
        for start in range(0, len(values), MAX_SLICE_ROWS):
            with schema.unsynced_transaction(db):
                db.executemany(statement, values[start : start + MAX_SLICE_ROWS])
            yield
    for history_rows in _slices(rows.history):
        with schema.unsynced_transaction(db):
            history.insert(history_rows)
        yield
    for edit_rows in _slices(rows.edits):
        with schema.unsynced_transaction(db):
            edits_table.insert(db, edit_rows)
        yield
    with schema.unsynced_transaction(db):
        if any(rows.departures.values()):
            db.execute(_TRIM_DEPARTURES, (MAX_REMOVAL_REVISIONS,))
        moved = (revision, checksum(journal.epoch, revision), journal.epoch, journal.folded)
        if db.execute(_MOVE, moved).rowcount != 1:
            raise StoreUnavailable("another program wrote to it; the file is read anew")
        journal.delete_through(revision)
    journal.note_folded(revision, rows.facts, size)


def _record_statements(rows: TableRows) -> Iterator[tuple[str, Sequence[RecordRow]]]:
    """Yields the statements that write listings and documents, each with its rows in order."""
    yield _PUT, sorted(row for row in rows.listings.values() if row is not None)
    yield _PUT_DOCUMENT, sorted(row for row in rows.documents.values() if row is not None)


def _short_statements(rows: TableRows) -> Iterator[tuple[str, Sequence[tuple[object, ...]]]]:
    """Yields the statements that delete listings and documents and write departures, each with its values in order."""
    departures = [(service, revision) for service, revision in rows.departures.items() if revision is not None]
    yield _DELETE, sorted(key for key, row in rows.listings.items() if row is None)
    yield _DELETE_DOCUMENT, sorted(key for key, row in rows.documents.items() if row is None)
    yield _PUT_DEPARTURE, sorted((*departure, checksum(*departure)) for departure in departures)
    yield _DELETE_DEPARTURE, sorted((service,) for service, revision in rows.departures.items() if revision is None)


def _slices(rows: Sequence[RecordRow]) -> Iterator[Sequence[RecordRow]]:
    """Yields the rows in slices, in order."""
    start = size = 0
    for end, (_, _, _, record, _) in enumerate(rows):
        if end - start >= MAX_SLICE_ROWS or size >= MAX_SLICE_BYTES:
            yield rows[start:end]
            start, size = end, 0
        size += len(record)
    if start < len(rows):
        yield rows[start:]
