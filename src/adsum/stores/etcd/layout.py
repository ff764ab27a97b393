"""The keys and values of a registry in etcd, and the transactions that write a batch. Pure.

    PREFIX/catalog/head                         the newest batch; written with every batch
    PREFIX/catalog/instances/SERVICE/ID         a listing
    PREFIX/catalog/documents/KIND/NAME          a document
    PREFIX/catalog/departures/SERVICE           an instance was removed from the service, which stays known
    PREFIX/log/BASE/SERVICE/COUNT               history: COUNT changes of a service by the batch with base revision BASE
    PREFIX/log/BASE/COUNT                       history: COUNT changes of all services, as earlier versions wrote it
    PREFIX/edits/KIND/NAME/BASE                 history: the edits of a document by the batch with base revision BASE
    PREFIX/cluster/…                            the nodes, and the shards that they keep: see `membership`

A batch is one transaction that is conditional on the head. So batches have one order, and none is decided on an old
catalog. The revision of a batch is etcd's own.
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
from adsum.stores import records
from adsum.stores.edit_log import edit_record
from adsum.stores.records import ProvenanceRecord

FORMAT_VERSION: Final = 1
"""The version of everything below the prefix. A node refuses to start on a later version, and to write to it."""
MAX_OPERATIONS_PER_TRANSACTION: Final = 120
"""Operations of one transaction for the facts of a batch. A larger batch is written in parts. etcd's default is 128."""
MAX_BYTES_PER_TRANSACTION: Final = 1024 * 1024
"""Bytes of these operations. A larger batch is written in parts. etcd's default is 1.5 MiB for a request."""
DELETED_IN_ETCD: Final = Provenance(Cause.DEREGISTERED, "etcd", "its key was deleted in etcd")
"""The provenance of a removal by another program, which deleted the key in etcd."""


class Head(Struct, frozen=True, omit_defaults=True):
    """The head of the catalog, which describes the newest batch.

    `batch` is the batch's random name: a writer that got no answer recognises its own batch by it.
    """

    epoch: str
    batch: str
    basis: int = 0
    """The base revision: the one that the batch was decided on."""
    count: int = 0
    """The number of its changes in the log."""
    logged: dict[str, int] = {}
    """Service → number of its changes in the log. Each service has an entry of its own."""
    part: int = 1
    parts: int = 1
    """The number of parts of a batch that is too large for one transaction. Followers wait for the last part."""
    gone: dict[str, ProvenanceRecord] = {}
    """Path below `catalog` of each deleted key → the provenance of the deletion."""
    writer: str = ""
    """The id of the node that wrote it; "" if an earlier version did."""
    format: int = FORMAT_VERSION


class LoggedChange(Struct, frozen=True, array_like=True):
    """A change in the log."""

    service: str
    id: str
    change: msgspec.Raw
    number: int = 0
    """Its index in the batch. Earlier versions did not write it."""


class LogEntryRecord(Struct, frozen=True, omit_defaults=True):
    """The changes of one service in one part of a batch."""

    changes: list[LoggedChange]
    part: int = 1
    parts: int = 1


@dataclass(frozen=True, slots=True)
class BatchPart:
    """The contents of one transaction without the head and the log entries."""

    operations: tuple[Put | Delete, ...]
    deletions: dict[str, ProvenanceRecord]
    log: Mapping[str, list[LoggedChange]]
    """Service → its changes for the log."""
    departed: tuple[str, ...]
    """Services that instances are removed from."""
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
        """Returns the instance or document of a key of the catalog; None for any other key."""
        kind, _, rest = key.removeprefix(self.catalog).decode(errors="replace").partition("/")
        first, slash, last = rest.partition("/")
        if not slash:
            return None
        if kind == "instances":
            return Key(first, last)
        if kind == "documents":
            return next((DocumentKey(known, last) for known in DocumentKind if known.value == first), None)
        return None

    def departed_service(self, key: bytes) -> str | None:
        """Returns the service of a `departures` key; None for any other key."""
        return self.forgotten_service(key.removeprefix(self.catalog).decode(errors="replace"))

    def forgotten_service(self, path: str) -> str | None:
        """Returns the service that is forgotten when the key at that path is deleted; None for any other path."""
        kind, _, service = path.partition("/")
        return service if kind == "departures" else None

    def departure_key(self, service: str) -> bytes:
        return self.key(Key(service, ""))

    def path(self, subject: Key | DocumentKey) -> str:
        """Returns the path of a key below `catalog`. A `Key` with an empty id stands for the service's departures."""
        first, last = subject
        if isinstance(subject, DocumentKey):
            return f"documents/{first}/{last}"
        return f"instances/{first}/{last}" if last else f"departures/{first}"

    def key(self, subject: Key | DocumentKey) -> bytes:
        return self.catalog + self.path(subject).encode()

    def log_key(self, base_revision: int, service: str, count: int) -> bytes:
        """Returns the key of a log entry. Keys sort in the order of batches. `service` is "" for several services."""
        return self.log + "/".join(filter(None, (f"{base_revision:016x}", service, str(count)))).encode()

    def parse_log_key(self, key: bytes) -> tuple[str, int]:
        """Returns the service of an entry ("" for several services) and its number of changes. Raises `ValueError`."""
        base_and_service, _, count = key.removeprefix(self.log).decode().rpartition("/")
        return base_and_service.partition("/")[2], int(count)

    def edit_key(self, document: DocumentKey, base_revision: int) -> bytes:
        """Returns the key of a batch's edits of a document. Keys sort in the order of the edits of one document."""
        return self.edits + f"{document.kind}/{document.name}/{base_revision:016x}".encode()

    def parse_edit_key(self, key: bytes) -> DocumentKey:
        """Returns the document of an edit key. Raises `ValueError`."""
        kind, name, _ = key.removeprefix(self.edits).decode().split("/")
        return DocumentKey(DocumentKind(kind), name)

    def parts(self, changes: Sequence[Change], edits: Sequence[Edit], base_revision: int) -> list[BatchPart]:
        """Splits a batch into parts that fit into one transaction each.

        Raises `UnicodeEncodeError` for a text that is not valid Unicode.
        """
        # Changes come last: history gives a batch the revision of its last part, so that part must have log entries.
        return self._split([*self._edit_facts(edits, base_revision), *self._change_facts(changes)])

    def _change_facts(self, changes: Sequence[Change]) -> list[_Fact]:
        """Returns the facts of changes. Only the last change of an instance writes its key.

        A transaction may write a key only once. So also only the last removal or forgetting of a service writes the
        `departures` key.
        """
        last = {change.key: number for number, change in enumerate(changes)}
        forgets = {change.key.service: change.forgets_service for change in changes if change.listing is None}
        facts = []
        for number, change in enumerate(changes):
            logged = LoggedChange(*change.key, msgspec.Raw(records.encode_change(change)), number)
            service = change.key.service
            is_effective = last[change.key] == number and (forgets.get(service, False) or not change.forgets_service)
            key = self.key(change.key)
            if not is_effective:
                facts.append(_Fact(None, logged))
            elif change.listing is None:
                deletion = self.path(change.key), ProvenanceRecord.from_provenance(change.provenance)
                departed = "" if forgets[service] else service
                forgotten = service if change.forgets_service else ""
                facts.append(_Fact(Delete(key), logged, deletion, departed, forgotten))
            else:
                facts.append(_Fact(Put(key, records.encode_listing(change.listing)), logged))
        return facts

    def _edit_facts(self, edits: Sequence[Edit], base_revision: int) -> list[_Fact]:
        """Returns the facts of edits. Only the last edit of a document writes its key; history has all edits."""
        edits_by_document: dict[DocumentKey, list[Edit]] = {}
        for edit in edits:
            edits_by_document.setdefault(edit.key, []).append(edit)
        facts = []
        for key, document_edits in edits_by_document.items():
            last = document_edits[-1]
            # The bound keeps the value small for etcd.
            recorded = [edit for edit in document_edits if edit.is_recorded][-documents.MAX_EDITS_PER_DOCUMENT :]
            value = msgspec.json.encode([*map(edit_record, recorded)])
            history = Put(self.edit_key(key, base_revision), value) if recorded else None
            if last.document is None:
                deletion = self.path(key), ProvenanceRecord.from_provenance(last.provenance)
                facts.append(_Fact(Delete(self.key(key)), None, deletion, history=history))
            else:
                facts.append(_Fact(Put(self.key(key), records.encode_document(last.document)), history=history))
        return facts

    def _split(self, facts: Sequence[_Fact]) -> list[BatchPart]:
        parts: list[list[_Fact]] = [[]]
        departed, logged = {""}, {""}
        operations = size = 0
        for fact in facts:
            needed = self._needed_operations(fact, departed, logged)
            if parts[-1] and (
                operations + needed > MAX_OPERATIONS_PER_TRANSACTION or size + fact.size > MAX_BYTES_PER_TRANSACTION
            ):
                parts.append([])
                departed, logged = {""}, {""}
                operations = size = 0
                needed = self._needed_operations(fact, departed, logged)
            parts[-1].append(fact)
            departed.add(fact.departed)
            logged.add(fact.service)
            operations += needed
            size += fact.size
        return [self._part(part) for part in parts]

    def _needed_operations(self, fact: _Fact, departed: Set[str], logged: Set[str]) -> int:
        """Returns how many operations a fact adds to a part.

        `departed` and `logged` are the services whose departures and log entries the part writes already.
        """
        own = (fact.operation is not None) + (fact.history is not None)
        return own + (fact.departed not in departed) + (fact.service not in logged)

    def _part(self, facts: Sequence[_Fact]) -> BatchPart:
        departures = {fact.departed: Put(self.departure_key(fact.departed), b"") for fact in facts if fact.departed}
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
            dict(fact.deletion for fact in facts if fact.deletion is not None),
            log,
            tuple(departures),
            tuple(fact.forgotten for fact in facts if fact.forgotten),
        )


class _Fact(Struct, frozen=True):
    """The operations of one change or of all edits of one document, which belong into one transaction."""

    operation: Put | Delete | None
    logged: LoggedChange | None = None
    deletion: tuple[str, ProvenanceRecord] | None = None
    """The path of the key that is deleted, and the provenance of the deletion."""
    departed: str = ""
    """The service that the instance is removed from."""
    forgotten: str = ""
    """The service that is forgotten."""
    history: Put | None = None
    """The edits of the document, for history."""

    @property
    def service(self) -> str:
        """The service in whose log entry the change is; "" if it is in none."""
        return self.logged.service if self.logged is not None else ""

    @property
    def size(self) -> int:
        """The estimated bytes of the fact in a request."""
        values = sum(len(put.value) for put in (self.operation, self.history) if isinstance(put, Put))
        return values + (len(self.logged.change) if self.logged is not None else 0) + 512
