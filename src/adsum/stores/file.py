"""The SQLite file of a registry: opened, read and written. Blocking; used from one thread."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adsum.core.changes import HISTORY, MAX_LEFT, Change, Recorded, Whole
from adsum.core.documents import Document, Edit, Title
from adsum.core.errors import AdsumError, StoreConflict, StoreRefused, StoreUnavailable
from adsum.core.model import Key, Listing
from adsum.stores import reading, records, schema
from adsum.stores.lock import Lock

TRIM: Final = 1_000
"""How many changes history grows beyond its bound before it is trimmed, so that no commit pays for all of it."""

_PUT: Final = "INSERT OR REPLACE INTO listings VALUES (?, ?, ?, ?)"
_DELETE: Final = "DELETE FROM listings WHERE service = ? AND id = ?"
_PUT_DOCUMENT: Final = "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?)"
_DELETE_DOCUMENT: Final = "DELETE FROM documents WHERE kind = ? AND name = ?"
_RECORD: Final = "INSERT INTO history (service, id, revision, body) VALUES (?, ?, ?, ?)"
_LEAVE: Final = "INSERT OR REPLACE INTO departures VALUES (?, ?)"
_FORGET: Final = """DELETE FROM departures WHERE service IN
    (SELECT service FROM departures ORDER BY revision DESC LIMIT -1 OFFSET ?)"""
_TRIM: Final = "DELETE FROM history WHERE number <= (SELECT max(number) FROM history) - ?"
_HISTORY: Final = """SELECT revision, service, id, body FROM history
    WHERE (?1 IS NULL OR service = ?1) AND (?2 IS NULL OR id = ?2) ORDER BY number DESC LIMIT ?3"""

_UNREADABLE: Final = (ValueError, TypeError)
"""What reading a record raises that is not as it was written; damage can even make it null."""

_Row = tuple[str, str, int, bytes]


@dataclass(frozen=True, slots=True)
class Write:
    """A batch to be written if the file is still at `basis`."""

    changes: Sequence[Change]
    basis: int
    edits: Sequence[Edit] = ()


@dataclass(frozen=True, slots=True)
class _Rows:
    """What a transaction writes: the last row of all that it touches (None: it is gone), and all of its history."""

    listings: dict[Key, _Row | None]
    documents: dict[Title, _Row | None]
    history: list[_Row]
    left: dict[str, int]

    def add(self, revision: int, write: Write) -> None:
        """All of it or, if something can't be encoded, nothing."""
        listings = {each.key: self._listing(revision, each) for each in write.changes}
        documents = {each.title: self._document(revision, each) for each in write.edits}
        history = [(*each.key, revision, records.write_change(each)) for each in write.changes]
        self.listings.update(listings)
        self.documents.update(documents)
        self.history.extend(history)
        self.left.update((each.key.service, revision) for each in write.changes if each.listing is None)

    @staticmethod
    def _listing(revision: int, change: Change) -> _Row | None:
        return (*change.key, revision, records.write_listing(change.listing)) if change.listing is not None else None

    @staticmethod
    def _document(revision: int, edit: Edit) -> _Row | None:
        document = edit.document
        return (*edit.title, revision, records.write_document(document)) if document is not None else None


class File:
    """One file, locked against a second daemon while it is open."""

    def __init__(self, path: Path, *, new_epoch: bool = False) -> None:
        self.path = path
        self._new_epoch = new_epoch
        self._lock: Lock | None = None
        self._database: sqlite3.Connection | None = None
        self._epoch = ""
        self._untrimmed = TRIM
        """At first it is not known how much the last process left."""
        self._doubtful = False
        self.revision = 0
        """Where the file stands, as far as is known."""

    @property
    def _db(self) -> sqlite3.Connection:
        if self._database is None:
            raise sqlite3.ProgrammingError("the file is closed")
        return self._database

    def open(self) -> None:
        """Lock and open the file, made if it isn't there. Raises `StoreRefused`; then `close` it."""
        try:
            self._open()
        except OSError as error:
            raise StoreRefused(f"can't use {self.path}: {error.filename}: {error.strerror}") from error
        except sqlite3.OperationalError as error:
            raise StoreRefused(f"can't use {self.path}: {error}") from error

    def _open(self) -> None:
        with self._refusals():
            # Two names of one file have one lock.
            self.path = self.path.resolve()
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = Lock(self.path)
            self._lock.take()
            # For its owner only: checks may send secrets. SQLite gives its other files the same mode.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._prepare(self._database)

    def _prepare(self, db: sqlite3.Connection) -> None:
        schema.migrate(db)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        if self._new_epoch:
            db.execute("UPDATE meta SET epoch = lower(hex(randomblob(16)))")
        self._look()

    def _look(self) -> None:
        """See where the file stands."""
        if self._db.in_transaction:
            # Its rollback failed too; what it wrote is no part of the file.
            self._db.execute("ROLLBACK")
        stands = self._db.execute("SELECT epoch, revision FROM meta").fetchone()
        if stands is None:
            raise sqlite3.DatabaseError("its epoch and revision are gone")
        self._epoch, self.revision = stands
        self._doubtful = False

    def whole(self) -> Whole:
        """Everything that is stored. Raises `StoreRefused` if it can't be understood, and `sqlite3.Error`."""
        reader = reading.Reader()
        with self._refusals(), closing(self._db.execute("SELECT service, id, revision, body FROM listings")) as rows:
            listings = [self._listing(reader, row) for row in rows]
        with self._refusals(), closing(self._db.execute("SELECT kind, name, revision, body FROM documents")) as rows:
            documents = [self._document(row) for row in rows]
        with self._refusals(), closing(self._db.execute("SELECT service, revision FROM departures")) as rows:
            left = dict(rows.fetchall())
        return Whole(self._epoch, self.revision, listings, documents, left)

    def _listing(self, reader: reading.Reader, row: _Row) -> tuple[int, Listing]:
        service, id, revision, body = row
        try:
            return revision, reader.listing(service, id, body)
        except (*_UNREADABLE, AdsumError) as error:
            raise StoreRefused(f"its record of {service}/{id} can't be read: {error}") from error

    def _document(self, row: _Row) -> tuple[int, Document]:
        kind, name, revision, body = row
        try:
            return revision, reading.document(kind, name, body)
        except (*_UNREADABLE, AdsumError) as error:
            raise StoreRefused(f"its record of {kind} {name} can't be read: {error}") from error

    def write(self, writes: Sequence[Write]) -> list[int | Exception]:
        """Write the batches in order, each under a revision of its own, in one transaction.

        For each its revision, or why it was left out. They are durable when this returns. Raises `sqlite3.Error` if
        none is written; should some be nevertheless, as after a failed sync, `revision` says so sooner or later.
        """
        if self._doubtful:
            self._look()
        rows, results, revision = _Rows({}, {}, [], {}), list[int | Exception](), self.revision
        for each in writes:
            try:
                if each.basis != revision:
                    raise StoreConflict(f"decided on revision {each.basis}, but the store is at {revision}")
                rows.add(revision + 1, each)
            except Exception as error:
                # Its own fault, not that of those it happens to be written with.
                results.append(error)
            else:
                revision += 1
                results.append(revision)
        if revision > self.revision:
            self._write(rows, revision)
        return results

    def _write(self, rows: _Rows, revision: int) -> None:
        untrimmed = self._untrimmed + len(rows.history)
        try:
            with schema.transaction(self._db):
                self._put(rows)
                self._db.execute("UPDATE meta SET revision = ?", (revision,))
                if untrimmed >= TRIM:
                    self._db.execute(_TRIM, (HISTORY,))
                    self._db.execute(_FORGET, (MAX_LEFT,))
                    untrimmed = 0
        except sqlite3.Error:
            self._doubtful = True
            with suppress(sqlite3.Error):
                self._look()
            raise
        self.revision, self._untrimmed = revision, untrimmed

    def _put(self, rows: _Rows) -> None:
        self._db.executemany(_PUT, [row for row in rows.listings.values() if row is not None])
        self._db.executemany(_DELETE, [key for key, row in rows.listings.items() if row is None])
        self._db.executemany(_PUT_DOCUMENT, [row for row in rows.documents.values() if row is not None])
        self._db.executemany(_DELETE_DOCUMENT, [title for title, row in rows.documents.items() if row is None])
        self._db.executemany(_RECORD, rows.history)
        self._db.executemany(_LEAVE, rows.left.items())

    def history(self, service: str | None, id: str | None, limit: int) -> list[Recorded]:
        """The newest changes, newest first. Raises `StoreUnavailable` if one can't be understood."""
        with closing(self._db.execute(_HISTORY, (service, id, max(0, limit)))) as rows:
            return [self._recorded(*row) for row in rows]

    def _recorded(self, revision: int, service: str, id: str, body: bytes) -> Recorded:
        try:
            return reading.change(revision, Key(service, id), body)
        except _UNREADABLE as error:
            # Nothing but the past is told from it: the registry goes on.
            raise StoreUnavailable(
                f"{self.path}: its history of {service}/{id} at revision {revision} can't be read: {error}"
            ) from error

    def close(self) -> None:
        """Close and unlock; idempotent."""
        database, self._database = self._database, None
        if database is not None:
            database.close()
        if self._lock is not None:
            self._lock.release()

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Say of a file that is not as we left it what is wrong, in a sentence for the operator."""
        try:
            yield
        except StoreRefused as refused:
            raise StoreRefused(f"can't use {self.path}: {refused}") from refused
        except (sqlite3.OperationalError, sqlite3.ProgrammingError):
            raise  # Nothing is wrong with the file: it can't be reached.
        except sqlite3.DatabaseError as error:
            raise StoreRefused(
                f"can't use {self.path}: {error}; restore it from a backup, or move it away to start empty"
            ) from error
