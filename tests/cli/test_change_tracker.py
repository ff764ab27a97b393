"""From the events of a watch to one line a change."""

from __future__ import annotations

from adsum import wire
from adsum.cli.change_tracker import Following, Seen
from adsum.client.native.sse import Event
from adsum.core.model import Status


def _event(name: str, body: object, id: str = "") -> Event:
    return Event(name, wire.encode(body), id)


def _view(id: str, status: Status = Status.PASSING) -> wire.InstanceView:
    return wire.InstanceView(id, "10.0.0.1", 80, status, since=5.0, cause="registered", actor="ann")


def _opened(following: Following, *views: wire.InstanceView, epoch: str = "e") -> list[Seen]:
    seen = list(following.take(_event("open", wire.Opened(epoch, 1, True, "w"))))
    seen += following.take(_event("service", wire.ServiceView(epoch, "orders", 1, list(views))))
    seen += following.take(_event("synced", wire.Synced(1), f"{epoch}:1"))
    return seen


def test_how_things_stand_at_first_is_marked_so() -> None:
    following = Following()
    seen = _opened(following, _view("a"))
    assert [(each.first, each.told.id, each.told.was) for each in seen] == [(True, "a", "")]
    assert following.position == "e:1"


def test_a_change_tells_from_what_to_what() -> None:
    following = Following()
    _opened(following, _view("a"))
    change = wire.ServiceChange("orders", 1, 2, [_view("a", Status.CRITICAL)])
    (seen,) = following.take(_event("change", change))
    assert (seen.first, seen.told.was, seen.told.status, seen.told.revision) == (False, "passing", "critical", 2)


def test_who_leaves_is_told_with_the_reason() -> None:
    following = Following()
    _opened(following, _view("a"))
    change = wire.ServiceChange("orders", 1, 2, [], [wire.Gone("a", "deregistered", "ann", "bye", 7.0)])
    (seen,) = following.take(_event("change", change))
    told = (seen.told.was, seen.told.status, seen.told.cause, seen.told.reason, seen.told.at)
    assert told == ("passing", "gone", "deregistered", "bye", 7.0)


def test_being_told_the_whole_again_tells_only_what_differs() -> None:
    following = Following()
    _opened(following, _view("a"), _view("b"))
    seen = _opened(following, _view("b"), _view("c"), epoch="f")
    assert [(each.told.id, each.told.was, each.told.status, each.first) for each in seen] == [
        ("a", "passing", "gone", False),
        ("c", "", "passing", False),
    ]


def test_a_service_that_the_whole_no_longer_has_is_gone() -> None:
    following = Following()
    _opened(following, _view("a"))
    seen = list(following.take(_event("open", wire.Opened("f", 9, True, "w"))))
    seen += following.take(_event("synced", wire.Synced(9), "f:9"))
    assert [(each.told.id, each.told.status) for each in seen] == [("a", "gone")]
