"""What precedes opening a file: its folder, and checks. Blocking."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from adsum.core.errors import StoreOpenFailed
from adsum.stores.sqlite.lock import DatabaseProgress
from adsum.stores.sqlite.rows import has_valid_checksum

FIRST_VERSION_WITH_JOURNAL: Final = 6
"""The first version of the schema with a journal and ids of copies."""

_NEWEST: Final = "SELECT revision, facts, body, checksum FROM journal ORDER BY revision DESC LIMIT 1"


def create_folder(folder: Path) -> None:
    """Creates a folder and its parents, if they do not exist, so that they survive a power cut. Raises `OSError`."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in missing:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes changes of the names in a folder durable. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def must_be_a_database(path: Path) -> None:
    """Raises `sqlite3.DatabaseError` for any other file, before a lock is created beside it.

    The path may be a link to a foreign folder.
    """
    with suppress(FileNotFoundError), path.open("rb") as file:
        head = file.read(16)
        if head not in (b"", b"SQLite format 3\0"):
            raise sqlite3.DatabaseError("file is not a database")


def must_own_its_log(path: Path, saved: DatabaseProgress) -> None:
    """Raises `StoreOpenFailed` if the write-ahead log belongs to another file.

    SQLite would apply such a log and so undo or destroy a restored copy.
    """
    try:
        # SQLite ignores the log of a file that is opened as immutable.
        with closing(sqlite3.connect(f"file:{quote(str(path))}?immutable=1", uri=True)) as main:
            epoch, is_expected = _is_expected(main, saved)
    except (sqlite3.Error, TypeError):
        return  # A crash while the log was being copied leaves such a file. Applying the log repairs it.
    if epoch != saved.epoch or not is_expected:
        log, index = (f"{path}{ending}" for ending in ("-wal", "-shm"))
        raise StoreOpenFailed(
            f"it was replaced, but {log} still exists and belongs to the replaced file. To use the new file as it "
            f"is, move {log} and {index} away; to restore a backup, use `adsum restore`"
        )


def _is_expected(main: sqlite3.Connection, saved: DatabaseProgress) -> tuple[str, bool]:
    """Returns the epoch of a main file, and whether it is the one that `saved` describes.

    After a crash while the log was being copied, some pages are newer than others, so only what is in one row counts.
    """
    if main.execute("PRAGMA user_version").fetchone()[0] < FIRST_VERSION_WITH_JOURNAL:
        epoch, revision = main.execute("SELECT epoch, revision FROM meta").fetchone()
        return epoch, saved.lowest <= revision <= saved.highest
    epoch, folded, copy = main.execute("SELECT epoch, revision, copy FROM meta").fetchone()
    newest = main.execute(_NEWEST).fetchone()
    if newest is not None and has_valid_checksum(newest):
        folded = max(folded, newest[0])
    return epoch, copy in saved.copies and folded <= saved.highest
