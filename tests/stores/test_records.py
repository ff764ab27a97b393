from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings

from adsum.core.catalog.changes import Change, RecordedChange
from adsum.core.errors import Invalid
from adsum.core.model import Check, CheckKind, Instance, Key, LeaseState, Listing, Override, Registration, Status
from adsum.core.provenance import Cause, Provenance
from adsum.stores.record_decoder import RecordDecoder, decode_change
from adsum.stores.records import ProvenanceRecord, encode_change, encode_listing
from tests.support import strategies

# What version 1 wrote. Every later version must read it as this, so it is never edited.
FULL = (
    b'{"registration":{"address":"10.0.0.1","port":8000,"scheme":"https","zone":"a","weight":3,"tags":["v2"],'
    b'"metadata":{"team":"x"},"ttl":30.0,"grace":5.0,"checks":[{"name":"web","kind":"http","interval":5.0,'
    b'"timeout":1.0,"rise":1,"fall":4,"port":8001,"path":"/h","method":"HEAD","headers":{"X-A":"b"},'
    b'"expect":[[200,204]],"grpc_service":"g","tls":true}],"holder":"h1"},"why":{"cause":"drained","actor":"ann",'
    b'"reason":"deploy","at":1700000000.5},"lease":"lapsed","checks":{"web":"critical"},"override":{"status":'
    b'"draining","author":"ann","reason":"deploy","length":60.0,"holder":"h1","at":1700000000.5},"since":1700000000.5}'
)
LEAST = b'{"registration":{"address":"10.0.0.1","port":8000},"why":{"cause":"registered","actor":"x"}}'


@given(strategies.listings())
@settings(max_examples=50)
def test_a_listing_is_read_as_it_was_written(listing: Listing) -> None:
    assert RecordDecoder().decode_listing(*listing.key, encode_listing(listing)) == listing


@given(strategies.listings(), strategies.listings())
@settings(max_examples=30)
def test_a_shared_decoder_decodes_listings_as_a_new_one_does(one: Listing, other: Listing) -> None:
    decoder = RecordDecoder()
    for listing in (one, other, one):
        assert decoder.decode_listing(*listing.key, encode_listing(listing)) == listing


@given(strategies.changes())
@settings(max_examples=50)
def test_a_recorded_change_is_read_as_it_was_written(change: Change) -> None:
    status = change.listing.status.value if change.listing is not None else ""
    assert decode_change(7, change.key, encode_change(change)) == RecordedChange(
        7, change.key, status, change.provenance
    )


def test_equal_parts_of_listings_are_one_value() -> None:
    decoder = RecordDecoder()
    one, other = decoder.decode_listing("orders", "o1", FULL), decoder.decode_listing("orders", "o2", FULL)
    for part in ("checks", "ttl", "grace"):
        assert getattr(one.registration, part) is getattr(other.registration, part)
    for part in ("service", "address", "port", "tags", "metadata", "zone"):
        assert getattr(one.instance, part) is getattr(other.instance, part)
    assert one.checks is other.checks


def test_records_of_the_first_version_can_be_read() -> None:
    check = Check("web", CheckKind.HTTP, 5.0, 1.0, 1, 4, 8001, "/h", "HEAD", {"X-A": "b"}, ((200, 204),), "g", tls=True)
    instance = Instance("orders", "o1", "10.0.0.1", 8000, "https", "a", 3, ("v2",), {"team": "x"})
    at = 1_700_000_000.5
    listing = Listing(
        Registration(instance, 30.0, 5.0, (check,), "h1"),
        Provenance(Cause.DRAINED, "ann", "deploy", at),
        LeaseState.LAPSED,
        {"web": Status.CRITICAL},
        Override(Status.DRAINING, "ann", "deploy", 60.0, "h1", at),
        at,
    )
    assert RecordDecoder().decode_listing("orders", "o1", FULL) == listing
    assert encode_listing(listing) == FULL


def test_a_missing_field_has_the_default_of_the_first_version() -> None:
    listing = RecordDecoder().decode_listing("orders", "o1", LEAST)
    assert listing == Listing(
        Registration(Instance("orders", "o1", "10.0.0.1", 8000), ttl=15.0, grace=60.0),
        Provenance(Cause.REGISTERED, "x"),
    )


def test_a_record_of_version_0_2_has_no_owner_and_no_claimed_actor() -> None:
    listing = RecordDecoder().decode_listing("orders", "o1", FULL)
    assert (listing.owner, listing.provenance.peer, listing.provenance.claimed) == ("", "", "")


def test_a_record_without_owner_and_claim_is_written_as_version_0_2_wrote_it() -> None:
    for body in (FULL, LEAST):
        listing = RecordDecoder().decode_listing("orders", "o1", body)
        for field in (b'"owner"', b'"claimed"', b'"peer"'):
            assert field not in encode_listing(listing)


def test_fields_of_a_later_version_are_ignored() -> None:
    added = LEAST.replace(b'"port":8000', b'"port":8000,"colour":"blue"').replace(
        b'{"registration"', b'{"x":[],"registration"'
    )
    assert RecordDecoder().decode_listing("orders", "o1", added) == RecordDecoder().decode_listing(
        "orders", "o1", LEAST
    )


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", LEAST[:-1], LEAST.replace(b"8000", b'"http"')])
def test_anything_but_a_record_is_refused(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        RecordDecoder().decode_listing("orders", "o1", body)


def test_a_record_that_breaks_a_rule_is_refused() -> None:
    with pytest.raises(Invalid, match="port"):
        RecordDecoder().decode_listing("orders", "o1", LEAST.replace(b"8000", b"80000"))


def test_a_record_does_not_contain_its_key() -> None:
    assert RecordDecoder().decode_listing("other", "o9", LEAST).key == Key("other", "o9")


def test_a_cause_of_a_later_version_becomes_unknown() -> None:
    known = msgspec.json.decode(b'{"cause":"of-a-later-version","actor":"ann"}', type=ProvenanceRecord)
    assert (known.cause, known.actor) == (Cause.UNKNOWN, "ann")
