"""Records become the model's values again. A catalog is mostly repetition: what is equal is read once and shared."""

from __future__ import annotations

from collections.abc import Callable
from sys import intern
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec

from adsum.core import model
from adsum.core.catalog.changes import RecordedChange
from adsum.core.catalog.documents import Document, DocumentKey, DocumentKind
from adsum.core.memory_sizes import TEXT_OVERHEAD_BYTES
from adsum.core.model import Check, Instance, Key, Listing, Override, Registration, Status
from adsum.core.provenance import Provenance
from adsum.stores.records import (
    ChangeRecord,
    CheckRecord,
    DocumentRecord,
    ListingRecord,
    OverrideRecord,
    ProvenanceRecord,
    RegistrationRecord,
)

T = TypeVar("T")

MAX_CACHED_BYTES: Final = 16 * 1024 * 1024
"""Bytes of texts whose meaning is remembered, of each kind; past it all of them are forgotten, and read anew when they
are met again."""

_LISTING: Final = msgspec.json.Decoder(ListingRecord)
_CHANGE: Final = msgspec.json.Decoder(ChangeRecord)
_DOCUMENT: Final = msgspec.json.Decoder(DocumentRecord)
_TEXTS: Final = msgspec.json.Decoder(tuple[str, ...])
_PAIRS: Final = msgspec.json.Decoder(dict[str, str])
_CHECKS: Final = msgspec.json.Decoder(tuple[CheckRecord, ...])
_STANDINGS: Final = msgspec.json.Decoder(dict[str, Status])


class RecordDecoder:
    """Reads listings that belong together."""

    def __init__(self) -> None:
        self._tags = _Shared(_TEXTS.decode)
        self._metadata = _Shared(lambda body: model.freeze(_PAIRS.decode(body)))
        self._checks = _Shared(lambda body: tuple(map(_to_check, _CHECKS.decode(body))))
        self._standings = _Shared(lambda body: MappingProxyType(_STANDINGS.decode(body)))
        self._lengths: dict[float, float] = {}

    def decode_listing(self, service: str, id: str, body: bytes) -> Listing:
        """The listing of a record. Raises `msgspec.DecodeError`, or `Invalid` if the model would not have it."""
        record = _LISTING.decode(body)
        why = decode_provenance(record.why)
        return Listing(
            self._registration(service, id, record.registration),
            why,
            record.lease,
            self._standings[bytes(record.checks)],
            _to_override(record.override) if record.override is not None else None,
            why.at if record.since == why.at else record.since,
        )

    def _registration(self, service: str, id: str, record: RegistrationRecord) -> Registration:
        instance = Instance(
            intern(service),
            id,
            intern(record.address),
            record.port,
            intern(record.scheme),
            intern(record.zone),
            record.weight,
            self._tags[bytes(record.tags)],
            self._metadata[bytes(record.metadata)],
        )
        return Registration(
            instance,
            None if record.ttl is None else self._length(record.ttl),
            self._length(record.grace),
            self._checks[bytes(record.checks)],
            record.holder,
        )

    def _length(self, length: float) -> float:
        return self._lengths.setdefault(length, length)


class _Shared(dict[bytes, T]):
    """What each text means, read when it is first met, or again after so many others."""

    def __init__(self, read: Callable[[bytes], T]) -> None:
        super().__init__()
        self._read = read
        self._size = 0

    def __missing__(self, body: bytes) -> T:
        self._size += len(body) + TEXT_OVERHEAD_BYTES
        if self._size > MAX_CACHED_BYTES:
            self.clear()
            self._size = len(body) + TEXT_OVERHEAD_BYTES
        value = self[body] = self._read(body)
        return value


def decode_document(kind: str, name: str, body: bytes) -> Document:
    """The document of a record. Raises `msgspec.DecodeError`, `ValueError` for an unknown kind, and `Invalid`."""
    record = _DOCUMENT.decode(body)
    return Document(DocumentKey(DocumentKind(kind), name), bytes(record.says), decode_provenance(record.why))


def decode_change(revision: int, key: Key, body: bytes) -> RecordedChange:
    """The change of a record. Raises `msgspec.DecodeError`."""
    record = _CHANGE.decode(body)
    return RecordedChange(revision, key, record.status, decode_provenance(record.why))


def decode_provenance(record: ProvenanceRecord) -> Provenance:
    """Why something stands as it does."""
    return Provenance(record.cause, intern(record.actor), record.reason, record.at, intern(record.peer))


def _to_override(record: OverrideRecord) -> Override:
    return Override(record.status, record.author, record.reason, record.length, record.holder, record.at)


def _to_check(record: CheckRecord) -> Check:
    return Check(
        record.name,
        record.kind,
        record.interval,
        record.timeout,
        record.rise,
        record.fall,
        record.port,
        record.path,
        record.method,
        model.freeze(record.headers),
        record.expect,
        record.grpc_service,
        record.tls,
    )
