from __future__ import annotations

import pytest

from adsum import wire
from adsum.client.errors import ProtocolViolation
from adsum.client.native.sse import SseEvent
from adsum.client.native.watching import event_batcher
from adsum.client.native.watching.event_batcher import EventBatcher
from adsum.client.sources.source import ServiceUpdate, ViewPosition
from adsum.core.model import Status


def event(name: str, body: wire.ResponseBody, id: str = "") -> SseEvent:
    return SseEvent(name, wire.encode(body), id)


def instance(id: str, status: Status = Status.PASSING, port: int = 80) -> wire.InstanceView:
    return wire.InstanceView(id, "10.0.0.1", port, status)


def updates(batcher: EventBatcher, *events: SseEvent) -> list[ServiceUpdate]:
    return [update for event in events for service, update in batcher.add(event) if service == "orders"]


OPEN = event("open", wire.WatchOpened("e1", 7, True, "w1"))
SERVICE = event("service", wire.ServiceView("e1", "orders", 5, [instance("a"), instance("b")]))
SYNCED = event("synced", wire.WatchSynced(7, 0.5), "e1:7")


def test_nothing_is_shown_before_the_update_is_complete() -> None:
    batcher = EventBatcher(["orders"], None)
    assert updates(batcher, OPEN, SERVICE) == []
    (update,) = updates(batcher, SYNCED)
    assert update.position == ("e1", 7)
    assert update.full
    assert sorted(update.changed) == ["a", "b"]
    assert update.age == 0.5


def test_a_full_watch_without_a_service_event_is_empty() -> None:
    (update,) = updates(EventBatcher(["orders"], None), OPEN, SYNCED)
    assert update.full
    assert update.changed == {}


def test_changes_follow_the_requested_position_then_the_update_before() -> None:
    batcher = EventBatcher(["orders"], ViewPosition("e1", 4))
    first, second = updates(
        batcher,
        event("open", wire.WatchOpened("e1", 7, False, "w1")),
        event(
            "change",
            wire.ServiceChange("orders", 2, 7, [instance("c")], [wire.RemovedInstance("a", "deregistered", "me")]),
        ),
        SYNCED,
        event("synced", wire.WatchSynced(8)),
    )
    assert (first.full, first.since, set(first.changed), set(first.removed)) == (False, 4, {"c"}, {"a"})
    assert (second.full, second.since, second.changed, second.removed) == (False, 7, {}, frozenset())


def test_several_changes_of_one_update_are_merged() -> None:
    batcher = EventBatcher(["orders"], ViewPosition("e1", 4))
    removed = [wire.RemovedInstance("a", "deregistered", "me"), wire.RemovedInstance("b", "deregistered", "me")]
    (update,) = updates(
        batcher,
        event("open", wire.WatchOpened("e1", 7, False, "w1")),
        event("change", wire.ServiceChange("orders", 4, 5, [instance("a")])),
        event("change", wire.ServiceChange("orders", 5, 6, [], removed)),
        event("change", wire.ServiceChange("orders", 6, 7, [instance("b", port=81)])),
        SYNCED,
    )
    assert set(update.removed) == {"a"}
    assert update.changed["b"].port == 81


def test_a_service_event_in_a_resumed_watch_makes_the_update_full() -> None:
    (update,) = updates(
        EventBatcher(["orders"], ViewPosition("e1", 4)),
        event("open", wire.WatchOpened("e1", 7, False, "w1")),
        SERVICE,
        SYNCED,
    )
    assert update.full


def test_a_watch_may_open_again_in_another_epoch() -> None:
    batcher = EventBatcher(["orders"], None)
    _, update = updates(
        batcher,
        OPEN,
        SERVICE,
        SYNCED,
        event("open", wire.WatchOpened("e2", 1, True, "w1")),
        event("synced", wire.WatchSynced(1)),
    )
    assert update.position == ("e2", 1)
    assert update.full


def test_other_services_and_unknown_events_are_ignored() -> None:
    (update,) = updates(
        EventBatcher(["orders"], None),
        OPEN,
        event("service", wire.ServiceView("e1", "users", 5, [instance("u")])),
        event("change", wire.ServiceChange("users", 4, 5, [instance("v")])),
        SseEvent("news", b"not even JSON"),
        SYNCED,
    )
    assert update.changed == {}


def test_an_invalid_instance_does_not_hide_the_others() -> None:
    broken = wire.InstanceView("b", "0.0.0.0", 80, Status.PASSING)
    (update,) = updates(
        EventBatcher(["orders"], None),
        OPEN,
        event("service", wire.ServiceView("e1", "orders", 5, [instance("a"), broken])),
        SYNCED,
    )
    assert set(update.changed) == {"a"}


@pytest.mark.parametrize("wrong", [SYNCED, SseEvent("open", b"{"), SseEvent("service", b'{"epoch": 1}')])
def test_an_invalid_event_is_a_protocol_violation(wrong: SseEvent) -> None:
    with pytest.raises(ProtocolViolation):
        EventBatcher(["orders"], None).add(wrong)


def test_an_update_without_end_is_a_protocol_violation_and_complete_ones_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change = event("change", wire.ServiceChange("orders", 2, 7, [instance("c")]))
    monkeypatch.setattr(event_batcher, "MAX_UPDATE_BYTES", 3 * len(change.data))
    batcher = EventBatcher(["orders"], None)
    updates(batcher, OPEN, SYNCED)
    for _ in range(5):
        assert len(updates(batcher, change, change, SYNCED)) == 1
    assert updates(batcher, change, change, change) == []
    with pytest.raises(ProtocolViolation, match="without a `synced` event"):
        batcher.add(change)


def joined(service: str, *, full: bool = True, since: int = 0) -> SseEvent:
    return event("joined", wire.ServiceJoined(service, full, since))


def shape(batcher: EventBatcher, *events: SseEvent) -> list[tuple[str, bool, int, list[str]]]:
    """Returns the updates: the service of each, whether it is full, what it follows, and the ids that changed."""
    completed = [pair for event in events for pair in batcher.add(event)]
    return [(service, update.full, update.since, sorted(update.changed)) for service, update in completed]


USERS = event("service", wire.ServiceView("e1", "users", 6, [instance("u")]))


def test_every_service_gets_an_update_of_each_group() -> None:
    batcher = EventBatcher(["orders", "users"], None)
    assert shape(batcher, OPEN, SERVICE, USERS, SYNCED) == [
        ("orders", True, 0, ["a", "b"]),
        ("users", True, 0, ["u"]),
    ]
    change = event("change", wire.ServiceChange("users", 6, 8, [instance("v")]))
    assert shape(batcher, change, event("synced", wire.WatchSynced(8))) == [
        ("orders", False, 7, []),
        ("users", False, 7, ["v"]),
    ]


def test_a_service_gets_no_update_before_it_has_joined() -> None:
    batcher = EventBatcher(["orders"], None)
    batcher.join("users", None)
    assert shape(batcher, OPEN, SERVICE, USERS, SYNCED) == [("orders", True, 0, ["a", "b"])]
    assert shape(batcher, joined("users"), USERS, SYNCED)[1:] == [("users", True, 0, ["u"])]


def test_a_service_joins_from_its_own_position() -> None:
    batcher = EventBatcher(["orders"], None)
    batcher.join("users", ViewPosition("e1", 3))
    shape(batcher, OPEN, SERVICE, SYNCED)
    assert shape(batcher, joined("users", full=False, since=3), SYNCED)[1:] == [("users", False, 3, [])]


def test_the_answer_to_an_earlier_join_with_another_position_is_ignored() -> None:
    batcher = EventBatcher(["orders"], None)
    batcher.join("users", ViewPosition("e1", 3))
    batcher.leave("users")
    batcher.join("users", ViewPosition("e1", 5))
    shape(batcher, OPEN, SERVICE, SYNCED)
    change = event("change", wire.ServiceChange("users", 3, 7, [instance("u")]))
    assert len(shape(batcher, joined("users", full=False, since=3), change, SYNCED)) == 1
    assert shape(batcher, joined("users", full=False, since=5), SYNCED)[1:] == [("users", False, 5, [])]


def test_a_service_that_left_gets_no_update() -> None:
    batcher = EventBatcher(["orders", "users"], None)
    batcher.leave("users")
    assert shape(batcher, OPEN, SERVICE, USERS, SYNCED) == [("orders", True, 0, ["a", "b"])]


def test_a_service_that_joins_again_begins_anew() -> None:
    batcher = EventBatcher(["orders"], None)
    shape(batcher, OPEN, SERVICE, SYNCED)
    batcher.join("orders", None)
    change = event("change", wire.ServiceChange("orders", 7, 8, [instance("c")]))
    assert shape(batcher, change, SYNCED) == []
    assert shape(batcher, joined("orders"), SERVICE, SYNCED) == [("orders", True, 0, ["a", "b"])]


def test_in_a_new_epoch_every_service_is_full_and_one_that_joins_waits_for_its_event() -> None:
    batcher = EventBatcher(["orders"], None)
    shape(batcher, OPEN, SERVICE, SYNCED)
    batcher.join("users", ViewPosition("e1", 7))
    begun = event("open", wire.WatchOpened("e2", 1, True, "w1"))
    assert shape(batcher, begun, joined("users"), USERS, event("synced", wire.WatchSynced(1))) == [
        ("orders", True, 7, []),
        ("users", True, 7, ["u"]),
    ]


def test_each_service_may_be_as_large_as_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_batcher, "MAX_UPDATE_BYTES", max(len(SERVICE.data), len(USERS.data)))
    batcher = EventBatcher(["orders", "users"], None)
    assert len(shape(batcher, OPEN, SERVICE, USERS, SYNCED)) == 2
    with pytest.raises(ProtocolViolation, match="without a `synced` event"):
        shape(batcher, SERVICE, SERVICE)
