"""Reads the whole contents of a file: its tables, and the journal's batches that are not yet folded into them.

A fold that is under way has written a part of those batches into the tables. So for all that the journal holds, the
journal counts, and history of the same revisions in the tables is skipped. Blocking.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing
from heapq import nlargest
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import Literal

from adsum.core.catalog import documents
from adsum.core.catalog.changes import MAX_HISTORY_PER_SERVICE, MAX_REMOVAL_REVISIONS, FullState, RecordedChange
from adsum.core.catalog.documents import DocumentKind, RecordedEdit
from adsum.stores.record_decoder import RecordDecoder
from adsum.stores.sqlite import edits_table, schema
from adsum.stores.sqlite.history_table import HistoryTable
from adsum.stores.sqlite.journal import Journal
from adsum.stores.sqlite.row_decoder import (
    decode_departure_row,
    decode_document_row,
    decode_edit_row,
    decode_history_row,
    decode_listing_row,
)
from adsum.stores.sqlite.rows import RecordRow, RowKey, TableRows


def full_state(db: sqlite3.Connection, journal: Journal) -> FullState:
    """Returns everything that is stored. Raises `StoreOpenFailed` if a row is damaged, and `sqlite3.Error`."""
    newer, decoder = TableRows(), RecordDecoder()
    for revision, entry in journal.oldest_first():
        newer.add(revision, entry)
    with closing(_rows(db, "listings")) as rows:
        listings = [decode_listing_row(decoder, row) for row in _replaced(rows, newer.listings)]
    with closing(_rows(db, "documents")) as rows:
        stored = [decode_document_row(row) for row in _replaced(rows, newer.documents)]
    with closing(_rows(db, "departures")) as rows:
        removals = dict(decode_departure_row(row) for row in rows)
    for service, removed in newer.departures.items():
        removals.pop(service, None)
        if removed is not None:
            removals[service] = removed
    newest = nlargest(MAX_REMOVAL_REVISIONS, removals.items(), key=itemgetter(1))
    return FullState(journal.epoch, journal.revision, listings, stored, dict(newest))


def _rows(db: sqlite3.Connection, table: str) -> sqlite3.Cursor:
    return db.execute(f"SELECT {', '.join(schema.CHECKSUM_COLUMNS[table])}, checksum FROM {table}")  # noqa: S608 - constants


def _replaced(rows: Iterable[RecordRow], newer: Mapping[RowKey, RecordRow | None]) -> Iterator[RecordRow]:
    """Yields the rows of a table, with those of the journal in place of their predecessors."""
    for row in rows:
        if row[:2] not in newer:
            yield row
    yield from (row for row in newer.values() if row is not None)


def history(
    path: Path, journal: Journal, table: HistoryTable, service: str | None, id: str | None, limit: int
) -> list[RecordedChange]:
    """Returns the newest changes, newest first. Raises `StoreUnavailable` if a row can't be decoded."""
    newer = (row for row in _journaled(journal, "history") if service in (None, row[0]) and id in (None, row[1]))
    # Folding trims the table. A reader must not see more than that before, but for the slack of the table.
    found = [*islice(_bounded(newer, lambda row: row[0], MAX_HISTORY_PER_SERVICE), max(0, limit))]
    if len(found) < limit:
        older = table.newest(service, id, limit - len(found))
        found = [*_bounded(chain(found, older), lambda row: row[0], MAX_HISTORY_PER_SERVICE)]
    return [decode_history_row(path, row) for row in found]


def edits(
    db: sqlite3.Connection,
    path: Path,
    journal: Journal,
    kinds: Collection[DocumentKind],
    name: str | None,
    limit: int,
) -> list[RecordedEdit]:
    """Returns the newest edits, newest first. Raises `StoreUnavailable` if a row can't be decoded."""
    with closing(edits_table.newest_first(db)) as table:
        older = (row for row in table if not journal.holds(row))
        newest = _bounded(
            chain(_journaled(journal, "edits"), older), lambda row: row[:2], documents.MAX_EDITS_PER_DOCUMENT
        )
        kept = islice(newest, documents.MAX_EDITS)
        matching = (row for row in kept if row[0] in kinds and name in (None, row[1]))
        return [decode_edit_row(path, row) for row in islice(matching, max(0, limit))]


def _journaled(journal: Journal, table: Literal["history", "edits"]) -> Iterator[RecordRow]:
    """Yields the rows of a table that the journal holds, newest first."""
    for revision, entry in journal.newest_first():
        rows = TableRows()
        rows.add(revision, entry)
        yield from reversed(rows.history if table == "history" else rows.edits)


def _bounded(
    rows: Iterable[RecordRow], group: Callable[[RecordRow], object], max_per_group: int
) -> Iterator[RecordRow]:
    """Yields the first rows of each group, at most so many."""
    counts = Counter[object]()
    for row in rows:
        counts[group(row)] += 1
        if counts[group(row)] <= max_per_group:
            yield row
