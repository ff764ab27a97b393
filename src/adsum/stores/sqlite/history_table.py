"""The table of recorded changes: batches are folded into it, it is trimmed, and read newest first. Blocking."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import count
from typing import Final

from adsum.stores.retention import Retention
from adsum.stores.sqlite.journal import Journal
from adsum.stores.sqlite.rows import RecordRow

TRIM_SLACK_CHANGES: Final = 1_000
"""Changes by which history exceeds its bounds before it is trimmed, so that most commits delete nothing."""

_RECORD: Final = "INSERT INTO history (number, service, id, revision, body, checksum) VALUES (?, ?, ?, ?, ?, ?)"
_DROP: Final = "DELETE FROM history WHERE number = ?"
_NUMBERS: Final = "SELECT number, service FROM history ORDER BY number"
_NEWEST: Final = "SELECT service, id, revision, body, checksum FROM history ORDER BY number DESC"
_ROW: Final = "SELECT service, id, revision, body, checksum FROM history WHERE number = ?"


class HistoryTable:
    """The recorded changes of one file. The row numbers of each service are in memory, which saves an index on disk."""

    def __init__(self, db: sqlite3.Connection, journal: Journal) -> None:
        self._db = db
        self._journal = journal
        self._retention: Retention[int] | None = None
        """The row numbers of each service; None until they are read from the table."""

    def insert(self, rows: Sequence[RecordRow]) -> None:
        """Inserts rows within a transaction, and trims the table now and then.

        Call `invalidate` if the transaction does not commit.
        """
        retention = self._loaded_retention()
        if retention.is_over_bounds(TRIM_SLACK_CHANGES):
            self._db.executemany(_DROP, [(number,) for number in retention.trim()])
        (last,) = self._db.execute("SELECT coalesce(max(number), 0) FROM history").fetchone()
        numbered = list(zip(count(last + 1), rows, strict=False))
        self._db.executemany(_RECORD, [(number, *row) for number, row in numbered])
        for number, row in numbered:
            retention.add(row[0], number)

    def invalidate(self) -> None:
        """Drops the row numbers after a transaction that may have failed. They are read again when needed."""
        self._retention = None

    def newest(self, service: str | None, id: str | None, limit: int) -> list[RecordRow]:
        """Returns the newest rows, newest first, at most `limit`; of one service and one instance id if given.

        Rows that the journal holds too are left out.
        """
        found: list[RecordRow] = []
        rows = self._rows() if service is None else self._rows_of(service)
        with closing(rows):
            for row in rows:
                if len(found) >= limit:
                    break
                if id in (None, row[1]) and not self._journal.holds(row):
                    found.append(row)
        return found

    def _rows(self) -> Generator[RecordRow, None, None]:
        with closing(self._db.execute(_NEWEST)) as rows:
            yield from rows

    def _rows_of(self, service: str) -> Generator[RecordRow, None, None]:
        for number in self._loaded_retention().newest_first(service):
            yield from self._db.execute(_ROW, (number,))

    def _loaded_retention(self) -> Retention[int]:
        if self._retention is None:
            retention = Retention[int]()
            for number, service in self._db.execute(_NUMBERS):
                retention.add(service, number)
            self._retention = retention
        return self._retention
