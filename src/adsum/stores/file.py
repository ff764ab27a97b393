"""The SQLite file of a registry: its tables, its lock, its transactions. Blocking; used from one thread."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adsum.core.changes import HISTORY, Change, Recorded, Whole
from adsum.core.errors import AdsumError, StoreConflict, StoreRefused
from adsum.core.model import Key, Listing
from adsum.stores import records

APPLICATION: Final = 0x41445355
"""SQLite's `application_id` of our files ("ADSU"): another program's file is refused, never written."""
SCHEMA: Final = 1
"""SQLite's `user_version` of our files. A later one is refused: only a later Adsum can read it."""
TRIM: Final = 1_000
"""How many changes history grows beyond its bound before it is trimmed, so that no commit pays for all of it."""

_TABLES: Final = (
    """CREATE TABLE listings (
        service  TEXT NOT NULL,
        id       TEXT NOT NULL,
        revision INTEGER NOT NULL,
        body     BLOB NOT NULL,
        PRIMARY KEY (service, id)
    ) WITHOUT ROWID""",
    """CREATE TABLE history (
        number   INTEGER PRIMARY KEY AUTOINCREMENT,
        revision INTEGER NOT NULL,
        service  TEXT NOT NULL,
        id       TEXT NOT NULL,
        body     BLOB NOT NULL
    )""",
    "CREATE INDEX history_of ON history (service, id, number)",
    "CREATE TABLE meta (epoch TEXT NOT NULL, revision INTEGER NOT NULL)",
)

_PUT = "INSERT OR REPLACE INTO listings VALUES (?, ?, ?, ?)"
_DELETE = "DELETE FROM listings WHERE service = ? AND id = ?"
_TRIM = "DELETE FROM history WHERE number <= (SELECT max(number) FROM history) - ?"
_RECORD = "INSERT INTO history (revision, service, id, body) VALUES (?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Write:
    """A batch to be written if the file is still at `basis`."""

    changes: Sequence[Change]
    basis: int


class File:
    """One open file, locked against a second daemon."""

    def __init__(self, path: Path, *, new_epoch: bool = False) -> None:
        self.path = path
        self._new_epoch = new_epoch
        self._lock: int | None = None
        self._database: sqlite3.Connection | None = None
        self._epoch = ""
        self._revision = 0
        self._untrimmed = 0

    @property
    def _db(self) -> sqlite3.Connection:
        if self._database is None:
            raise sqlite3.ProgrammingError("the file is closed")
        return self._database

    def open(self) -> None:
        """Lock and open the file, made if it isn't there. Raises `StoreRefused`."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._take_lock()
            self._database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._know_schema()
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            if self._new_epoch:
                self._db.execute("UPDATE meta SET epoch = ?", (secrets.token_hex(16),))
            self._epoch, self._revision = self._db.execute("SELECT epoch, revision FROM meta").fetchone()
        except OSError as error:
            raise StoreRefused(f"can't use {self.path}: {error.strerror}") from error
        except sqlite3.DatabaseError as error:
            raise StoreRefused(
                f"can't use {self.path}: {error}; restore it from a backup, or move it away to start empty"
            ) from error

    def _take_lock(self) -> None:
        """The system lets go of the lock when its holder ends, however it ends."""
        self._lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise StoreRefused(
                f"{self.path} is in use by another registry (process {holder}): stop it, or name another file"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, b"%d\n" % os.getpid(), 0)

    def _know_schema(self) -> None:
        application = self._pragma("application_id")
        version = self._pragma("user_version")
        empty = not self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if empty and (application, version) == (0, 0):
            self._make_tables()
        elif application != APPLICATION:
            raise StoreRefused(f"{self.path} is another program's SQLite file: name another one")
        elif version > SCHEMA:
            raise StoreRefused(
                f"{self.path} was written by a later version of Adsum (schema {version}, known is {SCHEMA}): upgrade"
            )

    def _pragma(self, name: str) -> int:
        value: int = self._db.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    def _make_tables(self) -> None:
        with self._transaction():
            for table in _TABLES:
                self._db.execute(table)
            self._db.execute("INSERT INTO meta VALUES (?, 0)", (secrets.token_hex(16),))
            self._db.execute(f"PRAGMA application_id = {APPLICATION}")
            self._db.execute(f"PRAGMA user_version = {SCHEMA}")

    def whole(self) -> Whole:
        """Everything that is stored. Raises `StoreRefused` if a record can't be read."""
        listings = list(self._listings())
        return Whole(self._epoch, self._revision, listings)

    def _listings(self) -> Iterator[tuple[int, Listing]]:
        for service, id, revision, body in self._db.execute("SELECT service, id, revision, body FROM listings"):
            key = Key(service, id)
            try:
                yield revision, records.read_listing(key, body)
            except (ValueError, AdsumError) as error:
                raise StoreRefused(f"{self.path}: the record of {key} can't be read: {error}") from error

    def write(self, writes: Sequence[Write]) -> list[int | AdsumError]:
        """Write the batches in one transaction, each under a revision of its own; one with a stale basis is left out.

        Durable when this returns. Raises `sqlite3.Error` if nothing is written.
        """
        before = self._revision
        try:
            with self._transaction():
                results = [self._write_one(each) for each in writes]
                self._db.execute("UPDATE meta SET revision = ?", (self._revision,))
        except sqlite3.Error:
            self._revision = before
            with contextlib.suppress(sqlite3.Error):
                # The commit itself may have failed in doubt: what the file says is what counts.
                self._revision = self._db.execute("SELECT revision FROM meta").fetchone()[0]
            raise
        self._trim(sum(len(each.changes) for each in writes))
        return results

    def _write_one(self, write: Write) -> int | AdsumError:
        if write.basis != self._revision:
            return StoreConflict(f"decided on revision {write.basis}, but the store is at {self._revision}")
        self._revision += 1
        last = {change.key: change.listing for change in write.changes}
        puts = [(*key, self._revision, records.write_listing(listing)) for key, listing in last.items() if listing]
        self._db.executemany(_PUT, puts)
        self._db.executemany(_DELETE, [key for key, listing in last.items() if not listing])
        recorded = [(self._revision, *change.key, records.write_change(change)) for change in write.changes]
        self._db.executemany(_RECORD, recorded)
        return self._revision

    def _trim(self, added: int) -> None:
        """Forget the oldest of history, now and then. What can't be trimmed now is trimmed later."""
        self._untrimmed += added
        if self._untrimmed >= TRIM:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute(
                    "DELETE FROM history WHERE number <= (SELECT max(number) FROM history) - ?", (HISTORY,)
                )
                self._untrimmed = 0

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def history(self, service: str | None, id: str | None, limit: int) -> list[Recorded]:
        """The newest changes, newest first."""
        conditions = [(f"{name} = ?", value) for name, value in (("service", service), ("id", id)) if value is not None]
        where = " WHERE " + " AND ".join(text for text, _ in conditions) if conditions else ""
        rows = self._db.execute(
            f"SELECT revision, service, id, body FROM history{where} ORDER BY number DESC LIMIT ?",  # noqa: S608
            (*(value for _, value in conditions), limit),
        )
        return [records.read_change(revision, Key(service, id), body) for revision, service, id, body in rows]

    def close(self) -> None:
        """Close and unlock; idempotent."""
        database, self._database = self._database, None
        if database is not None:
            database.close()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)
