"""The JSON records of listings, documents and changes in stores. Every later version must be able to read them.

A field that has its default is not written. So the defaults here never change, whatever the defaults of the model and
of the wire become. Unknown fields are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import Raw, Struct

from adsum.core.catalog.changes import Change
from adsum.core.catalog.documents import Document
from adsum.core.instance_texts import MAX_CACHED_SETS, MAX_CACHED_TEXTS
from adsum.core.model import Check, CheckKind, LeaseState, Listing, Override, Registration, Status
from adsum.core.provenance import Cause, Provenance

_ARRAY: Final = Raw(b"[]")
_OBJECT: Final = Raw(b"{}")


class CheckRecord(Struct, frozen=True, omit_defaults=True):
    """A check of a registration."""

    name: str
    kind: CheckKind
    interval: float = 10.0
    timeout: float = 2.0
    rise: int = 2
    fall: int = 3
    port: int | None = None
    path: str = "/"
    method: str = "GET"
    headers: dict[str, str] = {}
    expect: tuple[tuple[int, int], ...] = ((200, 299),)
    grpc_service: str = ""
    tls: bool = False

    @staticmethod
    def from_check(check: Check) -> CheckRecord:
        return CheckRecord(
            check.name,
            check.kind,
            check.interval,
            check.timeout,
            check.rise,
            check.fall,
            check.port,
            check.path,
            check.method,
            dict(check.headers),
            check.expect,
            check.grpc_service,
            check.tls,
        )


class RegistrationRecord(Struct, frozen=True, omit_defaults=True):
    """A registration without its service and id.

    `tags` (an array of strings), `metadata` (an object of strings) and `checks` (an array of `CheckRecord`) stay raw:
    many instances have them in common, and they are decoded once.
    """

    address: str
    port: int
    scheme: str = "http"
    zone: str = ""
    weight: int = 1
    tags: Raw = _ARRAY
    metadata: Raw = _OBJECT
    ttl: float | None = 15.0
    grace: float = 60.0
    checks: Raw = _ARRAY
    holder: str = ""

    @staticmethod
    def from_registration(registration: Registration) -> RegistrationRecord:
        instance = registration.instance
        return RegistrationRecord(
            instance.address,
            instance.port,
            instance.scheme,
            instance.zone,
            instance.weight,
            _tags(instance.tags) if instance.tags else _ARRAY,
            _metadata(instance.metadata) if instance.metadata else _OBJECT,
            registration.ttl,
            registration.grace,
            _raw([CheckRecord.from_check(check) for check in registration.checks]) if registration.checks else _ARRAY,
            registration.holder,
        )


class ProvenanceRecord(Struct, frozen=True, omit_defaults=True):
    """The provenance of a listing, a document or a change."""

    cause: Cause
    actor: str
    reason: str = ""
    at: float = 0.0
    peer: str = ""
    claimed: str = ""

    @staticmethod
    def from_provenance(provenance: Provenance) -> ProvenanceRecord:
        return ProvenanceRecord(
            provenance.cause,
            provenance.actor,
            provenance.reason,
            provenance.at,
            provenance.peer,
            provenance.claimed,
        )


class OverrideRecord(Struct, frozen=True, omit_defaults=True):
    """A declared status."""

    status: Status
    author: str
    reason: str = ""
    length: float | None = None
    holder: str | None = None
    at: float = 0.0

    @staticmethod
    def from_override(override: Override) -> OverrideRecord:
        return OverrideRecord(
            override.status, override.author, override.reason, override.length, override.holder, override.at
        )


class ListingRecord(Struct, frozen=True, omit_defaults=True):
    """A listing without its service and id. `checks` is a raw object: check name → status."""

    registration: RegistrationRecord
    why: ProvenanceRecord
    lease: LeaseState = LeaseState.HELD
    checks: Raw = _OBJECT
    override: OverrideRecord | None = None
    since: float = 0.0
    owner: str = ""


class DocumentRecord(Struct, frozen=True):
    """A document without its key."""

    body: Raw = msgspec.field(name="says")
    why: ProvenanceRecord


class ChangeRecord(Struct, frozen=True, omit_defaults=True):
    """A recorded change without its revision and key. `status` is "" if the instance was removed."""

    why: ProvenanceRecord
    status: str = ""


_ENCODER: Final = msgspec.json.Encoder()


def encode_listing(listing: Listing) -> bytes:
    """Returns the record of a listing. Raises `UnicodeEncodeError` for a text that is not valid Unicode."""
    return _ENCODER.encode(
        ListingRecord(
            RegistrationRecord.from_registration(listing.registration),
            ProvenanceRecord.from_provenance(listing.provenance),
            listing.lease,
            _raw(dict(listing.checks)) if listing.checks else _OBJECT,
            OverrideRecord.from_override(listing.override) if listing.override is not None else None,
            listing.since,
            listing.owner,
        )
    )


def encode_document(document: Document) -> bytes:
    """Returns the record of a document. Raises `UnicodeEncodeError` for a text that is not valid Unicode."""
    return _ENCODER.encode(DocumentRecord(Raw(document.body), ProvenanceRecord.from_provenance(document.provenance)))


def encode_change(change: Change) -> bytes:
    """Returns the record of a change. Raises `UnicodeEncodeError` for a text that is not valid Unicode."""
    status = change.listing.status.value if change.listing is not None else ""
    return _ENCODER.encode(ChangeRecord(ProvenanceRecord.from_provenance(change.provenance), status))


def _raw(value: object) -> Raw:
    return Raw(_ENCODER.encode(value))


def _tags(tags: Sequence[str]) -> Raw:
    is_small = type(tags) is tuple and len(tags) <= MAX_CACHED_TEXTS
    return _cached_tags(tags) if is_small else _raw(tags)


def _metadata(metadata: Mapping[str, str]) -> Raw:
    if len(metadata) > MAX_CACHED_TEXTS:
        return _raw(dict(metadata))
    return _cached_metadata(tuple(metadata.items()))


@lru_cache(MAX_CACHED_SETS)
def _cached_tags(tags: tuple[str, ...]) -> Raw:
    return _raw(tags)


@lru_cache(MAX_CACHED_SETS)
def _cached_metadata(pairs: tuple[tuple[str, str], ...]) -> Raw:
    return _raw(dict(pairs))
