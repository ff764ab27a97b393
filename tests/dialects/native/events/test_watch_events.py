"""A consumer that applies the events of a watch has the same state as a reader, after any changes."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from adsum import wire
from adsum.core.catalog import service_snapshot, snapshots
from adsum.core.catalog.changes import Batch, Change, FullState
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.model import Instance, Listing, Registration
from adsum.core.provenance import Cause, Provenance
from adsum.dialects.native.events.watch_events import WatchEvents, can_resume
from adsum.dialects.native.pages.pages import Pages
from adsum.dialects.native.pages.service_json import ServiceJson
from adsum.registry import Registry
from tests.dialects.native.native_api import parse_events
from tests.support.fakes import FakeClock, FakeStore
from tests.support.observers import RecordingObserver

NAMES = ("carts", "orders", "users")
STEP = st.tuples(st.sampled_from(NAMES), st.integers(0, 5), st.booleans())


def _change(name: str, n: int, is_listed: bool, port: int) -> Change:
    instance = Instance(name, f"i{n}", "10.0.0.1", port)
    provenance = Provenance(Cause.REGISTERED, "tester", at=float(port))
    listing = Listing(Registration(instance), provenance) if is_listed else None
    return Change(instance.key, listing, provenance)


def _catalog(snapshot: Snapshot) -> dict[str, dict[str, int]]:
    return {
        name: {id: listing.instance.port for id, listing in service.listings.items()}
        for name, service in snapshot.services.items()
        if service.listings
    }


def _apply(view: dict[str, dict[str, int]], text: bytes) -> dict[str, dict[str, int]]:
    """Returns the view of a consumer after it applies a group."""
    for event in parse_events(text):
        data = event.data
        if event.kind == "service":
            view[data["service"]] = {instance["id"]: instance["port"] for instance in data["instances"]}
        elif event.kind == "change":
            known = view.setdefault(data["service"], {})
            known.update({instance["id"]: instance["port"] for instance in data.get("changed", [])})
            for removed in data.get("removed", []):
                known.pop(removed["id"], None)
    return {name: known for name, known in view.items() if known}


def _events() -> WatchEvents:
    return WatchEvents(Pages(Registry(FakeStore(), FakeClock(), RecordingObserver())))


@given(st.lists(st.lists(STEP, min_size=1, max_size=4), max_size=30), st.integers(0, 2**32), st.integers(1, 8))
@settings(deadline=None)
def test_applying_every_group_gives_the_catalog(steps: list[list[Any]], seed: int, max_changes: int) -> None:
    rng, events = Random(seed), _events()
    snapshot = snapshots.load_snapshot(FullState("e", 0, []))
    views: dict[frozenset[str] | None, tuple[int, dict[str, dict[str, int]]]] = {
        None: (0, {}),
        frozenset({"orders"}): (0, {}),
        frozenset({"orders", "users"}): (0, {}),
    }
    before, service_snapshot.MAX_RECENT_CHANGES = service_snapshot.MAX_RECENT_CHANGES, max_changes  # type: ignore[misc]
    try:
        for revision, batch in enumerate(steps, 1):
            changes = [
                _change(name, n, is_listed, 1_000 + revision * 10 + number)
                for number, (name, n, is_listed) in enumerate(batch)
            ]
            snapshot = snapshot.apply(Batch(revision, changes))
            for services, (since, view) in views.items():
                if rng.random() < 0.6:
                    group = events.changes_since(snapshot, services, since, 0.0)
                    view = _apply(view, group) if group else view
                    truth = {k: v for k, v in _catalog(snapshot).items() if services is None or k in services}
                    assert view == truth
                    assert can_resume(snapshot, services, snapshot.revision)
                    views[services] = (snapshot.revision, view)
    finally:
        service_snapshot.MAX_RECENT_CHANGES = before  # type: ignore[misc]


@given(st.lists(STEP, max_size=40), st.integers(0, 2**32))
@settings(deadline=None)
def test_an_updated_page_equals_a_new_one(steps: list[Any], seed: int) -> None:
    rng = Random(seed)
    snapshot = snapshots.load_snapshot(FullState("e", 0, []))
    page = ServiceJson("e", snapshot.service("orders"))
    for revision, (_, n, is_listed) in enumerate(steps, 1):
        snapshot = snapshot.apply(Batch(revision, [_change("orders", n, is_listed, 1_000 + revision)]))
        if rng.random() < 0.5:
            page.update(snapshot.service("orders"))
            assert bytes(page.body) == wire.encode(wire.ServiceView.from_snapshot("e", snapshot.service("orders")))


def test_a_watch_resumes_from_the_oldest_remembered_revision() -> None:
    snapshot = snapshots.load_snapshot(FullState("e", 5, [])).apply(Batch(6, [_change("orders", 1, True, 1)]))
    for services in (None, frozenset({"users"}), frozenset({"orders", "users"})):
        assert [can_resume(snapshot, services, since) for since in (4, 5, 6, 7)] == [False, True, True, False]


async def test_the_full_state_has_every_service_and_is_encoded_once() -> None:
    events = _events()
    snapshot = snapshots.load_snapshot(FullState("e", 0, []))
    snapshot = snapshot.apply(Batch(1, [_change("orders", 1, True, 1), _change("users", 1, True, 2)]))
    text = events.full_state(snapshot, None, 0.0)
    assert events.full_state(snapshot, None, 0.0) is text
    assert [event.kind for event in parse_events(text)] == ["service", "service", "synced"]
    aged = parse_events(events.full_state(snapshot, None, 2.5))[-1]
    assert msgspec.convert(aged.data, wire.WatchSynced) == wire.WatchSynced(1, 2.5)
