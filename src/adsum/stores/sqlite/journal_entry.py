"""The encoded form of a batch in the journal. Every later version must be able to read it.

An entry holds the records of a batch in the form in which the other tables keep them, so that folding it into them
encodes nothing again.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from adsum.core.catalog.changes import Change
from adsum.core.catalog.documents import Edit
from adsum.stores import edit_log, records

COMPRESS_FROM_BYTES: Final = 2_048
"""Bytes of an entry from which on it is compressed. The records of a large batch have most of their text in common."""
COMPRESSION_LEVEL: Final = 1
"""zlib's fastest level. A commit waits for the compression."""

NULL: Final = b"null"
"""The record of what does not exist."""
_NULL: Final = Raw(NULL)
_PLAIN_START: Final = b"{"
"""The first byte of an entry that is not compressed. The first byte of compressed data is another one."""


class JournaledChange(Struct, frozen=True, array_like=True):
    """A change: its key, its record in the history, and the record of the listing; null if it was removed."""

    service: str
    id: str
    record: Raw
    listing: Raw = _NULL


class JournaledEdit(Struct, frozen=True, array_like=True):
    """An edit: its key, the record of the document, and the record of the edit.

    The former is null if the document was withdrawn, and the latter if the edit is not part of the history.
    """

    kind: str
    name: str
    document: Raw = _NULL
    record: Raw = _NULL


class JournalEntry(Struct, frozen=True, omit_defaults=True):
    """A batch without its revision."""

    changes: list[JournaledChange] = []
    edits: list[JournaledEdit] = []

    @property
    def facts(self) -> int:
        """The number of changes and edits."""
        return len(self.changes) + len(self.edits)


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(JournalEntry)


def encode_entry(changes: Sequence[Change], edits: Sequence[Edit]) -> bytes:
    """Returns the encoded entry of a batch. Raises `UnicodeEncodeError` for a text that is not valid Unicode."""
    body = _ENCODER.encode(JournalEntry([_journaled(change) for change in changes], [*map(_journaled_edit, edits)]))
    return body if len(body) < COMPRESS_FROM_BYTES else zlib.compress(body, COMPRESSION_LEVEL)


def decode_entry(body: bytes) -> JournalEntry:
    """Returns the entry. Raises `ValueError` and `zlib.error` if it is damaged."""
    return _DECODER.decode(body if body.startswith(_PLAIN_START) else zlib.decompress(body))


def _journaled(change: Change) -> JournaledChange:
    listing = change.listing
    return JournaledChange(
        *change.key,
        Raw(records.encode_change(change)),
        _NULL if listing is None else Raw(records.encode_listing(listing)),
    )


def _journaled_edit(edit: Edit) -> JournaledEdit:
    document = edit.document
    return JournaledEdit(
        *edit.key,
        _NULL if document is None else Raw(records.encode_document(document)),
        Raw(_ENCODER.encode(edit_log.edit_record(edit))) if edit.is_recorded else _NULL,
    )
