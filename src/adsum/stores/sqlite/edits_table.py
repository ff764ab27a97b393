"""The table of recorded edits of documents. Blocking."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from adsum.core.catalog import documents
from adsum.stores.sqlite.rows import RecordRow

_RECORD: Final = "INSERT INTO edits (kind, name, revision, body, checksum) VALUES (?, ?, ?, ?, ?)"
_TRIM_ONE: Final = """DELETE FROM edits WHERE kind = ?1 AND name = ?2 AND number <=
    (SELECT number FROM edits WHERE kind = ?1 AND name = ?2 ORDER BY number DESC LIMIT 1 OFFSET ?3)"""
_TRIM: Final = """DELETE FROM edits WHERE number <=
    (SELECT number FROM edits ORDER BY number DESC LIMIT 1 OFFSET ?)"""
_NEWEST: Final = "SELECT kind, name, revision, body, checksum FROM edits ORDER BY number DESC"


def insert(db: sqlite3.Connection, rows: Sequence[RecordRow]) -> None:
    """Inserts edits within a transaction. Past a bound the oldest are deleted."""
    db.executemany(_RECORD, rows)
    db.executemany(_TRIM_ONE, [(*key, documents.MAX_EDITS_PER_DOCUMENT) for key in {row[:2] for row in rows}])
    db.execute(_TRIM, (documents.MAX_EDITS,))


def newest_first(db: sqlite3.Connection) -> sqlite3.Cursor:
    """Returns a cursor over all rows, newest first."""
    return db.execute(_NEWEST)
