"""The SQLite file of a registry. Blocking; used from one thread."""

from __future__ import annotations

import logging
import os
import re
import secrets
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from adsum.core.catalog.changes import MAX_REMOVAL_REVISIONS, FullState, RecordedChange
from adsum.core.catalog.documents import DocumentKind, RecordedEdit
from adsum.core.errors import StoreConflict, StoreOpenFailed, StoreUnavailable
from adsum.stores.record_decoder import RecordDecoder
from adsum.stores.sqlite import edits_table, schema
from adsum.stores.sqlite.history_table import HistoryTable
from adsum.stores.sqlite.lock import DatabaseProgress, FileLock
from adsum.stores.sqlite.row_decoder import (
    REMEDY,
    decode_departure_row,
    decode_document_row,
    decode_history_row,
    decode_listing_row,
)
from adsum.stores.sqlite.rows import BatchWrite, TransactionRows, checksum, has_valid_checksum

CHANGES_BETWEEN_DEPARTURE_TRIMS: Final = 1_000
"""Changes between two trims of the departures past their bound, so that most commits delete none."""
MAX_WAL_BYTES: Final = 4 * 1024 * 1024
"""Bytes of the write-ahead log. Past it a commit copies the log into the main file and empties it."""
BUSY_TIMEOUT: Final = 5.0
"""Seconds that a write waits while another program locks the file. Then the write fails."""
MAX_REVISION: Final = 2**63 - 1
"""`DatabaseProgress.highest` while the revision of the main file is not known."""

_PUT: Final = "INSERT OR REPLACE INTO listings VALUES (?, ?, ?, ?, ?)"
_DELETE: Final = "DELETE FROM listings WHERE service = ? AND id = ?"
_PUT_DOCUMENT: Final = "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?)"
_DELETE_DOCUMENT: Final = "DELETE FROM documents WHERE kind = ? AND name = ?"
_PUT_DEPARTURE: Final = "INSERT OR REPLACE INTO departures VALUES (?, ?, ?)"
_DELETE_DEPARTURE: Final = "DELETE FROM departures WHERE service = ?"
_TRIM_DEPARTURES: Final = """DELETE FROM departures WHERE service IN
    (SELECT service FROM departures ORDER BY revision DESC LIMIT -1 OFFSET ?)"""
_MOVE: Final = "UPDATE meta SET revision = ?, checksum = ? WHERE epoch = ? AND revision = ?"
_EPOCH: Final = re.compile(r"[0-9a-f]{32}")


_log = logging.getLogger("adsum.store")


class SqliteFile:
    """The file of one registry. It is locked against a second daemon while it is open."""

    def __init__(self, path: Path, *, new_epoch: bool = False) -> None:
        self.path = path
        self._new_epoch = new_epoch
        self._lock: FileLock | None = None
        self._database: sqlite3.Connection | None = None
        self._opened: os.stat_result | None = None
        self._epoch = ""
        self._history: HistoryTable | None = None
        self._changes_since_trim = CHANGES_BETWEEN_DEPARTURE_TRIMS
        """Changes written since departures were trimmed; at first the bound, as earlier changes are not known."""
        self._must_reload = False
        """True after a failed write that may have changed the file, so that its revision must be read again."""
        self._wal_copy_size = MAX_WAL_BYTES
        """Bytes of the write-ahead log past which a commit copies it."""
        self.revision = 0
        """The revision of the file, as far as it is known."""

    @property
    def _db(self) -> sqlite3.Connection:
        if self._database is None:
            raise sqlite3.ProgrammingError("the file is closed")
        return self._database

    @property
    def _changes(self) -> HistoryTable:
        if self._history is None:
            raise sqlite3.ProgrammingError("the file is closed")
        return self._history

    def open(self) -> None:
        """Locks and opens the file; creates it if it does not exist. Raises `StoreOpenFailed`; call `close` then."""
        try:
            self._open()
        except OSError as error:
            raise StoreOpenFailed(f"can't use {self.path}: {error.filename}: {error.strerror}") from error
        except sqlite3.OperationalError as error:
            raise StoreOpenFailed(f"can't use {self.path}: {error}") from error

    def _open(self) -> None:
        with self._explained_errors():
            # Resolved, so that two names of one file have one lock.
            self.path = self.path.resolve()
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._must_be_a_database()
            self._lock = lock = FileLock(self.path)
            lock.acquire()
            saved = lock.progress
            # Only the owner may read it: checks may hold secrets. SQLite gives its other files the same mode.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._opened = self.path.stat()
            if self._log_size() and saved is not None and saved.highest != MAX_REVISION:
                self._must_own_its_log(saved)
            elif saved is not None:
                # If this process crashes before it reads the file, the next start must accept the log it finds.
                lock.save(DatabaseProgress(saved.epoch, saved.revision, 0, MAX_REVISION), durable=True)
            self._database = sqlite3.connect(self.path, BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
            self._history = HistoryTable(self._database)
            self._prepare(self._database, saved if self._opened.st_size else None)

    def _must_be_a_database(self) -> None:
        """Raises `sqlite3.DatabaseError` for any other file, before a lock is created beside it.

        The path may be a link to a foreign folder.
        """
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            head = file.read(16)
            if head not in (b"", b"SQLite format 3\0"):
                raise sqlite3.DatabaseError("file is not a database")

    def _must_own_its_log(self, saved: DatabaseProgress) -> None:
        """Raises `StoreOpenFailed` if the write-ahead log belongs to another file.

        SQLite would apply such a log and so undo or destroy a restored copy.
        """
        try:
            # SQLite ignores the log of a file that is opened as immutable.
            with closing(sqlite3.connect(f"file:{quote(str(self.path))}?immutable=1", uri=True)) as main:
                epoch, revision = main.execute("SELECT epoch, revision FROM meta").fetchone()
        except (sqlite3.Error, TypeError):
            return  # A crash while the log was being copied leaves such a file. Applying the log repairs it.
        if epoch != saved.epoch or not saved.lowest <= revision <= saved.highest:
            log, index = (f"{self.path}{ending}" for ending in ("-wal", "-shm"))
            raise StoreOpenFailed(
                f"it was replaced, but {log} still exists and belongs to the replaced file. To use the new file as it "
                f"is, move {log} and {index} away; to restore a backup, use `adsum restore`"
            )

    def _prepare(self, db: sqlite3.Connection, saved: DatabaseProgress | None) -> None:
        schema.migrate(db)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"it is damaged: {verdict}")
        self._load_revision()
        if saved is not None and saved.epoch and (self._epoch != saved.epoch or self.revision < saved.revision):
            _log.warning(
                "%s is at revision %d of epoch %s and was at %d of %s: it was restored from a copy. A new epoch begins",
                *(self.path, self.revision, self._epoch, saved.revision, saved.epoch),
            )
            self._begin_epoch(db)
        elif self._new_epoch:
            self._begin_epoch(db)
        self._copy_log()

    def _begin_epoch(self, db: sqlite3.Connection) -> None:
        self._epoch = secrets.token_hex(16)
        db.execute("UPDATE meta SET epoch = ?, checksum = ?", (self._epoch, checksum(self._epoch, self.revision)))

    def _load_revision(self) -> None:
        """Reads the epoch and the revision of the file."""
        if self._db.in_transaction:
            # An earlier rollback failed. What its transaction wrote is not part of the file.
            self._db.execute("ROLLBACK")
        rows = self._db.execute("SELECT epoch, revision, checksum FROM meta").fetchall()
        if len(rows) != 1 or not has_valid_checksum(rows[0]) or not _EPOCH.fullmatch(str(rows[0][0])):
            raise sqlite3.DatabaseError("its epoch and revision are missing or damaged")
        self._epoch, self.revision, _ = rows[0]
        self._must_reload = False

    def _log_size(self) -> int:
        """Returns the size of the write-ahead log in bytes."""
        with suppress(FileNotFoundError):
            return os.stat(f"{self.path}-wal").st_size  # noqa: PTH116 - every commit calls this
        return 0

    def _copy_log(self) -> None:
        """Copies the log into the main file and empties it, unless a reader of the file prevents that."""
        lowest = self._lock.progress.lowest if self._lock is not None and self._lock.progress is not None else 0
        self._save_progress(lowest, self.revision, durable=True)
        self._db.execute("PRAGMA busy_timeout = 0")
        try:
            busy = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except sqlite3.Error as error:
            # Nothing is lost: all commits are in the log, which grows until a copy succeeds.
            _log.warning("%s: its write-ahead log can't be copied into it: %s", self.path, error)
            busy = True
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000:.0f}")
        self._wal_copy_size = self._log_size() + MAX_WAL_BYTES
        if not busy:
            self._save_progress(self.revision, self.revision)

    def _save_progress(self, lowest: int, highest: int, *, durable: bool = False) -> None:
        if self._lock is not None:
            self._lock.save(DatabaseProgress(self._epoch, self.revision, lowest, highest), durable=durable)

    def check_writable(self, *, write: bool) -> None:
        """Checks that the file is still at its path and, with `write`, that a transaction can be written.

        Raises `StoreUnavailable` and `sqlite3.Error`.
        """
        self._must_be_in_place()
        if write:
            with schema.transaction(self._db):
                for step in (1, -1):  # SQLite would not write a page whose content stays the same.
                    self._db.execute("UPDATE meta SET checksum = checksum + ?", (step,))

    def _must_be_in_place(self) -> None:
        """Raises `StoreUnavailable` if the open file is no longer at its path, where the next start looks for it."""
        try:
            same = self._opened is not None and os.path.samestat(self._opened, self.path.stat())
            problem = (
                "" if same else "it was replaced while the registry used it; restart the registry to use the new file"
            )
        except FileNotFoundError:
            problem = (
                "it was removed while the registry used it; its contents are served until the registry ends: "
                "put the file back"
            )
        if not problem and not (self._lock is not None and self._lock.in_place):
            problem = f"{self.path}.lock was removed, so a second registry could use the file; restart the registry"
        if problem:
            raise StoreUnavailable(f"{self.path}: {problem}")

    def full_state(self) -> FullState:
        """Returns everything that is stored. Raises `StoreOpenFailed` if a row is damaged, and `sqlite3.Error`."""
        decoder = RecordDecoder()
        with self._explained_errors(), closing(self._rows("listings")) as rows:
            listings = [decode_listing_row(decoder, row) for row in rows]
        with self._explained_errors(), closing(self._rows("documents")) as rows:
            documents = [decode_document_row(row) for row in rows]
        with self._explained_errors(), closing(self._rows("departures")) as rows:
            removal_revisions = dict(decode_departure_row(row) for row in rows)
        return FullState(self._epoch, self.revision, listings, documents, removal_revisions)

    def _rows(self, table: str) -> sqlite3.Cursor:
        return self._db.execute(f"SELECT {', '.join(schema.CHECKSUM_COLUMNS[table])}, checksum FROM {table}")  # noqa: S608 - constants

    def write(self, writes: Sequence[BatchWrite]) -> list[int | Exception]:
        """Writes the batches in order, each under a revision of its own, in one durable transaction.

        Returns for each batch its revision, or the error for which it was left out. Raises `sqlite3.Error` if the
        transaction fails. The batches may be in the file nevertheless, as after a failed sync: then `revision` shows it
        as soon as the file can be read. Raises `StoreUnavailable` if the file was removed or replaced, or if another
        program wrote to it.
        """
        self._must_be_in_place()
        if self._must_reload:
            self._load_revision()
        rows, results, revision = TransactionRows({}, {}, [], {}, []), list[int | Exception](), self.revision
        for batch in writes:
            try:
                if batch.base_revision != revision:
                    raise StoreConflict(f"decided on revision {batch.base_revision}, but the store is at {revision}")
                rows.add(revision + 1, batch)
            except Exception as error:
                # The other batches of the transaction are not affected.
                results.append(error)
            else:
                revision += 1
                results.append(revision)
        if revision > self.revision:
            self._write(rows, revision)
        return results

    def _write(self, rows: TransactionRows, revision: int) -> None:
        changes_since_trim = self._changes_since_trim + len(rows.history)
        try:
            with schema.transaction(self._db):
                self._put(rows)
                moved = (revision, checksum(self._epoch, revision), self._epoch, self.revision)
                if self._db.execute(_MOVE, moved).rowcount != 1:
                    raise StoreUnavailable(f"{self.path}: another program wrote to it; the file is read anew")
                if changes_since_trim >= CHANGES_BETWEEN_DEPARTURE_TRIMS:
                    self._db.execute(_TRIM_DEPARTURES, (MAX_REMOVAL_REVISIONS,))
                    changes_since_trim = 0
        except BaseException:
            self._must_reload = True
            self._changes.invalidate()
            with suppress(sqlite3.Error):
                self._load_revision()
            raise
        self.revision, self._changes_since_trim = revision, changes_since_trim
        if self._log_size() > self._wal_copy_size:
            self._copy_log()
        elif self._lock is not None and self._lock.progress is not None:
            self._save_progress(self._lock.progress.lowest, self._lock.progress.highest)

    def _put(self, rows: TransactionRows) -> None:
        self._db.executemany(_PUT, [row for row in rows.listings.values() if row is not None])
        self._db.executemany(_DELETE, [key for key, row in rows.listings.items() if row is None])
        self._db.executemany(_PUT_DOCUMENT, [row for row in rows.documents.values() if row is not None])
        self._db.executemany(_DELETE_DOCUMENT, [key for key, row in rows.documents.items() if row is None])
        self._changes.insert(rows.history)
        edits_table.insert(self._db, rows.edits)
        departures = [(service, revision) for service, revision in rows.departures.items() if revision is not None]
        self._db.executemany(_PUT_DEPARTURE, [(*departure, checksum(*departure)) for departure in departures])
        forgotten = [(service,) for service, revision in rows.departures.items() if revision is None]
        self._db.executemany(_DELETE_DEPARTURE, forgotten)

    def history(self, service: str | None, id: str | None, limit: int) -> list[RecordedChange]:
        """Returns the newest changes, newest first. Raises `StoreUnavailable` if a row can't be decoded."""
        return [decode_history_row(self.path, row) for row in self._changes.newest(service, id, limit)]

    def edits(self, kinds: Collection[DocumentKind], name: str | None, limit: int) -> list[RecordedEdit]:
        """Returns the newest edits, newest first. Raises `StoreUnavailable` if a row can't be decoded."""
        return edits_table.newest(self._db, self.path, kinds, name, limit)

    def close(self) -> None:
        """Closes and unlocks the file; idempotent."""
        database, self._database = self._database, None
        self._history = None
        if database is not None:
            database.close()
        if self._lock is not None:
            self._lock.release()

    @contextmanager
    def _explained_errors(self) -> Iterator[None]:
        """Turns the errors of a damaged or foreign file into `StoreOpenFailed` with the path and the remedy."""
        try:
            yield
        except StoreOpenFailed as refused:
            raise StoreOpenFailed(f"can't use {self.path}: {refused}") from refused
        except (sqlite3.OperationalError, sqlite3.ProgrammingError):
            raise  # The file can't be reached, but nothing is wrong with its content.
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            # `UnicodeDecodeError`: the sqlite3 module decodes SQLite's messages, which quote names of a damaged file.
            raise StoreOpenFailed(f"can't use {self.path}: {error}; {REMEDY}") from error
