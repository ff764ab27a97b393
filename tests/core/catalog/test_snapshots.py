from __future__ import annotations

from collections.abc import Sequence
from dataclasses import FrozenInstanceError
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adsum.core.catalog import snapshots as snapshots_module
from adsum.core.catalog.changes import Batch, Change, FullState, forget_service
from adsum.core.catalog.service_snapshot import MAX_RECENT_CHANGES, ServiceDiff
from adsum.core.catalog.snapshots import EMPTY_SNAPSHOT, Snapshot
from adsum.core.model import Instance, Key, Listing, Registration
from adsum.core.provenance import Cause, Provenance
from tests.support import strategies

PROVENANCE = Provenance(Cause.REGISTERED, "tester")


def _listing(service: str, id: str, port: int) -> Listing:
    return Listing(Registration(Instance(service, id, "127.0.0.1", port)), PROVENANCE)


def _change(service: str, id: str, port: int | None) -> Change:
    return Change(Key(service, id), None if port is None else _listing(service, id, port), PROVENANCE)


services = st.sampled_from(["s1", "s2", "s3"])
plain_changes = st.builds(
    _change, services, st.sampled_from(["i1", "i2", "i3", "i4"]), st.sampled_from([None, 8000, 8001])
)
histories = st.lists(st.lists(plain_changes, min_size=1, max_size=5), max_size=20)
"""Batches in which few instances come, change and leave."""
forgetful = st.lists(
    st.lists(plain_changes | st.builds(forget_service, services, st.just(PROVENANCE)), min_size=1, max_size=5),
    max_size=20,
)
"""The same with changes that forget services. They have no effect on services with instances."""
short_histories = st.lists(st.lists(plain_changes, min_size=1, max_size=3), max_size=6)

Copy = dict[Key, Listing]


def _copied(snapshot: Snapshot) -> tuple[str, int, int, int, list[object]]:
    """A copy of all contents of the snapshot."""
    services: list[object] = [
        (
            *(name, service.name, service.revision, service.compact_revision, service.recent_changes),
            dict(service.listings),
        )
        for name, service in snapshot.services.items()
    ]
    return snapshot.epoch, snapshot.revision, snapshot.instance_count, snapshot.default_revision, services


def _listed(snapshot: Snapshot) -> Copy:
    return {listing.key: listing for service in snapshot.services.values() for listing in service.listings.values()}


def _walked(history: Sequence[Sequence[Change]], start: Snapshot = EMPTY_SNAPSHOT, stride: int = 1) -> list[Snapshot]:
    """The snapshots before the first batch and after each batch."""
    snapshots = [start]
    for changes in history:
        snapshots.append(snapshots[-1].apply(Batch(snapshots[-1].revision + stride, changes)))
    return snapshots


def _loaded(snapshot: Snapshot) -> Snapshot:
    """The snapshot that a restarted registry loads."""
    listings = [
        (service.revision, listing) for service in snapshot.services.values() for listing in service.listings.values()
    ]
    return snapshots_module.load_snapshot(FullState("e1", snapshot.revision, listings))


def _assert_diff_is_right(a: Snapshot, b: Snapshot, name: str) -> ServiceDiff | None:
    """The diff of a service from snapshot `a` to `b`, if it is remembered, turns the service in `a` into that in `b`.

    The same holds for the diff since the service's own revision in `a`, which is returned.
    """
    before, after = a.service(name), b.service(name)
    for revision in (a.revision, before.revision):
        diff = after.diff_since(revision)
        if diff is None:
            continue
        assert diff.apply(before.listings) == after.listings
        assert diff.apply(after.listings) == after.listings, "applying it twice is harmless"
        assert (diff.service, diff.since, diff.revision) == (name, revision, max(revision, after.revision))
        _assert_keys_are_unique(diff)
    return diff


def _assert_keys_are_unique(diff: ServiceDiff) -> None:
    keys = [*(listing.key for listing in diff.changed), *(change.key for change in diff.removed)]
    assert len(set(keys)) == len(keys)


@given(histories)
def test_a_snapshot_is_the_result_of_all_batches(history: list[list[Change]]) -> None:
    expected: Copy = {}
    for snapshot, changes in zip(_walked(history)[1:], history, strict=True):
        for change in changes:
            expected.pop(change.key, None)
            if change.listing is not None:
                expected[change.key] = change.listing
        assert _listed(snapshot) == expected
        assert snapshot.instance_count == len(expected)
        assert all(snapshot.find(key) == listing for key, listing in expected.items())


@given(histories)
def test_a_published_snapshot_never_changes(history: list[list[Change]]) -> None:
    snapshot, published = EMPTY_SNAPSHOT, []
    for changes in history:
        published.append((snapshot, _copied(snapshot)))
        snapshot = snapshot.apply(Batch(snapshot.revision + 1, changes))
        changes.clear()
    assert all(_copied(snapshot) == as_published for snapshot, as_published in published)


def test_a_snapshot_is_immutable() -> None:
    snapshot = EMPTY_SNAPSHOT.apply(Batch(1, [_change("s1", "i1", 8000)]))
    with pytest.raises(FrozenInstanceError):
        snapshot.revision = 2  # type: ignore[misc]
    for mapping in (snapshot.services, snapshot.service("s1").listings, snapshot.service("s9").listings):
        assert isinstance(mapping, MappingProxyType)


@given(histories)
def test_a_service_that_a_batch_does_not_touch_is_shared(history: list[list[Change]]) -> None:
    snapshots = _walked(history)
    for before, after, changes in zip(snapshots, snapshots[1:], history, strict=False):
        changed = {change.key.service for change in changes}
        for name, service in before.services.items():
            assert (after.services[name] is service) == (name not in changed)


@given(forgetful)
def test_services_stand_in_the_order_of_their_last_change(history: list[list[Change]]) -> None:
    revisions = [service.revision for service in _walked(history)[-1].services.values()]
    assert revisions == sorted(revisions)


@given(histories, st.integers(1, 3))
@settings(max_examples=50)
def test_the_diff_of_a_and_b_applied_to_a_gives_b(history: list[list[Change]], stride: int) -> None:
    snapshots = _walked(history, stride=stride)
    for n, a in enumerate(snapshots):
        for b in snapshots[n:]:
            for name in ("s1", "s2", "s3", "s9"):
                assert _assert_diff_is_right(a, b, name) is not None, "so short a history is remembered"


@given(histories)
def test_a_diff_contains_only_changes_after_its_revision(history: list[list[Change]]) -> None:
    snapshots = _walked(history)
    last = snapshots[-1]
    for n, a in enumerate(snapshots):
        later = {change.key for changes in history[n:] for change in changes}
        for name in ("s1", "s2", "s3"):
            diff = last.service(name).diff_since(a.revision)
            assert diff is not None
            keys = {listing.key for listing in diff.changed} | {change.key for change in diff.removed}
            assert keys == {key for key in later if key.service == name}


@given(short_histories, short_histories)
@settings(max_examples=50)
def test_after_a_restart_diffs_continue_from_the_loaded_catalog(
    before: list[list[Change]], after: list[list[Change]]
) -> None:
    old = _walked(before)
    loaded = _loaded(old[-1])
    assert (_listed(loaded), loaded.instance_count) == (_listed(old[-1]), old[-1].instance_count)
    new = _walked(after, loaded)
    for b in new:
        for name in ("s1", "s2", "s3"):
            for a in (*old, *new[: new.index(b)]):
                diff = _assert_diff_is_right(a, b, name)
                assert diff is not None or a.service(name).revision < loaded.revision


@given(histories)
@settings(max_examples=50)
def test_the_revision_of_a_service_never_goes_back(history: list[list[Change]]) -> None:
    snapshots = _walked(history)
    snapshots.append(_loaded(snapshots[-1]))
    for name in ("s1", "s2", "s9"):
        revisions = [snapshot.service(name).revision for snapshot in snapshots]
        assert revisions == sorted(revisions)


@given(st.data())
@settings(max_examples=20)
def test_there_is_no_diff_from_before_the_recent_changes_and_later_ones_are_right(data: st.DataObject) -> None:
    sizes = data.draw(
        st.lists(
            st.sampled_from([1, 3, MAX_RECENT_CHANGES // 2, MAX_RECENT_CHANGES, MAX_RECENT_CHANGES + 1]),
            min_size=2,
            max_size=8,
        )
    )
    history = [
        [
            _change("s1", f"i{data.draw(st.integers(0, 9)) if n < 5 else n % 7}", n % 5 + 1 if n % 3 else None)
            for n in range(size)
        ]
        for size in sizes
    ]
    snapshots = _walked(history)
    last = snapshots[-1]
    assert len(last.service("s1").recent_changes) <= MAX_RECENT_CHANGES
    for n, a in enumerate(snapshots):
        remembered = _assert_diff_is_right(a, last, "s1") is not None
        assert remembered == (sum(sizes[n:]) <= MAX_RECENT_CHANGES)


def test_a_batch_longer_than_the_recent_changes_is_not_remembered_in_part() -> None:
    service = EMPTY_SNAPSHOT.apply(
        Batch(5, [_change("s1", f"i{n}", 8000) for n in range(MAX_RECENT_CHANGES + 1)])
    ).service("s1")
    assert not service.recent_changes
    assert service.diff_since(4) is None
    assert service.diff_since(5) == ServiceDiff("s1", 5, 5, (), ())


def _sizes(snapshot: Snapshot) -> tuple[int, int]:
    """Bytes of registrations and of recent changes, counted again."""
    listings = _listed(snapshot).values()
    changes = [change for service in snapshot.services.values() for change in service.recent_changes]
    return sum(listing.registration.size for listing in listings), sum(change.size for change in changes)


@given(histories)
@settings(max_examples=50)
def test_sizes_are_updated_with_each_change(history: list[list[Change]]) -> None:
    for snapshot in _walked(history):
        assert (snapshot.size, snapshot.recent_changes_size) == _sizes(snapshot)
        assert all(
            service.size == sum(listing.registration.size for listing in service.listings.values())
            for service in snapshot.services.values()
        )


def test_past_their_bytes_the_recent_changes_of_the_longest_unchanged_services_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long_reason = Provenance(Cause.MAINTENANCE, "tester", "x" * 1_000)
    changes = [Change(Key(f"s{n}", "i1"), _listing(f"s{n}", "i1", 8000), long_reason) for n in range(8)]
    change_size = EMPTY_SNAPSHOT.apply(Batch(1, changes[:1])).recent_changes_size
    assert change_size > 1_000
    monkeypatch.setattr(snapshots_module, "MAX_RECENT_CHANGES_BYTES", 8 * change_size - 1)
    snapshots = _walked([[change] for change in changes])
    last = snapshots[-1]
    assert [bool(service.recent_changes) for service in last.services.values()] == [False, False, *[True] * 6]
    assert (last.size, last.recent_changes_size) == _sizes(last)
    assert last.service("s0").diff_since(0) is None, "a watcher from before the change receives the whole"
    assert last.service("s0").diff_since(1) == ServiceDiff("s0", 1, 1, (), ())
    assert last.service("s7").diff_since(7) is not None


def test_the_size_of_a_loaded_catalog_is_counted() -> None:
    snapshot = snapshots_module.load_snapshot(FullState("e", 3, [(n, _listing("s1", f"i{n}", 8000)) for n in range(3)]))
    assert (snapshot.size, snapshot.recent_changes_size) == _sizes(snapshot)
    assert snapshot.size > 0


def test_an_old_batch_changes_nothing() -> None:
    snapshot = EMPTY_SNAPSHOT.apply(Batch(3, [_change("s1", "i1", 8000)]))
    for revision in (1, 3):
        assert snapshot.apply(Batch(revision, [_change("s1", "i1", None)])) is snapshot


def test_an_unknown_service_is_empty_and_may_be_registered_later() -> None:
    snapshot = EMPTY_SNAPSHOT.apply(Batch(3, [_change("s1", "i1", 8000)]))
    unknown = snapshot.service("s2")
    assert (unknown.listings, unknown.revision) == ({}, 0)
    came = snapshot.apply(Batch(4, [_change("s2", "i1", 8000)])).service("s2")
    diff = came.diff_since(unknown.revision)
    assert diff is not None
    assert diff.apply(unknown.listings) == came.listings


def test_an_emptied_service_stays_known_with_the_provenance_of_its_last_removal() -> None:
    gone = Change(Key("s1", "i1"), None, Provenance(Cause.LEASE_EXPIRED, "registry"))
    snapshot = EMPTY_SNAPSHOT.apply(Batch(1, [_change("s1", "i1", 8000)])).apply(Batch(2, [gone]))
    assert snapshot.services["s1"].diff_since(1) == ServiceDiff("s1", 1, 2, (), (gone,))
    assert snapshot.instance_count == 0


def test_the_services_emptied_longest_ago_are_forgotten_past_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots_module, "MAX_EMPTY_SERVICES", 2)
    history = [[_change(f"s{n}", "i1", port)] for n in range(5) for port in (8000, None)]
    snapshot = _walked([*history, [_change("s9", "i1", 8000)]])[-1]
    assert list(snapshot.services) == ["s3", "s4", "s9"]
    assert snapshot.service("s2").revision == snapshot.default_revision == 6


@given(forgetful)
@settings(max_examples=50)
def test_diffs_across_forgotten_services_are_right_or_missing(history: list[list[Change]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots_module, "MAX_EMPTY_SERVICES", 1)
        snapshots = _walked(history)
        for n, a in enumerate(snapshots):
            assert sum(not service.listings for service in a.services.values()) <= 1
            for b in snapshots[n:]:
                for name in ("s1", "s2", "s3"):
                    assert b.service(name).revision >= a.service(name).revision
                    _assert_diff_is_right(a, b, name)


@given(st.lists(strategies.listings(), max_size=5, unique_by=lambda listing: listing.key))
@settings(max_examples=25)
def test_a_loaded_snapshot_contains_everything_in_the_store(listings: list[Listing]) -> None:
    revisions = range(3, 3 + len(listings))
    snapshot = snapshots_module.load_snapshot(FullState("e1", 9, zip(revisions, listings, strict=True)))
    assert (snapshot.epoch, snapshot.revision, snapshot.instance_count) == ("e1", 9, len(listings))
    assert _listed(snapshot) == {listing.key: listing for listing in listings}
    assert {service.diff_since(8) for service in snapshot.services.values()} <= {None}
    assert {service.revision for service in snapshot.services.values()} <= {9}


def test_loaded_services_stand_in_the_order_of_their_last_change() -> None:
    listings = [
        (7, _listing("s1", "i1", 1)),
        (2, _listing("s2", "i1", 1)),
        (3, _listing("s1", "i2", 1)),
        (5, _listing("s3", "i", 1)),
    ]
    assert list(snapshots_module.load_snapshot(FullState("e1", 9, listings)).services) == ["s2", "s3", "s1"]


def test_a_forgotten_service_looks_like_an_unknown_one_and_never_goes_backwards() -> None:
    snapshot = _walked([[_change("s1", "i1", 8000)], [_change("s1", "i1", None)], [forget_service("s1", PROVENANCE)]])[
        -1
    ]
    assert (dict(snapshot.services), snapshot.instance_count, snapshot.listed_count("s1")) == ({}, 0, None)
    assert snapshot.service("s1").revision == 2
    again = snapshot.apply(Batch(4, [_change("s1", "i2", 8001)]))
    diff = again.service("s1").diff_since(2)
    assert diff is not None
    assert list(diff.apply({})) == ["i2"]
    assert again.service("s1").diff_since(1) is None


def test_a_service_with_an_instance_is_not_forgotten_and_one_emptied_in_the_same_batch_is() -> None:
    listed = EMPTY_SNAPSHOT.apply(Batch(1, [_change("s1", "i1", 8000)]))
    assert listed.apply(Batch(2, [forget_service("s1", PROVENANCE)])).services == listed.services
    gone = listed.apply(Batch(2, [_change("s1", "i1", None), forget_service("s1", PROVENANCE)]))
    assert (dict(gone.services), gone.instance_count, gone.service("s1").revision) == ({}, 0, 2)
    both = listed.apply(
        Batch(2, [_change("s1", "i1", None), forget_service("s1", PROVENANCE), _change("s1", "i2", 8001)])
    )
    assert list(both.services["s1"].listings) == ["i2"]
    assert both.services["s1"].diff_since(1) is None


@given(forgetful)
@settings(max_examples=50)
def test_a_snapshot_names_the_services_that_were_forgotten(history: list[list[Change]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots_module, "MAX_FORGOTTEN_SERVICES", 3)
        snapshots = _walked(history)
        for n, before in enumerate(snapshots):
            for after in snapshots[n:]:
                forgotten = after.forgotten_services.names_since(before.revision)
                assert forgotten is None or before.services.keys() - after.services.keys() <= forgotten
            assert before.forgotten_services.names_since(before.revision) == set()


def test_changed_services_come_in_the_order_of_their_last_change_the_latest_first() -> None:
    history = [[_change(service, "i1", 8000 + n)] for n, service in enumerate(["s1", "s2", "s3", "s1"])]
    snapshot = _walked(history)[-1]
    assert [service.name for service in snapshot.changed_since(-1)] == ["s1", "s3", "s2"]
    assert [service.name for service in snapshot.changed_since(2)] == ["s1", "s3"]
    assert list(snapshot.changed_since(snapshot.revision)) == []


def test_a_walk_over_changed_services_stops_at_the_first_unchanged_one() -> None:
    snapshot = _walked([[_change(f"s{n}", "i1", 8000)] for n in range(100)])[-1]
    assert next(snapshot.changed_since(99)).name == "s99"
    assert len(list(snapshot.changed_since(97))) == 3


def test_names_of_changed_services_include_forgotten_ones() -> None:
    snapshot = _walked([[_change("s1", "i1", 8000)], [_change("s1", "i1", None)], [forget_service("s1", PROVENANCE)]])[
        -1
    ]
    assert snapshot.names_changed_since("", 2) == {"s1"}
    assert snapshot.names_changed_since("another", 2) is None
    assert snapshot.names_changed_since("", 4) is None
