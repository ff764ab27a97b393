"""Where everything is kept in etcd, and how a batch is told to other nodes. Pure.

    PREFIX/catalog/head                         what the newest batch was: written with every batch
    PREFIX/catalog/instances/SERVICE/ID         a listing
    PREFIX/catalog/documents/KIND/NAME          what was declared beside the catalog
    PREFIX/catalog/departures/SERVICE           an instance left the service: it stays known, though all may have left
    PREFIX/log/BASIS/SERVICE/COUNT              history: the changes of a service in the batch decided on BASIS
    PREFIX/log/BASIS/COUNT                      history: those of all services, as earlier versions wrote it
    PREFIX/edits/KIND/NAME/BASIS                history: what the batch decided on BASIS made of a document
    PREFIX/cluster/…                            which nodes there are, and what each keeps: see `presence`

A batch is one transaction, conditional on the head: so batches have one order, and none is decided on an old catalog.
Its revision is etcd's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec import Struct

from adsum.core.catalog import documents
from adsum.core.catalog.changes import Change
from adsum.core.catalog.documents import DocumentKey, DocumentKind, Edit
from adsum.core.model import Key
from adsum.core.provenance import Cause, Provenance
from adsum.etcd.values import Delete, Put
from adsum.stores import edit_log as histories
from adsum.stores import records
from adsum.stores.records import ProvenanceRecord

FORMAT_VERSION: Final = 1
"""Of everything below the prefix. The head says it: a node refuses to start on a later one, and to write to one."""
MAX_OPERATIONS_PER_TRANSACTION: Final = 120
"""What facts make of one transaction; etcd takes 128 unless told otherwise. A larger batch is written in parts."""
MAX_BYTES_PER_TRANSACTION: Final = 1024 * 1024
"""Bytes of them; etcd takes 1.5 MiB a request."""
DELETED_IN_ETCD: Final = Provenance(Cause.DEREGISTERED, "etcd", "its key was deleted in etcd")
"""Why an instance is gone whose key somebody deleted past the registry."""


class Head(Struct, frozen=True, omit_defaults=True):
    """What the newest batch was. `batch` names it, so that a writer that got no answer finds out what became of it."""

    epoch: str
    batch: str
    basis: int = 0
    """The revision that it was decided on."""
    count: int = 0
    """How many changes it has in the log."""
    logged: dict[str, int] = {}
    """How many of them are of each service: each service has an entry of its own."""
    part: int = 1
    parts: int = 1
    """Of a batch too large for one transaction: followers wait for its last part."""
    gone: dict[str, ProvenanceRecord] = {}
    """Why each key that was deleted is gone, by the end of its path."""
    format: int = FORMAT_VERSION


class LoggedChange(Struct, frozen=True, array_like=True):
    """A change in the log."""

    service: str
    id: str
    change: msgspec.Raw
    number: int = 0
    """Its place in the batch; earlier versions did not write it."""


class LogEntryRecord(Struct, frozen=True, omit_defaults=True):
    """The changes of one service in one part of a batch."""

    changes: list[LoggedChange]
    part: int = 1
    parts: int = 1


@dataclass(frozen=True, slots=True)
class BatchPart:
    """What one transaction writes, but for the head."""

    operations: tuple[Put | Delete, ...]
    deletions: dict[str, ProvenanceRecord]
    log: Mapping[str, list[LoggedChange]]
    """The changes for the log, by service."""
    departed: tuple[str, ...]
    """Services that instances left."""
    forgotten: tuple[str, ...]
    """Services that are no longer known."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The keys below one prefix, which ends with a slash."""

    prefix: bytes
    catalog: bytes = field(init=False)
    log: bytes = field(init=False)
    edits: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "catalog", self.prefix + b"catalog/")
        object.__setattr__(self, "log", self.prefix + b"log/")
        object.__setattr__(self, "edits", self.prefix + b"edits/")

    @property
    def head(self) -> bytes:
        return self.catalog + b"head"

    def subject(self, key: bytes) -> Key | DocumentKey | None:
        """What a key of the catalog is about; None if nothing of ours."""
        room, _, rest = key.removeprefix(self.catalog).decode(errors="replace").partition("/")
        first, slash, last = rest.partition("/")
        if not slash:
            return None
        if room == "instances":
            return Key(first, last)
        if room == "documents":
            return next((DocumentKey(kind, last) for kind in DocumentKind if kind.value == first), None)
        return None

    def departed_service(self, key: bytes) -> str | None:
        """The service that instances left, of the key that says so."""
        return self.forgotten_service(key.removeprefix(self.catalog).decode(errors="replace"))

    def forgotten_service(self, path: str) -> str | None:
        """The service that is forgotten when the key at that path is deleted."""
        room, _, service = path.partition("/")
        return service if room == "departures" else None

    def departure_key(self, service: str) -> bytes:
        return self.key(Key(service, ""))

    def path(self, subject: Key | DocumentKey) -> str:
        """The end of its key's path, behind `catalog`."""
        first, last = subject
        if isinstance(subject, DocumentKey):
            return f"documents/{first}/{last}"
        return f"instances/{first}/{last}" if last else f"departures/{first}"

    def key(self, subject: Key | DocumentKey) -> bytes:
        return self.catalog + self.path(subject).encode()

    def log_key(self, base_revision: int, service: str, count: int) -> bytes:
        """In the order of batches, and telling what it is about without being read. `service` "": several."""
        return self.log + "/".join(filter(None, (f"{base_revision:016x}", service, str(count)))).encode()

    def parse_log_key(self, key: bytes) -> tuple[str, int]:
        """The service of an entry ("": it may be about several), and how many changes it has."""
        basis_and_service, _, count = key.removeprefix(self.log).decode().rpartition("/")
        return basis_and_service.partition("/")[2], int(count)

    def edit_key(self, title: DocumentKey, base_revision: int) -> bytes:
        """In the order of the edits of one document."""
        return self.edits + f"{title.kind}/{title.name}/{base_revision:016x}".encode()

    def parse_edit_key(self, key: bytes) -> DocumentKey:
        """The document of such a key."""
        kind, name, _ = key.removeprefix(self.edits).decode().split("/")
        return DocumentKey(DocumentKind(kind), name)

    def parts(self, changes: Sequence[Change], edits: Sequence[Edit], base_revision: int) -> list[BatchPart]:
        """A batch decided on the revision `basis`, cut into what one transaction can take.

        Raises `UnicodeEncodeError` for a text that is none.
        """
        # Changes last: the revision of a batch in history is that of its last part, whose entries in the log have it.
        return self._cut([*self._of_edits(edits, base_revision), *self._of_changes(changes)])

    def _of_changes(self, changes: Sequence[Change]) -> list[_Fact]:
        """A key may be written once in a transaction: the last change of an instance counts.

        So does the last that says whether instances left a service, or that it was forgotten.
        """
        last = {change.key: number for number, change in enumerate(changes)}
        gone = {change.key.service: change.forgets_service for change in changes if change.listing is None}
        facts = []
        for number, change in enumerate(changes):
            logged = LoggedChange(*change.key, msgspec.Raw(records.encode_change(change)), number)
            service = change.key.service
            counts = last[change.key] == number and (gone.get(service, False) or not change.forgets_service)
            key = self.key(change.key)
            if not counts:
                facts.append(_Fact(None, logged))
            elif change.listing is None:
                why = self.path(change.key), ProvenanceRecord.from_provenance(change.provenance)
                left, forgotten = ("" if gone[service] else service), (service if change.forgets_service else "")
                facts.append(_Fact(Delete(key), logged, why, left, forgotten))
            else:
                facts.append(_Fact(Put(key, records.encode_listing(change.listing)), logged))
        return facts

    def _of_edits(self, edits: Sequence[Edit], basis: int) -> list[_Fact]:
        """The last edit of a document counts, and history has all of them."""
        together: dict[DocumentKey, list[Edit]] = {}
        for edit in edits:
            together.setdefault(edit.key, []).append(edit)
        facts = []
        for title, of_one in together.items():
            last = of_one[-1]
            kept = of_one[-documents.MAX_EDITS_PER_DOCUMENT :]  # So that a value stays within what etcd takes.
            history = Put(self.edit_key(title, basis), msgspec.json.encode([*map(histories.edit_record, kept)]))
            if last.document is None:
                gone = self.path(title), ProvenanceRecord.from_provenance(last.provenance)
                facts.append(_Fact(Delete(self.key(title)), None, gone, history=history))
            else:
                facts.append(_Fact(Put(self.key(title), records.encode_document(last.document)), history=history))
        return facts

    def _cut(self, facts: Sequence[_Fact]) -> list[BatchPart]:
        parts: list[list[_Fact]] = [[]]
        left, logged = {""}, {""}
        operations = size = 0
        for fact in facts:
            needed = self._needed(fact, left, logged)
            if parts[-1] and (
                operations + needed > MAX_OPERATIONS_PER_TRANSACTION or size + fact.size > MAX_BYTES_PER_TRANSACTION
            ):
                parts.append([])
                left, logged = {""}, {""}
                operations = size = 0
                needed = self._needed(fact, left, logged)
            parts[-1].append(fact)
            left.add(fact.left)
            logged.add(fact.service)
            operations += needed
            size += fact.size
        return [self._part(part) for part in parts]

    def _needed(self, fact: _Fact, left: Set[str], logged: Set[str]) -> int:
        """How many operations a fact adds to a part that writes those departures and entries of the log already."""
        kept = (fact.operation is not None) + (fact.history is not None)
        return kept + (fact.left not in left) + (fact.service not in logged)

    def _part(self, facts: Sequence[_Fact]) -> BatchPart:
        departures = {fact.left: Put(self.departure_key(fact.left), b"") for fact in facts if fact.left}
        log: dict[str, list[LoggedChange]] = {}
        for fact in facts:
            if fact.logged is not None:
                log.setdefault(fact.service, []).append(fact.logged)
        return BatchPart(
            (
                *(fact.operation for fact in facts if fact.operation is not None),
                *(fact.history for fact in facts if fact.history is not None),
                *departures.values(),
            ),
            dict(fact.gone for fact in facts if fact.gone is not None),
            log,
            tuple(departures),
            tuple(fact.forgotten for fact in facts if fact.forgotten),
        )


@dataclass(frozen=True, slots=True)
class _Fact:
    operation: Put | Delete | None
    logged: LoggedChange | None = None
    gone: tuple[str, ProvenanceRecord] | None = None
    left: str = ""
    """The service that an instance left."""
    forgotten: str = ""
    """The service that is no longer known."""
    history: Put | None = None
    """What became of a document."""

    @property
    def service(self) -> str:
        """The service in whose log it is; "" if in none."""
        return self.logged.service if self.logged is not None else ""

    @property
    def size(self) -> int:
        written = sum(len(each.value) for each in (self.operation, self.history) if isinstance(each, Put))
        return written + (len(self.logged.change) if self.logged is not None else 0) + 512
