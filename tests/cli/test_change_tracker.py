"""From the events of a watch to one line a change."""

from __future__ import annotations

from adsum import wire
from adsum.cli.change_tracker import ChangeTracker, ObservedChange
from adsum.client.native.sse import SseEvent
from adsum.core.model import Status


def _event(name: str, body: object, id: str = "") -> SseEvent:
    return SseEvent(name, wire.encode(body), id)


def _view(id: str, status: Status = Status.PASSING) -> wire.InstanceView:
    return wire.InstanceView(id, "10.0.0.1", 80, status, since=5.0, cause="registered", actor="ann")


def _opened(following: ChangeTracker, *views: wire.InstanceView, epoch: str = "e") -> list[ObservedChange]:
    seen = list(following.feed(_event("open", wire.WatchOpened(epoch, 1, True, "w"))))
    seen += following.feed(_event("service", wire.ServiceView(epoch, "orders", 1, list(views))))
    seen += following.feed(_event("synced", wire.WatchSynced(1), f"{epoch}:1"))
    return seen


def test_the_initial_state_is_marked() -> None:
    following = ChangeTracker()
    seen = _opened(following, _view("a"))
    assert [(each.initial, each.change.id, each.change.previous_status) for each in seen] == [(True, "a", "")]
    assert following.position == "e:1"


def test_a_change_has_the_old_and_the_new_status() -> None:
    following = ChangeTracker()
    _opened(following, _view("a"))
    change = wire.ServiceChange("orders", 1, 2, [_view("a", Status.CRITICAL)])
    (seen,) = following.feed(_event("change", change))
    assert (seen.initial, seen.change.previous_status, seen.change.status, seen.change.revision) == (
        False,
        "passing",
        "critical",
        2,
    )


def test_a_removal_has_the_reason() -> None:
    following = ChangeTracker()
    _opened(following, _view("a"))
    change = wire.ServiceChange("orders", 1, 2, [], [wire.RemovedInstance("a", "deregistered", "ann", "bye", 7.0)])
    (seen,) = following.feed(_event("change", change))
    told = (seen.change.previous_status, seen.change.status, seen.change.cause, seen.change.reason, seen.change.at)
    assert told == ("passing", "gone", "deregistered", "bye", 7.0)


def test_a_second_full_state_yields_only_the_differences() -> None:
    following = ChangeTracker()
    _opened(following, _view("a"), _view("b"))
    seen = _opened(following, _view("b"), _view("c"), epoch="f")
    assert [(each.change.id, each.change.previous_status, each.change.status, each.initial) for each in seen] == [
        ("a", "passing", "gone", False),
        ("c", "", "passing", False),
    ]


def test_a_service_missing_from_the_full_state_is_gone() -> None:
    following = ChangeTracker()
    _opened(following, _view("a"))
    seen = list(following.feed(_event("open", wire.WatchOpened("f", 9, True, "w"))))
    seen += following.feed(_event("synced", wire.WatchSynced(9), "f:9"))
    assert [(each.change.id, each.change.status) for each in seen] == [("a", "gone")]
