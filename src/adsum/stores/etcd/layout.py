"""Where everything is kept in etcd, and how a batch is told to other nodes. Pure.

    PREFIX/catalog/head                         what the newest batch was: written with every batch
    PREFIX/catalog/instances/SERVICE/ID         a listing
    PREFIX/catalog/documents/KIND/NAME          what was declared beside the catalog
    PREFIX/catalog/departures/SERVICE           an instance left the service: it stays known, though all may have left
    PREFIX/log/BASIS/COUNT                      the changes of the batch decided on that revision, for history
    PREFIX/cluster/…                            which nodes there are, and what each keeps: see `presence`

A batch is one transaction, conditional on the head: so batches have one order, and none is decided on an old catalog.
Its revision is etcd's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec import Struct

from adsum.core.changes import Change
from adsum.core.documents import DocumentKind, Edit, Title
from adsum.core.model import Cause, Key, Why
from adsum.etcd.values import Delete, Put
from adsum.stores import records
from adsum.stores.records import WhyRecord

FORMAT: Final = 1
"""Of everything below the prefix; a node refuses to serve from a later one."""
MOST_OPERATIONS: Final = 120
"""What facts make of one transaction; etcd takes 128 unless told otherwise. A larger batch is written in parts."""
MOST_BYTES: Final = 1024 * 1024
"""Bytes of them; etcd takes 1.5 MiB a request."""
SOMEBODY: Final = Why(Cause.DEREGISTERED, "etcd", "its key was deleted in etcd")
"""Why an instance is gone whose key somebody deleted past the registry."""


class Head(Struct, frozen=True, omit_defaults=True):
    """What the newest batch was. `batch` names it, so that a writer that got no answer finds out what became of it."""

    epoch: str
    batch: str
    basis: int = 0
    """The revision that it was decided on."""
    count: int = 0
    """How many changes its entry in the log has."""
    part: int = 1
    parts: int = 1
    """Of a batch too large for one transaction: followers wait for its last part."""
    gone: dict[str, WhyRecord] = {}
    """Why each key that was deleted is gone, by the end of its path."""
    format: int = FORMAT


class Logged(Struct, frozen=True, array_like=True):
    """A change in the log."""

    service: str
    id: str
    change: msgspec.Raw


class Log(Struct, frozen=True, omit_defaults=True):
    """The changes of one part of a batch."""

    changes: list[Logged]
    part: int = 1
    parts: int = 1


@dataclass(frozen=True, slots=True)
class Part:
    """What one transaction writes, but for the head."""

    operations: tuple[Put | Delete, ...]
    gone: dict[str, WhyRecord]
    log: tuple[Logged, ...]
    left: tuple[str, ...]
    """Services that instances left."""
    forgotten: tuple[str, ...]
    """Services that are no longer known."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The keys below one prefix, which ends with a slash."""

    prefix: bytes
    catalog: bytes = field(init=False)
    log: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "catalog", self.prefix + b"catalog/")
        object.__setattr__(self, "log", self.prefix + b"log/")

    @property
    def head(self) -> bytes:
        return self.catalog + b"head"

    def subject(self, key: bytes) -> Key | Title | None:
        """What a key of the catalog is about; None if nothing of ours."""
        room, _, rest = key.removeprefix(self.catalog).decode(errors="replace").partition("/")
        first, slash, last = rest.partition("/")
        if not slash:
            return None
        if room == "instances":
            return Key(first, last)
        if room == "documents":
            return next((Title(kind, last) for kind in DocumentKind if kind.value == first), None)
        return None

    def departed(self, key: bytes) -> str | None:
        """The service that instances left, of the key that says so."""
        return self.forgotten(key.removeprefix(self.catalog).decode(errors="replace"))

    def forgotten(self, path: str) -> str | None:
        """The service that is forgotten when the key at that path is deleted."""
        room, _, service = path.partition("/")
        return service if room == "departures" else None

    def departure(self, service: str) -> bytes:
        return self.key(Key(service, ""))

    def path(self, subject: Key | Title) -> str:
        """The end of its key's path, behind `catalog`."""
        first, last = subject
        if isinstance(subject, Title):
            return f"documents/{first}/{last}"
        return f"instances/{first}/{last}" if last else f"departures/{first}"

    def key(self, subject: Key | Title) -> bytes:
        return self.catalog + self.path(subject).encode()

    def log_key(self, basis: int, count: int) -> bytes:
        """In the order of batches, and telling how many changes it has without being read."""
        return self.log + f"{basis:016x}/{count}".encode()

    def log_count(self, key: bytes) -> int:
        return int(key.rpartition(b"/")[2])

    def parts(self, changes: Sequence[Change], edits: Sequence[Edit]) -> list[Part]:
        """A batch cut into what one transaction can take. Raises `UnicodeEncodeError` for a text that is none."""
        return self._cut([*self._of_changes(changes), *(self._of_edit(edit) for edit in edits)])

    def _of_changes(self, changes: Sequence[Change]) -> list[_Fact]:
        """A key may be written once in a transaction: the last change of an instance counts.

        So does the last that says whether instances left a service, or that it was forgotten.
        """
        last = {change.key: number for number, change in enumerate(changes)}
        gone = {change.key.service: change.forgets for change in changes if change.listing is None}
        facts = []
        for number, change in enumerate(changes):
            logged = Logged(*change.key, msgspec.Raw(records.write_change(change)))
            service = change.key.service
            counts = last[change.key] == number and (gone.get(service, False) or not change.forgets)
            key = self.key(change.key)
            if not counts:
                facts.append(_Fact(None, logged))
            elif change.listing is None:
                why = self.path(change.key), WhyRecord.of(change.why)
                left, forgotten = ("" if gone[service] else service), (service if change.forgets else "")
                facts.append(_Fact(Delete(key), logged, why, left, forgotten))
            else:
                facts.append(_Fact(Put(key, records.write_listing(change.listing)), logged))
        return facts

    def _of_edit(self, edit: Edit) -> _Fact:
        if edit.document is None:
            return _Fact(Delete(self.key(edit.title)), None, (self.path(edit.title), WhyRecord.of(edit.why)))
        return _Fact(Put(self.key(edit.title), records.write_document(edit.document)))

    def _cut(self, facts: Sequence[_Fact]) -> list[Part]:
        parts: list[list[_Fact]] = [[]]
        left = {""}
        operations = size = 0
        for fact in facts:
            needed = (fact.operation is not None) + (fact.left not in left)
            if parts[-1] and (operations + needed > MOST_OPERATIONS or size + fact.size > MOST_BYTES):
                parts.append([])
                left = {""}
                operations = size = 0
            parts[-1].append(fact)
            left.add(fact.left)
            operations += needed
            size += fact.size
        return [self._part(part) for part in parts]

    def _part(self, facts: Sequence[_Fact]) -> Part:
        departures = {fact.left: Put(self.departure(fact.left), b"") for fact in facts if fact.left}
        return Part(
            (*(fact.operation for fact in facts if fact.operation is not None), *departures.values()),
            dict(fact.gone for fact in facts if fact.gone is not None),
            tuple(fact.logged for fact in facts if fact.logged is not None),
            tuple(departures),
            tuple(fact.forgotten for fact in facts if fact.forgotten),
        )


@dataclass(frozen=True, slots=True)
class _Fact:
    operation: Put | Delete | None
    logged: Logged | None = None
    gone: tuple[str, WhyRecord] | None = None
    left: str = ""
    """The service that an instance left."""
    forgotten: str = ""
    """The service that is no longer known."""

    @property
    def size(self) -> int:
        written = len(self.operation.value) if isinstance(self.operation, Put) else 0
        return written + (len(self.logged.change) if self.logged is not None else 0) + 512
