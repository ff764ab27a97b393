"""Decodes rows of the SQLite file, and refuses those that are damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from adsum.core.catalog.changes import RecordedChange
from adsum.core.catalog.documents import Document, DocumentKey, DocumentKind, RecordedEdit
from adsum.core.errors import AdsumError, StoreOpenFailed, StoreUnavailable
from adsum.core.model import Key, Listing
from adsum.stores.edit_log import EditRecord, recorded_edit
from adsum.stores.record_decoder import RecordDecoder, decode_change, decode_document
from adsum.stores.sqlite.rows import RecordRow, has_valid_checksum

REMEDY: Final = "restore it from a backup (`adsum restore`), or move it away to start empty"
"""The remedy for a damaged file, for errors."""

_DAMAGED: Final = "it is damaged: its checksum is wrong"
_UNREADABLE: Final = (ValueError, TypeError)
"""The errors that decoding a damaged record raises. `TypeError` is of a body that became null."""


def decode_listing_row(decoder: RecordDecoder, row: RecordRow) -> tuple[int, Listing]:
    """Returns the revision and the listing of a row. Raises `StoreOpenFailed`."""
    service, id, revision, body, _ = row
    try:
        if not has_valid_checksum(row):
            raise ValueError(_DAMAGED)
        return revision, decoder.decode_listing(service, id, body)
    except (*_UNREADABLE, AdsumError) as error:
        raise StoreOpenFailed(f"its record of {service}/{id} can't be read: {error}; {REMEDY}") from error


def decode_document_row(row: RecordRow) -> tuple[int, Document]:
    """Returns the revision and the document of a row. Raises `StoreOpenFailed`."""
    kind, name, revision, body, _ = row
    try:
        if not has_valid_checksum(row):
            raise ValueError(_DAMAGED)
        return revision, decode_document(kind, name, body)
    except (*_UNREADABLE, AdsumError) as error:
        raise StoreOpenFailed(f"its record of {kind} {name} can't be read: {error}; {REMEDY}") from error


def decode_departure_row(row: tuple[str, int, int]) -> tuple[str, int]:
    """Returns the service and the removal revision of a row. Raises `StoreOpenFailed`."""
    if not has_valid_checksum(row):
        raise StoreOpenFailed(f"its record of the service {row[0]} can't be read: {_DAMAGED}; {REMEDY}")
    return row[0], row[1]


def decode_history_row(path: Path, row: RecordRow) -> RecordedChange:
    """Returns the recorded change of a row of the file at `path`.

    Raises `StoreUnavailable`: only history is lost, which is no reason to stop the registry.
    """
    service, id, revision, body, _ = row
    try:
        if not has_valid_checksum(row):
            raise ValueError(_DAMAGED)
        return decode_change(revision, Key(service, id), body)
    except _UNREADABLE as error:
        raise StoreUnavailable(
            f"{path}: its history of {service}/{id} at revision {revision} can't be read: {error}"
        ) from error


def decode_edit_row(path: Path, row: RecordRow) -> RecordedEdit:
    """Returns the recorded edit of a row of the file at `path`. Raises `StoreUnavailable` likewise."""
    kind, name, revision, body, _ = row
    try:
        if not has_valid_checksum(row):
            raise ValueError(_DAMAGED)
        return recorded_edit(
            revision, DocumentKey(DocumentKind(kind), name), msgspec.json.decode(body, type=EditRecord)
        )
    except _UNREADABLE as error:
        problem = f"its history of {kind} {name} at revision {revision} can't be read: {error}"
        raise StoreUnavailable(f"{path}: {problem}") from error
