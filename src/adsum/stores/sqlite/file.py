"""The SQLite file of a registry. Blocking; used from one thread.

A commit appends a row to the journal. `maintain` folds the journal into the other tables, and copies the write-ahead
log, while no commit waits.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adsum.core.catalog.changes import Change, FullState, RecordedChange
from adsum.core.catalog.documents import DocumentKind, Edit, RecordedEdit
from adsum.core.errors import StoreConflict, StoreOpenFailed, StoreUnavailable
from adsum.stores.sqlite import contents, schema
from adsum.stores.sqlite.fold import JournalFolding
from adsum.stores.sqlite.history_table import HistoryTable
from adsum.stores.sqlite.journal import Journal, JournalRow, journal_row
from adsum.stores.sqlite.journal_entry import encode_entry
from adsum.stores.sqlite.lock import DatabaseProgress, FileLock
from adsum.stores.sqlite.opening import create_folder, must_be_a_database, must_own_its_log
from adsum.stores.sqlite.row_decoder import REMEDY
from adsum.stores.sqlite.rows import checksum, has_valid_checksum
from adsum.stores.sqlite.write_ahead_log import BUSY_TIMEOUT, MAX_WAL_BYTES, WriteAheadLog, log_size

MAX_REVISION: Final = 2**63 - 1
"""`DatabaseProgress.highest` while the revision of the main file is not known."""

_SLICE_LOG_BYTES: Final = 96 * 1024
_ROW_LOG_BYTES: Final = 8 * 1024
"""About what a slice of a fold, and a row of the journal beside its entry, add to the write-ahead log."""
_EPOCH: Final = re.compile(r"[0-9a-f]{32}")


_log = logging.getLogger("adsum.store")


@dataclass(frozen=True, slots=True)
class BatchWrite:
    """A batch to be written if the file is still at `base_revision`. `body`: its encoded entry, if it is encoded."""

    changes: Sequence[Change]
    base_revision: int
    edits: Sequence[Edit] = ()
    body: bytes | None = None

    def journal_row(self, revision: int) -> JournalRow:
        """Returns the row of the batch. Raises what encoding it raises."""
        body = self.body if self.body is not None else encode_entry(self.changes, self.edits)
        return journal_row(revision, len(self.changes) + len(self.edits), body)


class SqliteFile:
    """The file of one registry. It is locked against a second daemon while it is open."""

    def __init__(self, path: Path, *, new_epoch: bool = False) -> None:
        self.path = path
        self._new_epoch = new_epoch
        self._lock: FileLock | None = None
        self._database: sqlite3.Connection | None = None
        self._opened: os.stat_result | None = None
        self._must_reload = True
        """True until the file was read, and after a failed write that may have changed it: then it must be read."""
        self._last_facts = 0
        """The number of facts in the latest write."""

    @property
    def _db(self) -> sqlite3.Connection:
        if self._database is None:
            raise sqlite3.ProgrammingError("the file is closed")
        return self._database

    @property
    def revision(self) -> int:
        """The revision of the open file, as far as it is known; 0 while it is closed."""
        return self._journal.revision if self._database is not None else 0

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
            create_folder(self.path.parent)
            must_be_a_database(self.path)
            self._lock = lock = FileLock(self.path)
            lock.acquire()
            saved = lock.progress
            # Only the owner may read it: checks may hold secrets. SQLite gives its other files the same mode.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._opened = self.path.stat()
            if log_size(self.path) and saved is not None and saved.highest != MAX_REVISION:
                must_own_its_log(self.path, saved)
            elif saved is not None:
                # If this process crashes before it reads the file, the next start must accept the log it finds.
                lock.save(DatabaseProgress(saved.epoch, saved.revision, 0, MAX_REVISION), durable=True)
            self._database = db = sqlite3.connect(
                self.path, BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            self._journal = Journal(db)
            self._history = HistoryTable(db, self._journal)
            self._folding = JournalFolding(db, self._journal, self._history)
            self._prepare(db, lock, saved if self._opened.st_size else None)

    def _prepare(self, db: sqlite3.Connection, lock: FileLock, saved: DatabaseProgress | None) -> None:
        schema.migrate(db)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"it is damaged: {verdict}")
        self._load_revision()
        self._wal = WriteAheadLog(self.path, db, self._journal, lock)
        epoch = self._journal.epoch
        if saved is not None and saved.epoch and (epoch != saved.epoch or self.revision < saved.revision):
            _log.warning(
                "%s is at revision %d of epoch %s and was at %d of %s: it was restored from a copy. A new epoch begins",
                *(self.path, self.revision, epoch, saved.revision, saved.epoch),
            )
            self._begin_epoch(db)
        elif self._new_epoch:
            self._begin_epoch(db)
        self._wal.copy(empty=True)

    def _begin_epoch(self, db: sqlite3.Connection) -> None:
        epoch = secrets.token_hex(16)
        db.execute("UPDATE meta SET epoch = ?, checksum = ?", (epoch, checksum(epoch, self._journal.folded)))
        self._load_revision()

    def _load_revision(self) -> None:
        """Reads the epoch and the revision of the file, and checks its journal."""
        if self._db.in_transaction:
            # An earlier rollback failed. What its transaction wrote is not part of the file.
            self._db.execute("ROLLBACK")
        rows = self._db.execute("SELECT epoch, revision, checksum FROM meta").fetchall()
        if len(rows) != 1 or not has_valid_checksum(rows[0]) or not _EPOCH.fullmatch(str(rows[0][0])):
            raise sqlite3.DatabaseError("its epoch and revision are missing or damaged")
        self._journal.load(*rows[0][:2])
        self._folding.restart()
        self._must_reload = False

    def check_writable(self, *, write: bool) -> None:
        """Checks that the file is still at its path and, with `write`, that a transaction can be written.

        Raises `StoreUnavailable` and `sqlite3.Error`.
        """
        self.check_in_place()
        if write:
            with schema.transaction(self._db):
                for step in (1, -1):  # SQLite would not write a page whose content stays the same.
                    self._db.execute("UPDATE meta SET checksum = checksum + ?", (step,))

    def check_in_place(self) -> None:
        """Raises `StoreUnavailable` if the open file is no longer at its path, where the next start looks for it.

        It reads no disk and may be called from any thread.
        """
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
        with self._explained_errors():
            return contents.full_state(self._db, self._journal)

    def write(self, writes: Sequence[BatchWrite]) -> list[int | Exception]:
        """Writes the batches in order, each under a revision of its own, in one durable transaction.

        Returns for each batch its revision, or the error for which it was left out. Raises `sqlite3.Error` if the
        transaction fails. The batches may be in the file nevertheless, as after a failed sync: then `revision` shows it
        as soon as the file can be read. Raises `StoreUnavailable` if another program wrote to the file.

        Call `maintain` afterwards, when the results are on their way.
        """
        if self._must_reload:
            self._load_revision()
        while self._folding.is_overdue:
            self._fold_slice()
        rows, results, revision = list[JournalRow](), list[int | Exception](), self.revision
        for batch in writes:
            try:
                if batch.base_revision != revision:
                    raise StoreConflict(f"decided on revision {batch.base_revision}, but the store is at {revision}")
                rows.append(batch.journal_row(revision + 1))
            except Exception as error:
                # The other batches of the transaction are not affected.
                results.append(error)
            else:
                revision += 1
                results.append(revision)
        if rows:
            self._write(rows)
        return results

    def _write(self, rows: Sequence[JournalRow]) -> None:
        with self._reloading_after_errors():
            if not self._journal.append(rows):
                raise StoreUnavailable("another program wrote to it; the file is read anew")
        self._last_facts = sum(row[1] for row in rows)
        self._wal.written_bytes += sum(len(row[2]) + _ROW_LOG_BYTES for row in rows)

    @contextmanager
    def _reloading_after_errors(self) -> Iterator[None]:
        """Runs the block, which writes to the file. After an error the file is read again, now or before a write."""
        try:
            yield
        except BaseException as error:
            self._must_reload = True
            with suppress(sqlite3.Error):
                self._load_revision()
            if isinstance(error, StoreUnavailable):
                raise StoreUnavailable(f"{self.path}: {error}") from error
            raise

    def maintain(self, *, idle: bool) -> bool:
        """Does a part of what follows the commits: saves the progress, folds the journal, and copies the log.

        `idle`: no commit waits. Otherwise only what can't wait is done. Returns whether there is more to do when no
        commit waits. Failures are logged.
        """
        if self._database is None or self._must_reload:
            return False
        try:
            self._wal.save_revision()
            self._wal.copy_if_long(idle=idle)
            slices = int(self._folding.is_due) if idle else self._folding.slices_due(self._last_facts)
            self._last_facts = 0
            for _ in range(slices):
                self._fold_slice()
        except (OSError, sqlite3.Error, StoreUnavailable) as error:
            _log.warning("%s: its journal can't be folded now, and grows: %s", self.path, error)
        return self._folding.is_due or self._wal.written_bytes > MAX_WAL_BYTES

    def _fold_slice(self) -> None:
        with self._reloading_after_errors():
            self._folding.fold_slice()
        self._wal.written_bytes += _SLICE_LOG_BYTES

    def history(self, service: str | None, id: str | None, limit: int) -> list[RecordedChange]:
        """Returns the newest changes, newest first. Raises `StoreUnavailable` if a row can't be decoded."""
        return contents.history(self.path, self._journal, self._history, service, id, limit)

    def edits(self, kinds: Collection[DocumentKind], name: str | None, limit: int) -> list[RecordedEdit]:
        """Returns the newest edits, newest first. Raises `StoreUnavailable` if a row can't be decoded."""
        return contents.edits(self._db, self.path, self._journal, kinds, name, limit)

    def close(self) -> None:
        """Folds the journal, closes and unlocks the file; idempotent."""
        if self._database is not None and not self._must_reload:
            try:
                self._folding.fold_all()
                # SQLite copies the log when it is closed. A crash meanwhile must not be taken for a replaced file.
                self._wal.copy(empty=True)
            except (OSError, sqlite3.Error, StoreUnavailable) as error:
                _log.warning("%s: its journal stays for the next start: %s", self.path, error)
        database, self._database = self._database, None
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
