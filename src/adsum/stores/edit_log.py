"""History of what operators declared: how stores record an edit, and which of the recorded edits may go.

A record names the fields that the edit changed, so that it is small however long the document is, and can be read
without those before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final

import msgspec
from msgspec import Raw, Struct

from adsum.core.catalog import documents
from adsum.core.catalog.documents import Document, DocumentKey, DocumentKind, Edit, EditKind, RecordedEdit
from adsum.stores.record_decoder import decode_provenance
from adsum.stores.records import ProvenanceRecord

MAX_RECORD_BYTES: Final = 4 * 1024
"""Bytes of values that one record keeps; a field that does not fit is named without its values."""

MAX_EDITS_ON_EVENT_LOOP: Final = 100
"""Edits that are recorded in the event loop's thread; a larger batch would hold up everybody else."""

_FIELDS: Final = msgspec.json.Decoder(dict[str, Raw])


class EditRecord(Struct, frozen=True, omit_defaults=True):
    """An edit, but for its revision and title. As for all records, the defaults never change."""

    kind: EditKind
    why: ProvenanceRecord
    before: dict[str, Raw] = {}
    after: dict[str, Raw] = {}
    omitted: list[str] = []


def edit_record(edit: Edit) -> EditRecord:
    """The record of an edit. Raises `msgspec.DecodeError` for a document that is no JSON object."""
    known, says = _fields(edit.before), _fields(edit.document)
    before = {name: value for name, value in known.items() if value != says.get(name)}
    after = {name: value for name, value in says.items() if value != known.get(name)}
    omitted = _too_long(before, after)
    for name in omitted:
        before.pop(name, None)
        after.pop(name, None)
    return EditRecord(_kind(edit), ProvenanceRecord.from_provenance(edit.provenance), before, after, omitted)


def edit_records(edits: Iterable[Edit]) -> list[tuple[DocumentKey, EditRecord]]:
    """Their records, with their titles."""
    return [(edit.key, edit_record(edit)) for edit in edits]


def _too_long(before: Mapping[str, Raw], after: Mapping[str, Raw]) -> list[str]:
    """Fields that a record has no room for: the longest ones."""
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


def recorded_edit(revision: int, title: DocumentKey, record: EditRecord) -> RecordedEdit:
    """The edit of a record."""
    before, after = ({name: bytes(value) for name, value in part.items()} for part in (record.before, record.after))
    return RecordedEdit(
        revision, title, record.kind, before, after, tuple(record.omitted), decode_provenance(record.why)
    )


def _kind(edit: Edit) -> EditKind:
    if edit.document is None:
        return EditKind.WITHDRAWN
    return EditKind.DECLARED if edit.before is None else EditKind.CHANGED


def _fields(document: Document | None) -> dict[str, Raw]:
    return {} if document is None else _FIELDS.decode(document.body)


class EditLog:
    """Recorded edits in memory."""

    def __init__(self) -> None:
        self._edits: dict[int, tuple[int, DocumentKey, EditRecord]] = {}
        """Each with its revision and title, by a number that grows, the oldest first."""
        self._numbers: dict[DocumentKey, dict[int, None]] = {}
        self._next = 0

    def add(self, revision: int, records: Iterable[tuple[DocumentKey, EditRecord]]) -> None:
        """Keep these; past a bound the oldest are forgotten."""
        for title, each in records:
            self._edits[self._next] = revision, title, each
            numbers = self._numbers.setdefault(title, {})
            numbers[self._next] = None
            self._next += 1
            if len(numbers) > documents.MAX_EDITS_PER_DOCUMENT:
                self._forget(next(iter(numbers)))
            if len(self._edits) > documents.MAX_EDITS:
                self._forget(next(iter(self._edits)))

    def _forget(self, number: int) -> None:
        _, title, _ = self._edits.pop(number)
        self._numbers[title].pop(number)
        if not self._numbers[title]:
            del self._numbers[title]

    def newest(self, kind: DocumentKind | None, name: str | None, limit: int) -> list[RecordedEdit]:
        """See `ports.Store.edits`."""
        found = (
            edit
            for edit in reversed(self._edits.values())
            if kind in (None, edit[1].kind) and name in (None, edit[1].name)
        )
        return [recorded_edit(*edit) for edit in islice(found, max(0, limit))]
