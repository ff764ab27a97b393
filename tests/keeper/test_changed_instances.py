from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from adsum.core.catalog import snapshots
from adsum.core.catalog.changes import Batch, Change, FullState
from adsum.core.catalog.service_snapshot import MAX_RECENT_CHANGES
from adsum.core.catalog.snapshots import EMPTY_SNAPSHOT, Snapshot
from adsum.core.model import Instance, Key, LeaseState, Listing, Registration
from adsum.core.provenance import Cause, Provenance
from adsum.keeper.changed_instances import ChangedInstance, changed_instances

KEYS = [Key(service, id) for service in ("orders", "users", "stock") for id in "abc"]
CAUSES = [Cause.REGISTERED, Cause.LEASE_RENEWED, Cause.CHECK_PASSING, Cause.LEASE_LAPSED, Cause.DEREGISTERED]

changes = st.tuples(st.sampled_from(KEYS), st.sampled_from(CAUSES))
batches = st.lists(st.lists(changes, min_size=1, max_size=4), max_size=12)


def change(key: Key, cause: Cause, at: float = 0.0) -> Change:
    provenance = Provenance(cause, "tester", at=at)
    if cause is Cause.DEREGISTERED:
        return Change(key, None, provenance)
    lease = LeaseState.LAPSED if cause is Cause.LEASE_LAPSED else LeaseState.HELD
    return Change(
        key, Listing(Registration(Instance(key.service, key.id, "127.0.0.1", 80)), provenance, lease), provenance
    )


def snapshot_after(snapshot: Snapshot, batches: list[list[tuple[Key, Cause]]]) -> Snapshot:
    for batch in batches:
        number = snapshot.revision + 1
        snapshot = snapshot.apply(Batch(number, [change(key, cause, number) for key, cause in batch]))
    return snapshot


def listings_of(snapshot: Snapshot) -> dict[Key, Listing]:
    return {listing.key: listing for service in snapshot.services.values() for listing in service.listings.values()}


def applied(before: Snapshot, after: Snapshot) -> dict[Key, Listing]:
    """The listings of `before` after applying the changed instances."""
    listings = listings_of(before)
    for instance in changed_instances(before, after):
        listings.pop(instance.key, None)
        if instance.listing is not None:
            listings[instance.key] = instance.listing
    return listings


@given(batches, batches)
def test_changed_instances_lead_from_one_snapshot_to_the_next(
    first: list[list[tuple[Key, Cause]]], then: list[list[tuple[Key, Cause]]]
) -> None:
    before = snapshot_after(EMPTY_SNAPSHOT, first)
    after = snapshot_after(before, then)
    assert applied(before, after) == listings_of(after)
    assert {instance.key for instance in changed_instances(before, after)} <= {
        key for batch in then for key, _ in batch
    }


@given(batches, batches, st.sampled_from(["e1", "e2"]))
def test_a_newly_loaded_catalog_is_followed_too(
    first: list[list[tuple[Key, Cause]]], then: list[list[tuple[Key, Cause]]], epoch: str
) -> None:
    before = replace(snapshot_after(EMPTY_SNAPSHOT, first), epoch="e1")
    reached = snapshot_after(before, then)
    state = FullState(
        epoch, reached.revision, [(reached.revision, listing) for listing in listings_of(reached).values()]
    )
    after = snapshots.load_snapshot(state)
    assert applied(before, after) == listings_of(after)


def test_the_instances_of_a_service_missing_in_a_newly_loaded_catalog_are_gone() -> None:
    before = snapshot_after(EMPTY_SNAPSHOT, [[(KEYS[0], Cause.REGISTERED)]])
    after = snapshots.load_snapshot(FullState("", 5, []))
    assert list(changed_instances(before, after)) == [ChangedInstance(KEYS[0], None, renewed=False)]


def test_a_renewal_among_other_changes_is_noticed() -> None:
    key = KEYS[0]
    before = snapshot_after(EMPTY_SNAPSHOT, [[(key, Cause.LEASE_LAPSED)]])
    first = snapshot_after(before, [[(key, Cause.LEASE_RENEWED)], [(key, Cause.CHECK_PASSING)]])
    last = snapshot_after(before, [[(key, Cause.CHECK_PASSING)], [(key, Cause.LEASE_RENEWED)]])
    for after in (first, last):
        assert list(changed_instances(before, after)) == [ChangedInstance(key, after.find(key), renewed=True)]
    assert not any(
        instance.renewed for instance in changed_instances(after, snapshot_after(after, [[(key, Cause.CHECK_PASSING)]]))
    )


def test_more_changes_than_are_remembered_are_found_by_comparison() -> None:
    keys = [Key("orders", f"i{n}") for n in range(MAX_RECENT_CHANGES * 2)]
    before = snapshot_after(EMPTY_SNAPSHOT, [[(key, Cause.REGISTERED)] for key in keys])
    gone = [[(key, Cause.DEREGISTERED)] for key in keys[: MAX_RECENT_CHANGES + 1]]
    after = snapshot_after(before, gone)
    assert before.revision < after.service("orders").compact_revision
    assert {instance.key for instance in changed_instances(before, after)} == set(keys[: MAX_RECENT_CHANGES + 1])
