"""What waits for a consumer, and what becomes of updates that it has not taken in time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.client.native.watching import subscription as subscription_module
from adsum.client.native.watching.subscription import Inbox, ReceivedUpdate, ServiceSubscription, merge_updates
from adsum.client.sources.source import ConnectionLost, ServiceUpdate
from adsum.client.views.view_state import RevisionGap, UpdateEffect, ViewState
from adsum.core.model import Status
from tests.client.fakes import delta_update, endpoint, full_update
from tests.support.fakes import run_until_idle

LOST = ConnectionLost("it is down")


def received(update: ServiceUpdate, connection: str = "one") -> ReceivedUpdate[str]:
    return ReceivedUpdate.create(update, connection)


def taken(inbox: Inbox[str]) -> list[ReceivedUpdate[str] | ConnectionLost]:
    events: list[ReceivedUpdate[str] | ConnectionLost] = []
    while (event := inbox.take()) is not None:
        events.append(event)
    return events


def test_an_update_that_was_not_taken_is_merged_with_the_next_one() -> None:
    inbox = Inbox[str]()
    inbox.add(received(full_update(5, endpoint("a"), endpoint("b"))))
    inbox.add(received(delta_update(5, 6, endpoint("c"), removed=["a"]), "two"))
    (event,) = taken(inbox)
    assert isinstance(event, ReceivedUpdate)
    assert (event.update.full, event.update.position.revision, sorted(event.update.changed)) == (True, 6, ["b", "c"])
    assert event.connection == "two", "its acknowledgement goes to the latest connection"


@pytest.mark.parametrize("status", [Status.DRAINING, Status.MAINTENANCE])
def test_a_merged_update_is_awaited_if_either_is(status: Status) -> None:
    inbox = Inbox[str]()
    inbox.add(received(delta_update(5, 6, endpoint("a", status))))
    inbox.add(received(delta_update(6, 7, endpoint("a"))))
    (event,) = taken(inbox)
    assert isinstance(event, ReceivedUpdate)
    assert event.is_awaited
    assert not received(delta_update(6, 7, endpoint("a"))).is_awaited
    assert received(delta_update(6, 7, removed=["a"])).is_awaited


def test_the_loss_of_the_connection_stays_between_updates() -> None:
    inbox = Inbox[str]()
    first, second = received(full_update(5, endpoint("a"))), received(delta_update(5, 6, endpoint("b")))
    for event in (first, ConnectionLost("once"), LOST, second):
        inbox.add(event)
    assert taken(inbox) == [first, LOST, second]


def test_updates_of_two_epochs_are_not_merged() -> None:
    inbox = Inbox[str]()
    updates = [received(full_update(5, endpoint("a"))), received(full_update(1, endpoint("b"), epoch="e2"))]
    for update in updates:
        inbox.add(update)
    assert taken(inbox) == updates


def test_an_inbox_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox[str]()
    for number in range(subscription_module.MAX_WAITING_EVENTS + 1):
        assert inbox.has_room
        inbox.add(received(full_update(5, epoch=f"e{number}")))
    assert not inbox.has_room
    monkeypatch.setattr(subscription_module, "MAX_WAITING_CHANGES", 2)
    changes = Inbox[str]()
    for revision in range(3):
        assert changes.has_room
        changes.add(received(delta_update(revision, revision + 1, endpoint(f"i{revision}"))))
    assert not changes.has_room


ID = st.sampled_from("abcd")
CHANGE = st.tuples(st.dictionaries(ID, st.integers(1, 3), max_size=3), st.frozensets(ID, max_size=2), st.booleans())


@given(st.lists(CHANGE, min_size=2, max_size=6), st.integers(0, 5))
def test_a_merged_update_has_the_effect_of_both(changes: list[Any], resent: int) -> None:
    """`resent`: how far back the changes begin that an update repeats, as one of another connection does."""
    updates, singly, merged = [], ViewState(), ViewState()
    for revision, (changed, removed, full) in enumerate(changes, 11):
        endpoints = [endpoint(id, port=port) for id, port in changed.items()]
        since = max(10, revision - 1 - resent)
        updates.append(
            full_update(revision, *endpoints)
            if full or revision == 11
            else delta_update(since, revision, *endpoints, removed=sorted(removed - changed.keys()))
        )
    whole = updates[0]
    for update in updates[1:]:
        joined = merge_updates(whole, update)
        assert joined is not None
        whole = joined
    for update in updates:
        singly.apply(update, 0.0)
    assert merged.apply(whole, 0.0) is UpdateEffect.CHANGED
    assert (merged.endpoints, merged.position) == (singly.endpoints, singly.position)


@given(st.integers(0, 5), st.integers(0, 9), st.integers(0, 9), st.booleans(), st.sampled_from(["e1", "e2"]))
def test_what_can_not_be_applied_after_an_update_is_not_merged_with_it(
    ours: int, since: int, theirs: int, full: bool, epoch: str
) -> None:
    earlier = full_update(ours, endpoint("a"))
    later = full_update(theirs, epoch=epoch) if full else delta_update(since, theirs, endpoint("b"), epoch=epoch)
    state = ViewState()
    state.apply(earlier, 0.0)
    try:
        fits = state.apply(later, 0.0) is not UpdateEffect.BEHIND and epoch == "e1"
    except RevisionGap:
        fits = False
    assert (merge_updates(earlier, later) is not None) == fits


async def test_a_consumer_waits_for_the_next_event_and_then_for_the_error() -> None:
    subscription = ServiceSubscription[str]("orders", lambda: None, None)
    wakes: list[str] = []
    subscription.on_taken = lambda: wakes.append("taken")
    waiting = asyncio.ensure_future(subscription.next())
    await run_until_idle()
    subscription.add(LOST)
    assert await waiting is LOST
    subscription.add(received(full_update(5)))
    subscription.fail(RuntimeError("broken"))
    assert isinstance(await subscription.next(), ReceivedUpdate)
    assert wakes == ["taken", "taken"]
    with pytest.raises(RuntimeError, match="broken"):
        await subscription.next()
