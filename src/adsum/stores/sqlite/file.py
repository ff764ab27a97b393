"""The SQLite file of a registry: opened, read and written. Blocking; used from one thread."""

from __future__ import annotations

import logging
import os
import re
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from adsum.core.catalog.changes import MAX_REMOVAL_REVISIONS, FullState, RecordedChange
from adsum.core.catalog.documents import Document, DocumentKind, RecordedEdit
from adsum.core.errors import AdsumError, StoreConflict, StoreOpenFailed, StoreUnavailable
from adsum.core.model import Key, Listing
from adsum.stores import record_decoder
from adsum.stores.sqlite import edits_table, schema
from adsum.stores.sqlite.history_table import HistoryTable
from adsum.stores.sqlite.lock import DatabaseProgress, FileLock
from adsum.stores.sqlite.rows import BatchWrite, RecordRow, TransactionRows, checksum, has_valid_checksum

CHANGES_BETWEEN_DEPARTURE_TRIMS: Final = 1_000
"""After how many changes departures beyond their bound are forgotten, so that no commit pays for all of it."""
MAX_WAL_BYTES: Final = 4 * 1024 * 1024
"""Bytes of the write-ahead log past which a commit has it copied into the main file, and emptied."""
BUSY_TIMEOUT: Final = 5.0
"""Seconds that a write waits for another program that has the file locked; then it is refused."""
MAX_REVISION: Final = 2**63 - 1
"""The highest revision that a mark names while nobody knows where the main file stands."""

_PUT: Final = "INSERT OR REPLACE INTO listings VALUES (?, ?, ?, ?, ?)"
_DELETE: Final = "DELETE FROM listings WHERE service = ? AND id = ?"
_PUT_DOCUMENT: Final = "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?)"
_DELETE_DOCUMENT: Final = "DELETE FROM documents WHERE kind = ? AND name = ?"
_LEAVE: Final = "INSERT OR REPLACE INTO departures VALUES (?, ?, ?)"
_FORGET: Final = "DELETE FROM departures WHERE service = ?"
_FORGET_OLDEST: Final = """DELETE FROM departures WHERE service IN
    (SELECT service FROM departures ORDER BY revision DESC LIMIT -1 OFFSET ?)"""
_MOVE: Final = "UPDATE meta SET revision = ?, checksum = ? WHERE epoch = ? AND revision = ?"
_EPOCH: Final = re.compile(r"[0-9a-f]{32}")

_UNREADABLE: Final = (ValueError, TypeError)
"""What reading a record raises that is not as it was written; damage can even make it null."""
_DAMAGED: Final = "it is damaged: its checksum is wrong"
_REMEDY: Final = "restore it from a backup (`adsum restore`), or move it away to start empty"

_log = logging.getLogger("adsum.store")


class SqliteFile:
    """One file, locked against a second daemon while it is open."""

    def __init__(self, path: Path, *, new_epoch: bool = False) -> None:
        self.path = path
        self._new_epoch = new_epoch
        self._lock: FileLock | None = None
        self._database: sqlite3.Connection | None = None
        self._opened: os.stat_result | None = None
        self._epoch = ""
        self._history: HistoryTable | None = None
        self._unforgotten = CHANGES_BETWEEN_DEPARTURE_TRIMS
        """How many changes were written since services were forgotten; at first it is not known."""
        self._doubtful = False
        self._long = MAX_WAL_BYTES
        """Bytes of the log past which it is copied next."""
        self.revision = 0
        """Where the file stands, as far as is known."""

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
        """Lock and open the file, made if it isn't there. Raises `StoreOpenFailed`; then `close` it."""
        try:
            self._open()
        except OSError as error:
            raise StoreOpenFailed(f"can't use {self.path}: {error.filename}: {error.strerror}") from error
        except sqlite3.OperationalError as error:
            raise StoreOpenFailed(f"can't use {self.path}: {error}") from error

    def _open(self) -> None:
        with self._refusals():
            # Two names of one file have one lock.
            self.path = self.path.resolve()
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._must_be_ours()
            self._lock = lock = FileLock(self.path)
            lock.acquire()
            known = lock.progress
            # For its owner only: checks may send secrets. SQLite gives its other files the same mode.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._opened = self.path.stat()
            if self._log_size() and known is not None and known.highest != MAX_REVISION:
                self._must_own_its_log(known)
            elif known is not None:
                # A crash before the file was read leaves a log that belongs to it, whatever it holds.
                lock.save(DatabaseProgress(known.epoch, known.revision, 0, MAX_REVISION), durable=True)
            self._database = sqlite3.connect(self.path, BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
            self._history = HistoryTable(self._database)
            self._prepare(self._database, known if self._opened.st_size else None)

    def _must_be_ours(self) -> None:
        """Leave no lock beside a file that is no database: a link can lead anywhere. Raises `StoreOpenFailed`."""
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            head = file.read(16)
            if head not in (b"", b"SQLite format 3\0"):
                raise sqlite3.DatabaseError("file is not a database")

    def _must_own_its_log(self, known: DatabaseProgress) -> None:
        """Refuse a log that another file left: it would undo a restored copy, or destroy it. Raises `StoreOpenFailed`."""
        try:
            # SQLite ignores the log of a file that is called immutable.
            with closing(sqlite3.connect(f"file:{quote(str(self.path))}?immutable=1", uri=True)) as main:
                epoch, revision = main.execute("SELECT epoch, revision FROM meta").fetchone()
        except (sqlite3.Error, TypeError):
            return  # A crash while the log was copied leaves such a file. The log mends it.
        if epoch != known.epoch or not known.lowest <= revision <= known.highest:
            log, index = (f"{self.path}{ending}" for ending in ("-wal", "-shm"))
            raise StoreOpenFailed(
                f"it was replaced, but {log} is still there and belongs to the file before. To use the file as it is, "
                f"move {log} and {index} away; to restore a backup, use `adsum restore`"
            )

    def _prepare(self, db: sqlite3.Connection, known: DatabaseProgress | None) -> None:
        schema.migrate(db)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(f"it is damaged: {found}")
        self._look()
        if known is not None and known.epoch and (self._epoch != known.epoch or self.revision < known.revision):
            _log.warning(
                "%s is at revision %d of epoch %s and was at %d of %s: it was restored from a copy. A new epoch begins",
                *(self.path, self.revision, self._epoch, known.revision, known.epoch),
            )
            self._begin_epoch(db)
        elif self._new_epoch:
            self._begin_epoch(db)
        self._copy_log()

    def _begin_epoch(self, db: sqlite3.Connection) -> None:
        self._epoch = secrets.token_hex(16)
        db.execute("UPDATE meta SET epoch = ?, checksum = ?", (self._epoch, checksum(self._epoch, self.revision)))

    def _look(self) -> None:
        """See where the file stands."""
        if self._db.in_transaction:
            # Its rollback failed too; what it wrote is no part of the file.
            self._db.execute("ROLLBACK")
        stands = self._db.execute("SELECT epoch, revision, checksum FROM meta").fetchall()
        if len(stands) != 1 or not has_valid_checksum(stands[0]) or not _EPOCH.fullmatch(str(stands[0][0])):
            raise sqlite3.DatabaseError("its epoch and revision are gone or damaged")
        self._epoch, self.revision, _ = stands[0]
        self._doubtful = False

    def _log_size(self) -> int:
        """Bytes of the write-ahead log."""
        with suppress(FileNotFoundError):
            return os.stat(f"{self.path}-wal").st_size  # noqa: PTH116 - on the way of every commit
        return 0

    def _copy_log(self) -> None:
        """Have the log copied into the main file and emptied, as far as readers of the file let us."""
        lowest = self._lock.progress.lowest if self._lock is not None and self._lock.progress is not None else 0
        self._note(lowest, self.revision, durable=True)
        self._db.execute("PRAGMA busy_timeout = 0")
        try:
            busy = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except sqlite3.Error as error:
            # What was committed is in the log, which grows until this works.
            _log.warning("%s: its log can't be copied into it: %s", self.path, error)
            busy = True
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000:.0f}")
        self._long = self._log_size() + MAX_WAL_BYTES
        if not busy:
            self._note(self.revision, self.revision)

    def _note(self, lowest: int, highest: int, *, durable: bool = False) -> None:
        if self._lock is not None:
            self._lock.save(DatabaseProgress(self._epoch, self.revision, lowest, highest), durable=durable)

    def check_writable(self, *, write: bool) -> None:
        """Look whether the file can be written: under its name and, with `write`, by writing what it holds already.

        Raises `StoreUnavailable` and `sqlite3.Error`.
        """
        self._must_be_in_place()
        if write:
            with schema.transaction(self._db):
                for step in (1, -1):  # SQLite writes no page that is set to what it holds.
                    self._db.execute("UPDATE meta SET checksum = checksum + ?", (step,))

    def _must_be_in_place(self) -> None:
        """Refuse to write to a file that no longer is where the next start looks for it. Raises `StoreUnavailable`."""
        try:
            same = self._opened is not None and os.path.samestat(self._opened, self.path.stat())
            what = (
                "" if same else "it was replaced while the registry used it; restart the registry to use what is there"
            )
        except FileNotFoundError:
            what = (
                "it was removed while the registry used it; what it held is served until the registry ends: put it back"
            )
        if not what and not (self._lock is not None and self._lock.in_place):
            what = f"{self.path}.lock was removed, and so a second registry could use the file; restart the registry"
        if what:
            raise StoreUnavailable(f"{self.path}: {what}")

    def full_state(self) -> FullState:
        """Everything that is stored. Raises `StoreOpenFailed` if it can't be understood, and `sqlite3.Error`."""
        reader = record_decoder.RecordDecoder()
        with self._refusals(), closing(self._rows("listings")) as rows:
            listings = [self._listing(reader, row) for row in rows]
        with self._refusals(), closing(self._rows("documents")) as rows:
            documents = [self._document(row) for row in rows]
        with self._refusals(), closing(self._rows("departures")) as rows:
            left = dict(self._departure(row) for row in rows)
        return FullState(self._epoch, self.revision, listings, documents, left)

    def _rows(self, table: str) -> sqlite3.Cursor:
        return self._db.execute(f"SELECT {', '.join(schema.CHECKSUM_COLUMNS[table])}, checksum FROM {table}")  # noqa: S608 - ours

    def _listing(self, reader: record_decoder.RecordDecoder, row: RecordRow) -> tuple[int, Listing]:
        service, id, revision, body, _ = row
        try:
            if not has_valid_checksum(row):
                raise ValueError(_DAMAGED)
            return revision, reader.decode_listing(service, id, body)
        except (*_UNREADABLE, AdsumError) as error:
            raise StoreOpenFailed(f"its record of {service}/{id} can't be read: {error}; {_REMEDY}") from error

    def _document(self, row: RecordRow) -> tuple[int, Document]:
        kind, name, revision, body, _ = row
        try:
            if not has_valid_checksum(row):
                raise ValueError(_DAMAGED)
            return revision, record_decoder.decode_document(kind, name, body)
        except (*_UNREADABLE, AdsumError) as error:
            raise StoreOpenFailed(f"its record of {kind} {name} can't be read: {error}; {_REMEDY}") from error

    def _departure(self, row: tuple[str, int, int]) -> tuple[str, int]:
        if not has_valid_checksum(row):
            raise StoreOpenFailed(f"its record of the service {row[0]} can't be read: {_DAMAGED}; {_REMEDY}")
        return row[0], row[1]

    def write(self, writes: Sequence[BatchWrite]) -> list[int | Exception]:
        """Write the batches in order, each under a revision of its own, in one transaction.

        For each its revision, or why it was left out. They are durable when this returns. Raises `sqlite3.Error` if
        none is written; should some be nevertheless, as after a failed sync, `revision` says so sooner or later. Raises
        `StoreUnavailable` if the file was removed or replaced, or another program wrote to it.
        """
        self._must_be_in_place()
        if self._doubtful:
            self._look()
        rows, results, revision = TransactionRows({}, {}, [], {}, []), list[int | Exception](), self.revision
        for each in writes:
            try:
                if each.base_revision != revision:
                    raise StoreConflict(f"decided on revision {each.base_revision}, but the store is at {revision}")
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

    def _write(self, rows: TransactionRows, revision: int) -> None:
        unforgotten = self._unforgotten + len(rows.history)
        try:
            with schema.transaction(self._db):
                self._put(rows)
                moved = (revision, checksum(self._epoch, revision), self._epoch, self.revision)
                if self._db.execute(_MOVE, moved).rowcount != 1:
                    raise StoreUnavailable(f"{self.path}: another program wrote to it; what it holds now is read anew")
                if unforgotten >= CHANGES_BETWEEN_DEPARTURE_TRIMS:
                    self._db.execute(_FORGET_OLDEST, (MAX_REMOVAL_REVISIONS,))
                    unforgotten = 0
        except BaseException:
            self._doubtful = True
            self._changes.invalidate()
            with suppress(sqlite3.Error):
                self._look()
            raise
        self.revision, self._unforgotten = revision, unforgotten
        if self._log_size() > self._long:
            self._copy_log()
        elif self._lock is not None and self._lock.progress is not None:
            self._note(self._lock.progress.lowest, self._lock.progress.highest)

    def _put(self, rows: TransactionRows) -> None:
        self._db.executemany(_PUT, [row for row in rows.listings.values() if row is not None])
        self._db.executemany(_DELETE, [key for key, row in rows.listings.items() if row is None])
        self._db.executemany(_PUT_DOCUMENT, [row for row in rows.documents.values() if row is not None])
        self._db.executemany(_DELETE_DOCUMENT, [title for title, row in rows.documents.items() if row is None])
        self._changes.insert(rows.history)
        edits_table.insert(self._db, rows.edits)
        left = [(service, at) for service, at in rows.departures.items() if at is not None]
        self._db.executemany(_LEAVE, [(*each, checksum(*each)) for each in left])
        self._db.executemany(_FORGET, [(service,) for service, at in rows.departures.items() if at is None])

    def history(self, service: str | None, id: str | None, limit: int) -> list[RecordedChange]:
        """The newest changes, newest first. Raises `StoreUnavailable` if one can't be understood."""
        return [self._recorded(*row) for row in self._changes.newest(service, id, limit)]

    def _recorded(self, *row: Any) -> RecordedChange:
        service, id, revision, body, _ = row
        try:
            if not has_valid_checksum(row):
                raise ValueError(_DAMAGED)
            return record_decoder.decode_change(revision, Key(service, id), body)
        except _UNREADABLE as error:
            # Nothing but the past is told from it: the registry goes on.
            raise StoreUnavailable(
                f"{self.path}: its history of {service}/{id} at revision {revision} can't be read: {error}"
            ) from error

    def edits(self, kind: DocumentKind | None, name: str | None, limit: int) -> list[RecordedEdit]:
        """The newest edits, newest first. Raises `StoreUnavailable` if one can't be understood."""
        return edits_table.newest(self._db, self.path, kind, name, limit)

    def close(self) -> None:
        """Close and unlock; idempotent."""
        database, self._database = self._database, None
        self._history = None
        if database is not None:
            database.close()
        if self._lock is not None:
            self._lock.release()

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Say of a file that is not as we left it what is wrong, in a sentence for the operator."""
        try:
            yield
        except StoreOpenFailed as refused:
            raise StoreOpenFailed(f"can't use {self.path}: {refused}") from refused
        except (sqlite3.OperationalError, sqlite3.ProgrammingError):
            raise  # Nothing is wrong with the file: it can't be reached.
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            # Python's module decodes the names that SQLite quotes from a damaged file.
            raise StoreOpenFailed(f"can't use {self.path}: {error}; {_REMEDY}") from error
