"""The write-ahead log of an open file, and the progress in the lock file that tells whose log it is. Blocking."""

from __future__ import annotations

import logging
import secrets
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

from adsum.stores.sqlite import schema
from adsum.stores.sqlite.journal import Journal
from adsum.stores.sqlite.lock import DatabaseProgress, FileLock

MAX_WAL_BYTES: Final = 4 * 1024 * 1024
"""Bytes of the write-ahead log, about. Past it the log is copied into the main file while no commit waits."""
MAX_WAL_BYTES_UNDER_LOAD: Final = 16 * 1024 * 1024
"""Bytes of the write-ahead log, about. Past it the log is copied even if the next commit has to wait."""
BUSY_TIMEOUT: Final = 5.0
"""Seconds that a write waits while another program locks the file. Then the write fails."""
MAX_COPY_ID: Final = 2**62
"""The ids of copies are lower."""

_logger = logging.getLogger("adsum.store")


def log_size(path: Path) -> int:
    """Returns the size of the write-ahead log of a file in bytes."""
    with suppress(FileNotFoundError):
        return Path(f"{path}-wal").stat().st_size
    return 0


class WriteAheadLog:
    """Copies the log into the main file, and saves the progress of both in the lock file.

    The log does not shrink while it is in use: overwriting it costs less than appending to it.
    """

    def __init__(self, path: Path, db: sqlite3.Connection, journal: Journal, lock: FileLock) -> None:
        self._path = path
        self._db = db
        self._journal = journal
        self._lock = lock
        self._copies: tuple[int, ...] = db.execute("SELECT copy FROM meta").fetchone()
        self._highest = 0
        """What `DatabaseProgress` has of the main file."""
        self.written_bytes = 0
        """About how much was written to the log since it was last copied."""

    def copy_if_long(self, *, idle: bool) -> None:
        """Copies the log if it is past its bound. `idle`: no commit waits."""
        if self.written_bytes > (MAX_WAL_BYTES if idle else MAX_WAL_BYTES_UNDER_LOAD):
            # A log that a reader has kept for long has grown: then it is emptied.
            self.copy(empty=log_size(self._path) > 2 * MAX_WAL_BYTES_UNDER_LOAD)

    def copy(self, *, empty: bool) -> None:
        """Copies the log into the main file, unless a reader of the file prevents that. `empty`: also empties it.

        An error of SQLite is logged: all commits are in the log, which grows until a copy succeeds. Raises `OSError` if
        the progress can't be saved.
        """
        self.written_bytes = 0
        # While a copy is held up, the file may have its id or that of the copy before.
        before, *pending = self._copies
        copy = pending[0] if pending else secrets.randbelow(MAX_COPY_ID)
        self._copies, self._highest = (before, copy), self._journal.revision
        self._save(durable=True)
        self._db.execute("PRAGMA busy_timeout = 0")
        try:
            # On a full disk the copy itself may succeed, and make room.
            with suppress(sqlite3.Error), schema.unsynced_transaction(self._db):
                self._db.execute("UPDATE meta SET copy = ?", (copy,))
            copies: tuple[int] = self._db.execute("SELECT copy FROM meta").fetchone()
            mode = "TRUNCATE" if empty else "PASSIVE"
            busy, length, copied = self._db.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error as error:
            _logger.warning("%s: its write-ahead log can't be copied into it: %s", self._path, error)
            return
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000:.0f}")
        if not busy and copied == length:
            self._copies = copies
            self._save()

    def save_revision(self) -> None:
        """Saves the revision of the file in the lock file, if it has changed. Raises `OSError`."""
        if self._lock.progress is None or self._lock.progress.revision != self._journal.revision:
            self._save()

    def _save(self, *, durable: bool = False) -> None:
        journal = self._journal
        progress = DatabaseProgress(journal.epoch, journal.revision, 0, self._highest, self._copies)
        self._lock.save(progress, durable=durable)
