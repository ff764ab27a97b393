from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adsum.core.catalog import snapshots
from adsum.core.catalog.changes import Batch, Change, FullState, forget_service
from adsum.core.catalog.snapshots import EMPTY_SNAPSHOT, Snapshot
from adsum.core.catalog.status_counts import StatusCounter
from adsum.core.model import Instance, Key, LeaseState, Listing, Registration
from adsum.core.provenance import Cause, Provenance

PROVENANCE = Provenance(Cause.REGISTERED, "tester")


def _change(service: str, id: str, lease: LeaseState | None) -> Change:
    listing = Listing(Registration(Instance(service, id, "127.0.0.1", 80)), PROVENANCE, lease or LeaseState.HELD)
    return Change(Key(service, id), listing if lease else None, PROVENANCE)


services = st.sampled_from(["s1", "s2", "s3"])
changes = st.one_of(
    st.builds(_change, services, st.sampled_from(["i1", "i2"]), st.sampled_from([None, *LeaseState])),
    st.builds(forget_service, services, st.just(PROVENANCE)),
)


def _counted(snapshot: Snapshot) -> dict[str, int]:
    listings = (listing for service in snapshot.services.values() for listing in service.listings.values())
    return dict(Counter(listing.status.value for listing in listings))


@pytest.mark.parametrize("max_empty", [1, 10])
@given(history=st.lists(st.tuples(st.lists(changes, min_size=1, max_size=4), st.booleans()), max_size=20))
@settings(max_examples=60)
def test_the_counts_equal_a_full_count_however_many_snapshots_are_skipped(
    max_empty: int, history: list[tuple[list[Change], bool]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "MAX_EMPTY_SERVICES", max_empty)
        counter, snapshot = StatusCounter(), EMPTY_SNAPSHOT
        for batch, is_counted in history:
            snapshot = snapshot.apply(Batch(snapshot.revision + 1, batch))
            if is_counted:
                assert counter.count(snapshot) == _counted(snapshot)
        assert counter.count(snapshot) == _counted(snapshot)


def test_the_snapshot_of_another_epoch_is_counted_anew() -> None:
    counter = StatusCounter()
    before = EMPTY_SNAPSHOT.apply(
        Batch(9, [_change("s1", "i1", LeaseState.HELD), _change("s1", "i2", LeaseState.LAPSED)])
    )
    assert counter.count(before) == {"passing": 1, "critical": 1}
    listing = _change("s2", "i1", LeaseState.HELD).listing
    assert listing is not None
    assert counter.count(snapshots.load_snapshot(FullState("another", 9, [(3, listing)]))) == {"passing": 1}
