"""The visible part of a catalog: nothing else is in it, and it costs what changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.core.access.scopes import ALL_NAMES, NO_NAMES, NamePatterns, intern_patterns
from adsum.core.catalog import snapshots as snapshots_module
from adsum.core.catalog.changes import Batch, Change, FullState, forget_service
from adsum.core.catalog.documents import Document, DocumentKey, DocumentKind
from adsum.core.catalog.snapshots import EMPTY_SNAPSHOT, Snapshot, load_snapshot
from adsum.core.catalog.visible_snapshots import VisibleSnapshot, visible_snapshot
from adsum.core.identity import Place
from adsum.core.model import Instance, Key, Listing, Registration
from adsum.core.provenance import Cause, Provenance

PROVENANCE = Provenance(Cause.REGISTERED, "tester")
SERVICES = ("orders", "orders-eu", "users", "web")


def _listing(service: str, id: str, port: int) -> Listing:
    return Listing(Registration(Instance(service, id, "127.0.0.1", port)), PROVENANCE)


def _change(service: str, id: str = "i1", port: int | None = 8000) -> Change:
    return Change(Key(service, id), None if port is None else _listing(service, id, port), PROVENANCE)


def _applied(snapshot: Snapshot, *changes: Change) -> Snapshot:
    return snapshot.apply(Batch(snapshot.revision + 1, changes))


def _patterns(*patterns: str) -> NamePatterns:
    return intern_patterns(frozenset(patterns))


ORDERS = _patterns("orders*")

sets = st.sets(st.sampled_from([*SERVICES, "orders*", "u*", "unknown", "*"]), max_size=3).map(
    lambda patterns: intern_patterns(frozenset(patterns))
)
changes = st.one_of(
    st.builds(_change, st.sampled_from(SERVICES), st.sampled_from(["i1", "i2"]), st.sampled_from([None, 8000, 8001])),
    st.builds(forget_service, st.sampled_from(SERVICES), st.just(PROVENANCE)),
)
batches = st.lists(changes, min_size=1, max_size=3)
reloads = st.tuples(st.sampled_from(["e1", "e2"]), st.lists(st.sampled_from(SERVICES), max_size=3, unique=True))
"""The epoch and the services of a full state that follows."""
histories = st.lists(st.tuples(batches | reloads, st.booleans()), max_size=20)
"""Batches and full states. The flag: whether the visible part is advanced then."""


def _next(snapshot: Snapshot, step: Sequence[Change] | tuple[str, list[str]]) -> Snapshot:
    if isinstance(step, tuple):
        epoch, services = step
        revision = snapshot.revision + 1
        return load_snapshot(FullState(epoch, revision, [(revision, _listing(name, "i1", 8000)) for name in services]))
    return _applied(snapshot, *step)


def _assert_equal(one: VisibleSnapshot, other: VisibleSnapshot) -> None:
    assert one == other
    assert list(one.part.services) == list(other.part.services), "the order is that of the last changes"


@given(sets, histories)
def test_advancing_equals_filtering_from_scratch(
    visible: NamePatterns, history: Sequence[tuple[Sequence[Change] | tuple[str, list[str]], bool]]
) -> None:
    snapshot = EMPTY_SNAPSHOT
    now = visible_snapshot(snapshot, visible)
    for step, advances in history:
        snapshot = _next(snapshot, step)
        if advances:
            now = now.advance(snapshot)
            _assert_equal(now, visible_snapshot(snapshot, visible))
    _assert_equal(now.advance(snapshot), visible_snapshot(snapshot, visible))


@given(sets, histories)
def test_the_part_has_exactly_the_visible_services(
    visible: NamePatterns, history: Sequence[tuple[Sequence[Change] | tuple[str, list[str]], bool]]
) -> None:
    snapshot = EMPTY_SNAPSHOT
    for step, _ in history:
        snapshot = _next(snapshot, step)
    part = visible_snapshot(snapshot, visible).part
    assert {name: service.listings for name, service in part.services.items()} == {
        name: service.listings for name, service in snapshot.services.items() if visible.includes(name)
    }
    assert part.instance_count == sum(len(service.listings) for service in part.services.values())
    assert part.size == sum(service.size for service in part.services.values())
    assert (part.epoch, part.revision) == (snapshot.epoch, snapshot.revision)


@given(sets, histories, st.integers(0, 19))
def test_the_part_names_what_changed_in_it(
    visible: NamePatterns,
    history: Sequence[tuple[Sequence[Change] | tuple[str, list[str]], bool]],
    start: int,
) -> None:
    snapshot = EMPTY_SNAPSHOT
    now = before = visible_snapshot(snapshot, visible)
    for number, (step, _) in enumerate(history):
        snapshot = _next(snapshot, step)
        now = now.advance(snapshot)
        if number <= start:
            before = now
    names = now.part.services.keys() | before.part.services.keys()
    changed = {name for name in names if _listings(before.part, name) != _listings(now.part, name)}
    assert changed <= snapshots_module.changed_services(before.part, now.part) <= set(SERVICES)
    assert all(map(visible.includes, snapshots_module.changed_services(before.part, now.part)))


def _listings(snapshot: Snapshot, name: str) -> object:
    return snapshot.services[name].listings if name in snapshot.services else None


def test_a_change_of_an_invisible_service_keeps_the_mapping_of_services() -> None:
    snapshot = _applied(EMPTY_SNAPSHOT, _change("orders"), _change("users"))
    before = visible_snapshot(snapshot, ORDERS)
    after = before.advance(_applied(snapshot, _change("users", "i2", 8001)))
    assert after.part.services is before.part.services
    assert after.part.revision == snapshot.revision + 1


def test_a_change_of_a_visible_service_keeps_the_others() -> None:
    snapshot = _applied(EMPTY_SNAPSHOT, _change("orders"), _change("orders-eu"), _change("users"))
    before = visible_snapshot(snapshot, ORDERS)
    after = before.advance(_applied(snapshot, _change("orders", "i2", 8001)))
    assert after.part.services["orders-eu"] is before.part.services["orders-eu"]
    assert list(after.part.services) == ["orders-eu", "orders"]
    assert after.part.instance_count == 3


def test_services_that_stay_the_same_over_a_gap_are_the_same_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots_module, "MAX_FORGOTTEN_SERVICES", 0)
    snapshot = _applied(EMPTY_SNAPSHOT, _change("orders"), _change("users", port=None))
    before = visible_snapshot(snapshot, ORDERS)
    later = _applied(snapshot, forget_service("users", PROVENANCE))
    assert later.names_changed_since(snapshot.epoch, snapshot.revision) is None, "too many were forgotten"
    after = before.advance(later)
    assert after.part.services["orders"] is before.part.services["orders"]


def test_the_part_keeps_no_recent_changes_alive() -> None:
    snapshot = _applied(EMPTY_SNAPSHOT, _change("orders"))
    now = visible_snapshot(snapshot, ORDERS)
    now = now.advance(_applied(snapshot, _change("orders", "i2", 8001)))
    assert now.source.services["orders"].recent_changes
    assert not now.part.services["orders"].recent_changes
    assert now.part.recent_changes_size == 0


def test_the_part_finds_no_invisible_instance_and_no_document() -> None:
    secret = Document(DocumentKey(DocumentKind.TOKEN, "ci"), b"{}", PROVENANCE)
    listings = [(1, _listing("orders", "o1", 8000)), (1, _listing("users", "u1", 8000))]
    snapshot = load_snapshot(FullState("e", 1, listings, [(1, secret)]))
    part = visible_snapshot(snapshot, ORDERS).part
    place = Place("127.0.0.1", 8000, "http").host_port
    assert [listing.key.service for listing in snapshot.listings_at(place)] == ["orders", "users"]
    assert [listing.key.service for listing in part.listings_at(place)] == ["orders"]
    assert part.find(Key("users", "u1")) is None
    assert not part.service("users").listings
    assert part.service("users").revision == part.service("never-known").revision
    assert len(part.documents) == 0


@pytest.mark.parametrize("visible", [NO_NAMES, ALL_NAMES])
def test_no_name_includes_nothing_and_all_names_include_everything(visible: NamePatterns) -> None:
    snapshot = _applied(EMPTY_SNAPSHOT, *map(_change, SERVICES))
    part = visible_snapshot(snapshot, visible).part
    assert _names(part.services) == (_names(SERVICES) if visible.is_all else [])


def _names(names: Iterable[str]) -> list[str]:
    return sorted(names)
