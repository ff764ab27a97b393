from __future__ import annotations

import pytest

from adsum import wire
from adsum.client.errors import Garbled
from adsum.client.native import event_batcher as grouping_module
from adsum.client.native.event_batcher import Grouping
from adsum.client.native.sse import Event
from adsum.client.sources.source import Group, Position
from adsum.core.model import Status


def event(name: str, body: wire.Answer, id: str = "") -> Event:
    return Event(name, wire.encode(body), id)


def instance(id: str, status: Status = Status.PASSING, port: int = 80) -> wire.InstanceView:
    return wire.InstanceView(id, "10.0.0.1", port, status)


def told(grouping: Grouping, *events: Event) -> list[Group]:
    return [group for group in map(grouping.take, events) if group is not None]


OPEN = event("open", wire.Opened("e1", 7, True, "w1"))
SERVICE = event("service", wire.ServiceView("e1", "orders", 5, [instance("a"), instance("b")]))
SYNCED = event("synced", wire.Synced(7, 0.5), "e1:7")


def test_nothing_is_shown_before_the_group_is_complete() -> None:
    grouping = Grouping("orders", None)
    assert told(grouping, OPEN, SERVICE) == []
    (group,) = told(grouping, SYNCED)
    assert group.position == ("e1", 7)
    assert group.whole
    assert sorted(group.changed) == ["a", "b"]
    assert group.age == 0.5


def test_a_service_that_is_not_told_in_the_whole_is_empty() -> None:
    (group,) = told(Grouping("orders", None), OPEN, SYNCED)
    assert group.whole
    assert group.changed == {}


def test_changes_join_on_to_what_was_asked_for_then_to_the_group_before() -> None:
    grouping = Grouping("orders", Position("e1", 4))
    first, second = told(
        grouping,
        event("open", wire.Opened("e1", 7, False, "w1")),
        event("change", wire.ServiceChange("orders", 2, 7, [instance("c")], [wire.Gone("a", "deregistered", "me")])),
        SYNCED,
        event("synced", wire.Synced(8)),
    )
    assert (first.whole, first.since, set(first.changed), set(first.gone)) == (False, 4, {"c"}, {"a"})
    assert (second.whole, second.since, second.changed, second.gone) == (False, 7, {}, frozenset())


def test_several_changes_of_one_group_are_one() -> None:
    grouping = Grouping("orders", Position("e1", 4))
    gone = [wire.Gone("a", "deregistered", "me"), wire.Gone("b", "deregistered", "me")]
    (group,) = told(
        grouping,
        event("open", wire.Opened("e1", 7, False, "w1")),
        event("change", wire.ServiceChange("orders", 4, 5, [instance("a")])),
        event("change", wire.ServiceChange("orders", 5, 6, [], gone)),
        event("change", wire.ServiceChange("orders", 6, 7, [instance("b", port=81)])),
        SYNCED,
    )
    assert set(group.gone) == {"a"}
    assert group.changed["b"].port == 81


def test_a_whole_service_within_a_resumed_watch_replaces_it() -> None:
    (group,) = told(
        Grouping("orders", Position("e1", 4)), event("open", wire.Opened("e1", 7, False, "w1")), SERVICE, SYNCED
    )
    assert group.whole


def test_a_watch_may_open_anew_in_another_epoch() -> None:
    grouping = Grouping("orders", None)
    _, group = told(
        grouping,
        OPEN,
        SERVICE,
        SYNCED,
        event("open", wire.Opened("e2", 1, True, "w1")),
        event("synced", wire.Synced(1)),
    )
    assert group.position == ("e2", 1)
    assert group.whole


def test_other_services_and_unknown_events_are_passed_over() -> None:
    (group,) = told(
        Grouping("orders", None),
        OPEN,
        event("service", wire.ServiceView("e1", "users", 5, [instance("u")])),
        event("change", wire.ServiceChange("users", 4, 5, [instance("v")])),
        Event("news", b"not even JSON"),
        SYNCED,
    )
    assert group.changed == {}


def test_an_instance_that_is_none_does_not_hide_the_others() -> None:
    broken = wire.InstanceView("b", "0.0.0.0", 80, Status.PASSING)
    (group,) = told(
        Grouping("orders", None),
        OPEN,
        event("service", wire.ServiceView("e1", "orders", 5, [instance("a"), broken])),
        SYNCED,
    )
    assert set(group.changed) == {"a"}


@pytest.mark.parametrize("wrong", [SYNCED, Event("open", b"{"), Event("service", b'{"epoch": 1}')])
def test_what_the_protocol_does_not_allow_is_garbled(wrong: Event) -> None:
    with pytest.raises(Garbled):
        Grouping("orders", None).take(wrong)


def test_a_group_that_never_ends_is_garbled_and_one_that_ends_may_be_followed_by_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change = event("change", wire.ServiceChange("orders", 2, 7, [instance("c")]))
    monkeypatch.setattr(grouping_module, "MAX_GROUP", 3 * len(change.data))
    grouping = Grouping("orders", None)
    told(grouping, OPEN, SYNCED)
    for _ in range(5):
        assert len(told(grouping, change, change, SYNCED)) == 1
    assert told(grouping, change, change, change) == []
    with pytest.raises(Garbled, match="without the `synced`"):
        grouping.take(change)
