"""Services as JSON: an updated page equals a new one, and shares what did not change."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adsum import wire
from adsum.core.catalog import snapshots
from adsum.core.catalog.changes import Batch, Change, FullState
from adsum.core.catalog.segmented_mapping import segments_of
from adsum.core.catalog.service_snapshot import ServiceSnapshot
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.model import Instance, Listing, Registration
from adsum.core.provenance import Cause, Provenance
from adsum.dialects.native.asgi import BODY_PIECE_BYTES, PiecedBody
from adsum.dialects.native.pages.service_json import ServiceJson
from tests.support.small_segments import small_segments

PROVENANCE = Provenance(Cause.REGISTERED, "tester")
BATCHES = st.lists(st.lists(st.tuples(st.integers(0, 40), st.booleans()), min_size=1, max_size=20), max_size=12)


def listing(n: int, port: int) -> Listing:
    zone = "zone" * (port % 3)
    return Listing(Registration(Instance("orders", f"i{n}", "10.0.0.1", port, zone=zone)), PROVENANCE)


def change(n: int, port: int | None) -> Change:
    key = Instance("orders", f"i{n}", "10.0.0.1", 1).key
    return Change(key, listing(n, port) if port else None, PROVENANCE)


def loaded(count: int) -> Snapshot:
    return snapshots.load_snapshot(FullState("e", 0, [(0, listing(n, 1)) for n in range(count)]))


def text(service: ServiceSnapshot) -> bytes:
    return wire.encode(wire.ServiceView.from_snapshot("e", service))


@given(BATCHES, st.integers(0, 2**32))
@settings(deadline=None)
def test_an_updated_page_of_many_segments_equals_a_new_one(batches: list[list[tuple[int, bool]]], seed: int) -> None:
    rng, port = Random(seed), 1
    with small_segments():
        snapshot = loaded(20)
        page = ServiceJson("e", snapshot.service("orders"))
        for revision, batch in enumerate(batches, 1):
            changes = []
            for n, is_listed in batch:
                port += 1
                changes.append(change(n, port if is_listed else None))
            snapshot = snapshot.apply(Batch(revision, changes))
            if rng.random() < 0.6:
                service = snapshot.service("orders")
                page.update(service)
                assert bytes(page.body) == text(service) == b"".join(page.body.parts())
                assert len(page.body) == len(text(service))
                odd = ServiceSnapshot(
                    "orders",
                    revision,
                    {id: listing for id, listing in service.listings.items() if listing.instance.port % 2},
                )
                assert page.filtered(lambda listing: listing.instance.port % 2 == 1) == text(odd)


def test_a_change_encodes_only_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = loaded(2_000)
    page = ServiceJson("e", before.service("orders"))
    encoded: list[str] = []

    from_listing = wire.InstanceView.from_listing

    def recorded(listing: Listing) -> wire.InstanceView:
        encoded.append(listing.instance.id)
        return from_listing(listing)

    monkeypatch.setattr(wire.InstanceView, "from_listing", recorded)
    ids = list(before.service("orders").listings)
    after = before.apply(Batch(1, [change(700, 2), change(701, None), change(5_000, 3)]))
    page.update(after.service("orders"))
    assert sorted(encoded) == ["i5000", "i700"]
    assert ids[700] == "i700"
    encoded.clear()
    # Nearly all leave: the few that stay move to another segment, or to none.
    page.update(after.apply(Batch(2, [change(n, None) for n in range(1_990)])).service("orders"))
    assert encoded == []
    assert bytes(page.body).count(b'"id"') == 11


def test_a_page_shares_the_text_of_unchanged_segments() -> None:
    before = loaded(2_560)
    page = ServiceJson("e", before.service("orders"))
    before_texts = _texts(page)
    page.update(before.apply(Batch(1, [change(700, 2)])).service("orders"))
    assert len(segments_of(before.service("orders").listings)) == len(before_texts) > 9
    assert sum(old is new for old, new in zip(before_texts, _texts(page), strict=True)) == len(before_texts) - 1


def _texts(page: ServiceJson) -> list[object]:
    """The texts of the segments; the last one is a view, which leaves out its last byte."""
    return [piece.obj if isinstance(piece, memoryview) else piece for piece in page.body.pieces[1:-1]]


@pytest.mark.parametrize(
    "sizes", [(), (0,), (1,), (1, 2, 3), (BODY_PIECE_BYTES,), (BODY_PIECE_BYTES + 1,), (40_000,) * 5, (3, 200_000, 3)]
)
def test_the_parts_of_a_body_are_the_body(sizes: tuple[int, ...]) -> None:
    body = PiecedBody([bytes([65 + n]) * size for n, size in enumerate(sizes)])
    parts = list(body.parts())
    assert b"".join(parts) == bytes(body)
    assert len(body) == sum(sizes)
    assert all(0 < len(part) <= BODY_PIECE_BYTES for part in parts if sum(sizes))
