from __future__ import annotations

import pytest

from adsum import wire
from adsum.client.errors import ProtocolViolation
from adsum.client.native import event_batcher
from adsum.client.native.event_batcher import EventBatcher
from adsum.client.native.sse import SseEvent
from adsum.client.sources.source import ServiceUpdate, ViewPosition
from adsum.core.model import Status


def event(name: str, body: wire.ResponseBody, id: str = "") -> SseEvent:
    return SseEvent(name, wire.encode(body), id)


def instance(id: str, status: Status = Status.PASSING, port: int = 80) -> wire.InstanceView:
    return wire.InstanceView(id, "10.0.0.1", port, status)


def updates(batcher: EventBatcher, *events: SseEvent) -> list[ServiceUpdate]:
    return [update for update in map(batcher.add, events) if update is not None]


OPEN = event("open", wire.WatchOpened("e1", 7, True, "w1"))
SERVICE = event("service", wire.ServiceView("e1", "orders", 5, [instance("a"), instance("b")]))
SYNCED = event("synced", wire.WatchSynced(7, 0.5), "e1:7")


def test_nothing_is_shown_before_the_update_is_complete() -> None:
    batcher = EventBatcher("orders", None)
    assert updates(batcher, OPEN, SERVICE) == []
    (update,) = updates(batcher, SYNCED)
    assert update.position == ("e1", 7)
    assert update.full
    assert sorted(update.changed) == ["a", "b"]
    assert update.age == 0.5


def test_a_full_watch_without_a_service_event_is_empty() -> None:
    (update,) = updates(EventBatcher("orders", None), OPEN, SYNCED)
    assert update.full
    assert update.changed == {}


def test_changes_follow_the_requested_position_then_the_update_before() -> None:
    batcher = EventBatcher("orders", ViewPosition("e1", 4))
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
    batcher = EventBatcher("orders", ViewPosition("e1", 4))
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
        EventBatcher("orders", ViewPosition("e1", 4)),
        event("open", wire.WatchOpened("e1", 7, False, "w1")),
        SERVICE,
        SYNCED,
    )
    assert update.full


def test_a_watch_may_open_again_in_another_epoch() -> None:
    batcher = EventBatcher("orders", None)
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
        EventBatcher("orders", None),
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
        EventBatcher("orders", None),
        OPEN,
        event("service", wire.ServiceView("e1", "orders", 5, [instance("a"), broken])),
        SYNCED,
    )
    assert set(update.changed) == {"a"}


@pytest.mark.parametrize("wrong", [SYNCED, SseEvent("open", b"{"), SseEvent("service", b'{"epoch": 1}')])
def test_an_invalid_event_is_a_protocol_violation(wrong: SseEvent) -> None:
    with pytest.raises(ProtocolViolation):
        EventBatcher("orders", None).add(wrong)


def test_an_update_without_end_is_a_protocol_violation_and_complete_ones_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change = event("change", wire.ServiceChange("orders", 2, 7, [instance("c")]))
    monkeypatch.setattr(event_batcher, "MAX_UPDATE_BYTES", 3 * len(change.data))
    batcher = EventBatcher("orders", None)
    updates(batcher, OPEN, SYNCED)
    for _ in range(5):
        assert len(updates(batcher, change, change, SYNCED)) == 1
    assert updates(batcher, change, change, change) == []
    with pytest.raises(ProtocolViolation, match="without a `synced` event"):
        batcher.add(change)
