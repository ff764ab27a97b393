"""The table of recorded edits of documents. Blocking."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec

from adsum.core.catalog import documents
from adsum.core.catalog.documents import DocumentKey, DocumentKind, RecordedEdit
from adsum.core.errors import StoreUnavailable
from adsum.stores.edit_log import EditRecord, recorded_edit
from adsum.stores.sqlite.rows import RecordRow, has_valid_checksum

_RECORD: Final = "INSERT INTO edits (kind, name, revision, body, checksum) VALUES (?, ?, ?, ?, ?)"
_TRIM_ONE: Final = """DELETE FROM edits WHERE kind = ?1 AND name = ?2 AND number <=
    (SELECT number FROM edits WHERE kind = ?1 AND name = ?2 ORDER BY number DESC LIMIT 1 OFFSET ?3)"""
_TRIM: Final = """DELETE FROM edits WHERE number <=
    (SELECT number FROM edits ORDER BY number DESC LIMIT 1 OFFSET ?)"""
_NEWEST: Final = """SELECT kind, name, revision, body, checksum FROM edits
    WHERE kind IN (SELECT value FROM json_each(?1)) AND (?2 IS NULL OR name = ?2) ORDER BY number DESC LIMIT ?3"""


def insert(db: sqlite3.Connection, rows: Sequence[RecordRow]) -> None:
    """Inserts edits within a transaction. Past a bound the oldest are deleted."""
    if not rows:
        return
    db.executemany(_RECORD, rows)
    db.executemany(_TRIM_ONE, [(*key, documents.MAX_EDITS_PER_DOCUMENT) for key in {row[:2] for row in rows}])
    db.execute(_TRIM, (documents.MAX_EDITS,))


def newest(
    db: sqlite3.Connection, path: Path, kinds: Collection[DocumentKind], name: str | None, limit: int
) -> list[RecordedEdit]:
    """Returns the newest edits, newest first. Raises `StoreUnavailable` if a row can't be decoded."""
    with closing(db.execute(_NEWEST, (msgspec.json.encode([*kinds]).decode(), name, max(0, limit)))) as rows:
        return [_recorded(path, row) for row in rows]


def _recorded(path: Path, row: Any) -> RecordedEdit:
    kind, name, revision, body, _ = row
    try:
        if not has_valid_checksum(row):
            raise ValueError("it is damaged: its checksum is wrong")
        return recorded_edit(
            revision, DocumentKey(DocumentKind(kind), name), msgspec.json.decode(body, type=EditRecord)
        )
    except (ValueError, TypeError) as error:
        # Only history is lost, which is no reason to stop the registry.
        problem = f"its history of {kind} {name} at revision {revision} can't be read: {error}"
        raise StoreUnavailable(f"{path}: {problem}") from error
