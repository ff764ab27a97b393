"""The history of documents: the record of an edit, and a log of such records in memory.

A record holds only the fields that the edit changed. So it is small however long the document is, and it can be read
without the records before it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import Final

import msgspec
from msgspec import Raw, Struct

from adsum.core.catalog import documents
from adsum.core.catalog.documents import (
    ACCESS_KINDS,
    Document,
    DocumentKey,
    DocumentKind,
    Edit,
    EditKind,
    RecordedEdit,
)
from adsum.stores.record_decoder import decode_provenance
from adsum.stores.records import ProvenanceRecord

MAX_RECORD_BYTES: Final = 4 * 1024
"""Bytes of field values in one record. Fields that do not fit are named without their values, the longest first."""
MAX_EDITS_ON_EVENT_LOOP: Final = 100
"""Edits whose records are made on the event loop. A larger batch is handled in a thread, so that it blocks nothing."""
SECRETS_FIELD: Final = "secrets"
"""The field of tokens and invites with the hashes of their secrets. The history never has the values."""

_FIELDS: Final = msgspec.json.Decoder(dict[str, Raw])


class EditRecord(Struct, frozen=True, omit_defaults=True):
    """An edit without its revision and document key. As in all records, the defaults never change."""

    kind: EditKind
    why: ProvenanceRecord
    before: dict[str, Raw] = {}
    after: dict[str, Raw] = {}
    omitted: list[str] = []


def edit_record(edit: Edit) -> EditRecord:
    """Returns the record of an edit. Changed hashes of secrets are named without their values.

    Raises `msgspec.DecodeError` for a document that is no JSON object.
    """
    old, new = _fields(edit.before), _fields(edit.document)
    secret: list[str] = []
    if edit.key.kind in ACCESS_KINDS:
        hashes = [fields.pop(SECRETS_FIELD, None) for fields in (old, new)]
        secret = [SECRETS_FIELD] if hashes[0] != hashes[1] else []
    before = {name: value for name, value in old.items() if value != new.get(name)}
    after = {name: value for name, value in new.items() if value != old.get(name)}
    omitted = _too_long(before, after)
    for name in omitted:
        before.pop(name, None)
        after.pop(name, None)
    return EditRecord(
        _kind(edit), ProvenanceRecord.from_provenance(edit.provenance), before, after, sorted([*omitted, *secret])
    )


def edit_records(edits: Iterable[Edit]) -> list[tuple[DocumentKey, EditRecord]]:
    """Returns the records of the edits that are recorded, each with the key of its document."""
    return [(edit.key, edit_record(edit)) for edit in edits if edit.is_recorded]


def _too_long(before: Mapping[str, Raw], after: Mapping[str, Raw]) -> list[str]:
    """Returns the names of the fields to omit: the longest ones, as few as let the others fit into a record."""
    room = MAX_RECORD_BYTES - sum(map(len, before.values())) - sum(map(len, after.values()))
    if room >= 0:
        return []
    lengths = {name: len(before.get(name, b"")) + len(after.get(name, b"")) for name in (*before, *after)}
    omitted = []
    for name in sorted(lengths, key=lengths.__getitem__, reverse=True):
        omitted.append(name)
        room += lengths[name]
        if room >= 0:
            break
    return sorted(omitted)


def recorded_edit(revision: int, key: DocumentKey, record: EditRecord) -> RecordedEdit:
    """Returns the edit that a record holds."""
    before, after = ({name: bytes(value) for name, value in part.items()} for part in (record.before, record.after))
    return RecordedEdit(revision, key, record.kind, before, after, tuple(record.omitted), decode_provenance(record.why))


def _kind(edit: Edit) -> EditKind:
    if edit.document is None:
        return EditKind.WITHDRAWN
    return EditKind.DECLARED if edit.before is None else EditKind.CHANGED


def _fields(document: Document | None) -> dict[str, Raw]:
    return {} if document is None else _FIELDS.decode(document.body)


class EditLog:
    """The recorded edits of a store in memory, within the bounds of `documents`."""

    def __init__(self) -> None:
        self._edits: dict[int, tuple[int, DocumentKey, EditRecord]] = {}
        """Sequence number → revision, document key and record, the oldest first."""
        self._numbers: dict[DocumentKey, dict[int, None]] = {}
        self._next = 0

    def add(self, revision: int, records: Iterable[tuple[DocumentKey, EditRecord]]) -> None:
        """Adds records. Past a bound the oldest are deleted."""
        for key, record in records:
            self._edits[self._next] = revision, key, record
            numbers = self._numbers.setdefault(key, {})
            numbers[self._next] = None
            self._next += 1
            if len(numbers) > documents.MAX_EDITS_PER_DOCUMENT:
                self._delete(next(iter(numbers)))
            if len(self._edits) > documents.MAX_EDITS:
                self._delete(next(iter(self._edits)))

    def _delete(self, number: int) -> None:
        _, key, _ = self._edits.pop(number)
        self._numbers[key].pop(number)
        if not self._numbers[key]:
            del self._numbers[key]

    def newest(self, kinds: Collection[DocumentKind], name: str | None, limit: int) -> list[RecordedEdit]:
        """Returns the newest edits, newest first: see `ports.Store.edits`."""
        matching = (
            edit for edit in reversed(self._edits.values()) if edit[1].kind in kinds and name in (None, edit[1].name)
        )
        return [recorded_edit(*edit) for edit in islice(matching, max(0, limit))]
