"""The table of recorded changes: written with each batch, trimmed, and read newest first. Blocking."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import count
from typing import Final

from adsum.stores.retention import Retention
from adsum.stores.sqlite.rows import RecordRow

TRIM_SLACK_CHANGES: Final = 1_000
"""How many changes history grows beyond its bounds before it is trimmed, so that no commit pays for all of it."""

_RECORD: Final = "INSERT INTO history (number, service, id, revision, body, checksum) VALUES (?, ?, ?, ?, ?, ?)"
_DROP: Final = "DELETE FROM history WHERE number = ?"
_NUMBERS: Final = "SELECT number, service FROM history ORDER BY number"
_NEWEST: Final = "SELECT service, id, revision, body, checksum FROM history ORDER BY number DESC"
_ROW: Final = "SELECT service, id, revision, body, checksum FROM history WHERE number = ?"


class HistoryTable:
    """The recorded changes of one file. The numbers of each service's rows are known without an index on disk."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._retention: Retention[int] | None = None
        """The numbers of the rows; None while it is not known what is in the table."""

    def insert(self, rows: Sequence[RecordRow]) -> None:
        """Add rows within a transaction, and trim the table now and then. Call `invalidate` unless that commits."""
        retention = self._known()
        if retention.is_over_bounds(TRIM_SLACK_CHANGES):
            self._db.executemany(_DROP, [(number,) for number in retention.trim()])
        (last,) = self._db.execute("SELECT coalesce(max(number), 0) FROM history").fetchone()
        numbered = list(zip(count(last + 1), rows, strict=False))
        self._db.executemany(_RECORD, [(number, *row) for number, row in numbered])
        for number, row in numbered:
            retention.add(row[0], number)

    def invalidate(self) -> None:
        """The transaction failed, or may have: what the table holds is looked up again when it is needed."""
        self._retention = None

    def newest(self, service: str | None, id: str | None, limit: int) -> list[RecordRow]:
        """The newest rows, newest first; of one service or instance if given."""
        found: list[RecordRow] = []
        rows = self._rows() if service is None else self._rows_of(service)
        with closing(rows):
            for row in rows:
                if len(found) >= limit:
                    break
                if id in (None, row[1]):
                    found.append(row)
        return found

    def _rows(self) -> Generator[RecordRow, None, None]:
        with closing(self._db.execute(_NEWEST)) as rows:
            yield from rows

    def _rows_of(self, service: str) -> Generator[RecordRow, None, None]:
        for number in self._known().newest_first(service):
            yield from self._db.execute(_ROW, (number,))

    def _known(self) -> Retention[int]:
        if self._retention is None:
            retention = Retention[int]()
            for number, service in self._db.execute(_NUMBERS):
                retention.add(service, number)
            self._retention = retention
        return self._retention
