"""Decodes records into the model's values.

A catalog is mostly repetition, so equal parts of listings are decoded once and shared.
"""

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
from adsum.wire import interning

T = TypeVar("T")

MAX_CACHED_BYTES: Final = 16 * 1024 * 1024
"""Bytes of encoded values that each cache of decoded values holds. Past it the cache is emptied."""

_LISTING: Final = msgspec.json.Decoder(ListingRecord)
_CHANGE: Final = msgspec.json.Decoder(ChangeRecord)
_DOCUMENT: Final = msgspec.json.Decoder(DocumentRecord)
_TEXTS: Final = msgspec.json.Decoder(tuple[str, ...])
_PAIRS: Final = msgspec.json.Decoder(dict[str, str])
_CHECKS: Final = msgspec.json.Decoder(tuple[CheckRecord, ...])
_STATUSES: Final = msgspec.json.Decoder(dict[str, Status])


class RecordDecoder:
    """Decodes the listings of one catalog; listings share equal tags, metadata, checks, statuses and durations."""

    def __init__(self) -> None:
        self._tags = _DecodeCache(_TEXTS.decode)
        self._metadata = _DecodeCache(lambda body: model.freeze(_PAIRS.decode(body)))
        self._checks = _DecodeCache(lambda body: tuple(map(_to_check, _CHECKS.decode(body))))
        self._check_statuses = _DecodeCache(lambda body: MappingProxyType(_STATUSES.decode(body)))
        self._durations: dict[float, float] = {}

    def decode_listing(self, service: str, id: str, body: bytes) -> Listing:
        """Returns the listing of a record. Raises `msgspec.DecodeError`, and `Invalid` if a value breaks a rule."""
        record = _LISTING.decode(body)
        provenance = decode_provenance(record.why)
        return Listing(
            self._registration(service, id, record.registration),
            provenance,
            record.lease,
            self._check_statuses[bytes(record.checks)],
            _to_override(record.override) if record.override is not None else None,
            provenance.at if record.since == provenance.at else record.since,
            intern(record.owner),
        )

    def _registration(self, service: str, id: str, record: RegistrationRecord) -> Registration:
        instance = Instance(
            intern(service),
            id,
            interning.intern_address(record.address),
            interning.intern_number(record.port),
            intern(record.scheme),
            intern(record.zone),
            record.weight,
            self._tags[bytes(record.tags)],
            self._metadata[bytes(record.metadata)],
        )
        return Registration(
            instance,
            None if record.ttl is None else self._shared_duration(record.ttl),
            self._shared_duration(record.grace),
            self._checks[bytes(record.checks)],
            record.holder,
        )

    def _shared_duration(self, duration: float) -> float:
        return self._durations.setdefault(duration, duration)


class _DecodeCache(dict[bytes, T]):
    """A cache of decoded values by their encoded form, of at most `MAX_CACHED_BYTES`."""

    def __init__(self, decode: Callable[[bytes], T]) -> None:
        super().__init__()
        self._decode = decode
        self._size = 0

    def __missing__(self, body: bytes) -> T:
        self._size += len(body) + TEXT_OVERHEAD_BYTES
        if self._size > MAX_CACHED_BYTES:
            self.clear()
            self._size = len(body) + TEXT_OVERHEAD_BYTES
        value = self[body] = self._decode(body)
        return value


def decode_document(kind: str, name: str, body: bytes) -> Document:
    """Returns the document of a record. Raises `DecodeError`, `ValueError` for an unknown kind, and `Invalid`."""
    record = _DOCUMENT.decode(body)
    return Document(DocumentKey(DocumentKind(kind), name), bytes(record.body), decode_provenance(record.why))


def decode_change(revision: int, key: Key, body: bytes) -> RecordedChange:
    """Returns the recorded change of a record. Raises `msgspec.DecodeError`."""
    record = _CHANGE.decode(body)
    return RecordedChange(revision, key, record.status, decode_provenance(record.why))


def decode_provenance(record: ProvenanceRecord) -> Provenance:
    """Returns the provenance of a record."""
    return Provenance(
        record.cause, intern(record.actor), record.reason, record.at, intern(record.peer), intern(record.claimed)
    )


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
