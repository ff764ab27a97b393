"""Changes from the events of a watch."""

from __future__ import annotations

from adsum import wire
from adsum.cli.change_tracker import ChangeTracker, ObservedChange
from adsum.client.native.sse import SseEvent
from adsum.core.model import Status


def _event(name: str, body: object, id: str = "") -> SseEvent:
    return SseEvent(name, wire.encode(body), id)


def _view(id: str, status: Status = Status.PASSING) -> wire.InstanceView:
    return wire.InstanceView(id, "10.0.0.1", 80, status, since=5.0, cause="registered", actor="ann")


def _opened(tracker: ChangeTracker, *views: wire.InstanceView, epoch: str = "e") -> list[ObservedChange]:
    observed_changes = list(tracker.feed(_event("open", wire.WatchOpened(epoch, 1, True, "w"))))
    observed_changes += tracker.feed(_event("service", wire.ServiceView(epoch, "orders", 1, list(views))))
    observed_changes += tracker.feed(_event("synced", wire.WatchSynced(1), f"{epoch}:1"))
    return observed_changes


def test_the_initial_state_is_marked() -> None:
    tracker = ChangeTracker()
    observed_changes = _opened(tracker, _view("a"))
    assert [
        (observed.initial, observed.change.id, observed.change.previous_status) for observed in observed_changes
    ] == [(True, "a", "")]
    assert tracker.position == "e:1"


def test_a_change_has_the_old_and_the_new_status() -> None:
    tracker = ChangeTracker()
    _opened(tracker, _view("a"))
    change = wire.ServiceChange("orders", 1, 2, [_view("a", Status.CRITICAL)])
    (observed,) = tracker.feed(_event("change", change))
    assert (observed.initial, observed.change.previous_status, observed.change.status, observed.change.revision) == (
        False,
        "passing",
        "critical",
        2,
    )


def test_a_removal_has_the_reason() -> None:
    tracker = ChangeTracker()
    _opened(tracker, _view("a"))
    change = wire.ServiceChange("orders", 1, 2, [], [wire.RemovedInstance("a", "deregistered", "ann", "bye", 7.0)])
    (observed,) = tracker.feed(_event("change", change))
    fields = (
        observed.change.previous_status,
        observed.change.status,
        observed.change.cause,
        observed.change.reason,
        observed.change.at,
    )
    assert fields == ("passing", "gone", "deregistered", "bye", 7.0)


def test_a_second_full_state_yields_only_the_differences() -> None:
    tracker = ChangeTracker()
    _opened(tracker, _view("a"), _view("b"))
    observed_changes = _opened(tracker, _view("b"), _view("c"), epoch="f")
    assert [
        (observed.change.id, observed.change.previous_status, observed.change.status, observed.initial)
        for observed in observed_changes
    ] == [
        ("a", "passing", "gone", False),
        ("c", "", "passing", False),
    ]


def test_a_service_missing_from_the_full_state_is_gone() -> None:
    tracker = ChangeTracker()
    _opened(tracker, _view("a"))
    observed_changes = list(tracker.feed(_event("open", wire.WatchOpened("f", 9, True, "w"))))
    observed_changes += tracker.feed(_event("synced", wire.WatchSynced(9), "f:9"))
    assert [(observed.change.id, observed.change.status) for observed in observed_changes] == [("a", "gone")]
