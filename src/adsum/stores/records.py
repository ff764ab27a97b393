"""Listings and changes as stores write them: JSON that later versions must be able to read."""

from __future__ import annotations

from types import MappingProxyType

import msgspec
from msgspec import Struct

from adsum.core.changes import Change, Recorded
from adsum.core.model import Cause, Key, LeaseState, Listing, Override, Status, Why
from adsum.wire import RegistrationBody


class WhyRecord(Struct, frozen=True, omit_defaults=True):
    """Why a listing stands as it does."""

    cause: Cause
    actor: str
    reason: str = ""
    at: float = 0.0

    @staticmethod
    def of(why: Why) -> WhyRecord:
        return WhyRecord(why.cause, why.actor, why.reason, why.at)

    def to_why(self) -> Why:
        return Why(self.cause, self.actor, self.reason, self.at)


class OverrideRecord(Struct, frozen=True, omit_defaults=True):
    """A declared status."""

    status: Status
    author: str
    reason: str = ""
    length: float | None = None
    holder: str | None = None
    at: float = 0.0

    @staticmethod
    def of(override: Override) -> OverrideRecord:
        return OverrideRecord(
            override.status, override.author, override.reason, override.length, override.holder, override.at
        )

    def to_override(self) -> Override:
        return Override(self.status, self.author, self.reason, self.length, self.holder, self.at)


class ListingRecord(Struct, frozen=True, omit_defaults=True):
    """Everything of a listing but its service and id."""

    registration: RegistrationBody
    why: WhyRecord
    lease: LeaseState = LeaseState.HELD
    checks: dict[str, Status] = {}
    override: OverrideRecord | None = None
    since: float = 0.0


class ChangeRecord(Struct, frozen=True, omit_defaults=True):
    """A change as history keeps it, without its revision and key."""

    why: WhyRecord
    status: str = ""


_LISTING = msgspec.json.Decoder(ListingRecord)
_CHANGE = msgspec.json.Decoder(ChangeRecord)
_ENCODER = msgspec.json.Encoder()


def write_listing(listing: Listing) -> bytes:
    """The record of a listing."""
    return _ENCODER.encode(
        ListingRecord(
            RegistrationBody.of(listing.registration),
            WhyRecord.of(listing.why),
            listing.lease,
            dict(listing.checks),
            OverrideRecord.of(listing.override) if listing.override is not None else None,
            listing.since,
        )
    )


def read_listing(key: Key, body: bytes) -> Listing:
    """The listing of a record. Raises `msgspec.DecodeError` or `Invalid` if it is none."""
    record = _LISTING.decode(body)
    return Listing(
        record.registration.to_registration(key.service, key.id, ""),
        record.why.to_why(),
        record.lease,
        MappingProxyType(record.checks),
        record.override.to_override() if record.override is not None else None,
        record.since,
    )


def write_change(change: Change) -> bytes:
    """The record of a change, for history."""
    status = change.listing.status.value if change.listing is not None else ""
    return _ENCODER.encode(ChangeRecord(WhyRecord.of(change.why), status))


def read_change(revision: int, key: Key, body: bytes) -> Recorded:
    """The change of a record. Raises `msgspec.DecodeError` if it is none."""
    record = _CHANGE.decode(body)
    return Recorded(revision, key, record.status, record.why.to_why())
