"""The schema of the SQLite file, and the migrations from each version to the next."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

from adsum.core.errors import StoreOpenFailed
from adsum.stores.sqlite.rows import checksum

APPLICATION_ID: Final = 0x41445355
"""SQLite's `application_id` of Adsum's files ("ADSU"). A file of another program is refused and never written."""

CHECKSUM_COLUMNS: Final[Mapping[str, Sequence[str]]] = MappingProxyType(
    {
        "listings": ("service", "id", "revision", "body"),
        "history": ("service", "id", "revision", "body"),
        "documents": ("kind", "name", "revision", "body"),
        "edits": ("kind", "name", "revision", "body"),
        "departures": ("service", "revision"),
        "meta": ("epoch", "revision"),
        "journal": ("revision", "facts", "body"),
    }
)
"""Table → the columns that the checksum of a row covers, in their order."""

MIGRATIONS: Final[Sequence[Sequence[str]]] = (
    (
        # No WITHOUT ROWID: with bodies of some 400 bytes it doubles the cost of writes.
        """CREATE TABLE listings (
            service  TEXT NOT NULL,
            id       TEXT NOT NULL,
            revision INTEGER NOT NULL,
            body     BLOB NOT NULL,
            PRIMARY KEY (service, id)
        )""",
        # No index: a scan of the few thousand rows costs less than an index on every commit.
        """CREATE TABLE history (
            number   INTEGER PRIMARY KEY,
            revision INTEGER NOT NULL,
            service  TEXT NOT NULL,
            id       TEXT NOT NULL,
            body     BLOB NOT NULL
        )""",
        "CREATE TABLE meta (epoch TEXT NOT NULL, revision INTEGER NOT NULL)",
        "INSERT INTO meta VALUES (lower(hex(randomblob(16))), 0)",
        f"PRAGMA application_id = {APPLICATION_ID}",
    ),
    (
        """CREATE TABLE documents (
            kind     TEXT NOT NULL,
            name     TEXT NOT NULL,
            revision INTEGER NOT NULL,
            body     BLOB NOT NULL,
            PRIMARY KEY (kind, name)
        )""",
    ),
    (
        # Services that instances were removed from. They stay known without an instance.
        """CREATE TABLE departures (
            service  TEXT PRIMARY KEY,
            revision INTEGER NOT NULL
        )""",
        "INSERT INTO departures SELECT service, max(revision) FROM history GROUP BY service",
    ),
    (
        # The checksum of every row. SQLite calls `rows.checksum`.
        "ALTER TABLE listings ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE history ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE documents ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE departures ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE meta ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0",
        "UPDATE listings SET checksum = checksum(service, id, revision, body)",
        "UPDATE history SET checksum = checksum(service, id, revision, body)",
        "UPDATE documents SET checksum = checksum(kind, name, revision, body)",
        "UPDATE departures SET checksum = checksum(service, revision)",
        "UPDATE meta SET checksum = checksum(epoch, revision)",
    ),
    (
        # The history of documents. It has an index because each document has a bound of its own.
        """CREATE TABLE edits (
            number   INTEGER PRIMARY KEY,
            kind     TEXT NOT NULL,
            name     TEXT NOT NULL,
            revision INTEGER NOT NULL,
            body     BLOB NOT NULL,
            checksum INTEGER NOT NULL
        )""",
        "CREATE INDEX edits_of_one ON edits (kind, name, number)",
    ),
    (
        # One row a batch. Those after the revision in `meta` are newer than the other tables.
        """CREATE TABLE journal (
            revision INTEGER PRIMARY KEY,
            facts    INTEGER NOT NULL,
            body     BLOB NOT NULL,
            checksum INTEGER NOT NULL
        )""",
        # The id of the last copy of the write-ahead log into the file: see `lock.DatabaseProgress`.
        "ALTER TABLE meta ADD COLUMN copy INTEGER NOT NULL DEFAULT 0",
    ),
)
"""The statements that turn a file of version n, the index, into one of version n + 1. Version 0 is an empty file.

Existing migrations are never edited."""


def migrate(db: sqlite3.Connection) -> None:
    """Migrates the file to the newest version, in one transaction for each version.

    Raises `StoreOpenFailed` for a file of a later version or of another program, and does not change such a file.
    """
    db.create_function("checksum", -1, checksum, deterministic=True)
    application, version = _pragma(db, "application_id"), _pragma(db, "user_version")
    empty = db.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    if application != APPLICATION_ID and not (empty and application == version == 0):
        raise StoreOpenFailed("it is another program's SQLite file: name another file")
    if version > len(MIGRATIONS):
        raise StoreOpenFailed(
            f"a later version of Adsum wrote it (its schema is {version}, the latest known here {len(MIGRATIONS)}): "
            "run that version, or `adsum restore` the backup from before the upgrade"
        )
    for number, statements in enumerate(MIGRATIONS[version:], version + 1):
        with transaction(db):
            for statement in statements:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number}")


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Runs the block in one transaction, which is rolled back if the block raises. Durable if the connection syncs."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # SQLite rolls back by itself after some errors, such as a full disk.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextmanager
def unsynced_transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Runs the block in one transaction that is not synced. A later commit, or a copy of the log, syncs it too."""
    db.execute("PRAGMA synchronous = NORMAL")
    try:
        with transaction(db):
            yield
    finally:
        db.execute("PRAGMA synchronous = FULL")


def _pragma(db: sqlite3.Connection, name: str) -> int:
    value: int = db.execute(f"PRAGMA {name}").fetchone()[0]
    return value
