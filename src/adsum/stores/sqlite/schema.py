"""The tables of the SQLite file, and how a file comes to have them: each version is the one before, migrated."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

from adsum.core.errors import StoreOpenFailed
from adsum.stores.sqlite.rows import checksum

APPLICATION_ID: Final = 0x41445355
"""SQLite's `application_id` of our files ("ADSU"): another program's file is refused, never written."""

CHECKSUM_COLUMNS: Final[Mapping[str, Sequence[str]]] = MappingProxyType(
    {
        "listings": ("service", "id", "revision", "body"),
        "history": ("service", "id", "revision", "body"),
        "documents": ("kind", "name", "revision", "body"),
        "edits": ("kind", "name", "revision", "body"),
        "departures": ("service", "revision"),
        "meta": ("epoch", "revision"),
    }
)
"""Table → the columns that its rows' checksums cover, in their order."""

MIGRATIONS: Final[Sequence[Sequence[str]]] = (
    (
        # No WITHOUT ROWID: bodies of some 400 bytes make its tree twice as dear to write.
        """CREATE TABLE listings (
            service  TEXT NOT NULL,
            id       TEXT NOT NULL,
            revision INTEGER NOT NULL,
            body     BLOB NOT NULL,
            PRIMARY KEY (service, id)
        )""",
        # No index: the few thousand rows are looked through quicker than every commit could keep one.
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
        # Services that instances left: they stay known, though all may have left.
        """CREATE TABLE departures (
            service  TEXT PRIMARY KEY,
            revision INTEGER NOT NULL
        )""",
        "INSERT INTO departures SELECT service, max(revision) FROM history GROUP BY service",
    ),
    (
        # The checksum of every row: see `rows`. SQLite calls that module's function.
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
        # The history of documents. An index, for each document has a bound of its own.
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
)
"""What turns a file of version n into one of version n + 1; version 0 is empty. Never edited, only added to."""


def migrate(db: sqlite3.Connection) -> None:
    """Bring the file to the newest version, in one transaction a version.

    Raises `StoreOpenFailed` for a file of a later version or of another program, which are left as they are.
    """
    db.create_function("checksum", -1, checksum, deterministic=True)
    application, version = _pragma(db, "application_id"), _pragma(db, "user_version")
    empty = db.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    if application != APPLICATION_ID and not (empty and application == version == 0):
        raise StoreOpenFailed("it is another program's SQLite file: name another one")
    if version > len(MIGRATIONS):
        raise StoreOpenFailed(
            f"a later version of Adsum wrote it (its schema is {version}, the latest known here {len(MIGRATIONS)}): "
            "run that one, or `adsum restore` the backup from before the upgrade"
        )
    for number, statements in enumerate(MIGRATIONS[version:], version + 1):
        with transaction(db):
            for statement in statements:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number}")


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing; durable at the end, if the connection syncs."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # SQLite may have rolled it back itself, as when the disk is full.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _pragma(db: sqlite3.Connection, name: str) -> int:
    value: int = db.execute(f"PRAGMA {name}").fetchone()[0]
    return value
