from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.client.sources.source import ServiceUpdate, ViewPosition
from adsum.client.views.view_state import SETTLING_TIME, RevisionGap, UpdateEffect, ViewState
from adsum.core.model import Endpoint, Instance, Status
from tests.client.fakes import delta_update, endpoint, full_update


def ids(state: ViewState) -> list[str]:
    return [endpoint.id for endpoint in state.endpoints]


def test_a_view_never_goes_backwards_within_an_epoch() -> None:
    state = ViewState()
    state.apply(full_update(5, endpoint("a"), endpoint("b")), 0.0)
    assert state.apply(full_update(4, endpoint("old")), 1.0) is UpdateEffect.BEHIND
    assert state.apply(delta_update(3, 4, removed=["a"]), 1.0) is UpdateEffect.BEHIND
    assert ids(state) == ["a", "b"]
    assert state.position == ("e1", 5)


def test_changes_of_a_node_that_caught_up_are_applied_after_its_old_update_was_ignored() -> None:
    state = ViewState()
    state.apply(full_update(5, endpoint("a"), endpoint("b")), 0.0)
    state.apply(full_update(3, endpoint("a")), 1.0)
    assert state.apply(delta_update(3, 7, endpoint("c"), removed=["a"]), 2.0) is UpdateEffect.CHANGED
    assert ids(state) == ["b", "c"]


def test_a_heartbeat_keeps_the_view_fresh_and_changes_nothing() -> None:
    state = ViewState()
    state.apply(full_update(5, endpoint("a")), 0.0)
    assert state.apply(delta_update(5, 9), 1.0) is UpdateEffect.REFRESHED
    assert state.position == ("e1", 9)


def test_a_heartbeat_at_the_current_revision_keeps_the_view_fresh() -> None:
    state = ViewState()
    state.apply(full_update(5, endpoint("a")), 0.0)
    assert state.apply(delta_update(5, 5), 1.0) is UpdateEffect.REFRESHED
    assert state.position == ("e1", 5)


def test_an_update_with_the_same_endpoints_only_refreshes_the_view() -> None:
    state = ViewState()
    state.apply(full_update(5, endpoint("a")), 0.0)
    assert state.apply(full_update(6, endpoint("a")), 1.0) is UpdateEffect.REFRESHED
    assert state.apply(delta_update(6, 7, endpoint("a"), removed=["never-there"]), 1.0) is UpdateEffect.REFRESHED


def test_a_first_empty_update_changes_the_view() -> None:
    assert ViewState().apply(full_update(0), 0.0) is UpdateEffect.CHANGED


def test_changes_of_another_epoch_are_refused_until_a_full_update_comes() -> None:
    state = ViewState()
    state.apply(full_update(5, endpoint("a")), 0.0)
    with pytest.raises(RevisionGap):
        state.apply(delta_update(1, 2, endpoint("b"), epoch="e2"), 1.0)
    assert ids(state) == ["a"]
    assert state.resume_from is None
    state.apply(full_update(2, endpoint("a"), endpoint("b"), epoch="e2"), 2.0)
    assert state.resume_from == ("e2", 2)


def test_changes_that_leave_a_gap_are_refused() -> None:
    state = ViewState()
    state.apply(full_update(5, endpoint("a")), 0.0)
    with pytest.raises(RevisionGap):
        state.apply(delta_update(6, 7, endpoint("b")), 1.0)
    assert state.apply(full_update(4), 2.0) is UpdateEffect.BEHIND, "a view does not go backwards after a gap either"


def test_an_empty_new_epoch_removes_nothing_before_it_has_settled() -> None:
    state = ViewState()
    state.apply(full_update(5, endpoint("a"), endpoint("b")), 0.0)
    assert state.apply(full_update(0, epoch="e2"), 10.0) is UpdateEffect.REFRESHED
    assert ids(state) == ["a", "b"]
    assert state.next_deadline() == 10.0 + SETTLING_TIME
    assert not state.tick(10.0 + SETTLING_TIME - 0.1)
    assert state.tick(10.0 + SETTLING_TIME)
    assert ids(state) == []


def test_instances_that_come_back_in_a_new_epoch_end_the_settling() -> None:
    state = ViewState()
    state.apply(full_update(5, endpoint("a"), endpoint("b")), 0.0)
    state.apply(full_update(0, epoch="e2"), 10.0)
    state.apply(delta_update(0, 1, endpoint("a", Status.STARTING), epoch="e2"), 11.0)
    assert [endpoint.status for endpoint in state.endpoints] == ["starting", "passing"]
    assert state.is_settling
    state.apply(delta_update(1, 2, endpoint("b"), epoch="e2"), 12.0)
    assert state.next_deadline() is None


def test_an_instance_that_left_in_the_new_epoch_is_not_kept() -> None:
    state = ViewState()
    state.apply(full_update(5, endpoint("a"), endpoint("b")), 0.0)
    state.apply(full_update(0, epoch="e2"), 10.0)
    assert state.apply(delta_update(0, 2, removed=["a"], epoch="e2"), 11.0) is UpdateEffect.CHANGED
    assert ids(state) == ["b"]


def test_connecting_again_while_settling_keeps_the_endpoints_of_the_epoch_before() -> None:
    state = ViewState()
    state.apply(full_update(5, endpoint("a"), endpoint("b")), 0.0)
    state.apply(full_update(1, epoch="e2"), 10.0)
    state.apply(full_update(2, endpoint("c"), epoch="e2"), 15.0)
    assert ids(state) == ["a", "b", "c"]
    assert state.next_deadline() == 10.0 + SETTLING_TIME


def test_an_empty_update_within_an_epoch_empties_the_view() -> None:
    state = ViewState()
    state.apply(full_update(5, endpoint("a")), 0.0)
    state.apply(full_update(6), 1.0)
    assert ids(state) == []


any_update = st.builds(
    lambda epoch, revision, is_full, back, present, removed: ServiceUpdate(
        ViewPosition(epoch, revision),
        is_full,
        {id: endpoint(id) for id in present},
        frozenset(removed - present),
        since=max(0, revision - back),
    ),
    st.sampled_from(["e1", "e2"]),
    st.integers(0, 10),
    st.booleans(),
    st.integers(0, 4),
    st.frozensets(st.sampled_from("abcd")),
    st.frozensets(st.sampled_from("abcd")),
)


@given(st.lists(any_update, max_size=30))
def test_positions_only_grow_and_another_epoch_needs_a_full_update(updates: list[ServiceUpdate]) -> None:
    state = ViewState()
    for now, update in enumerate(updates):
        before, endpoints = state.position, state.endpoints
        try:
            effect = state.apply(update, float(now))
        except RevisionGap:
            assert (state.position, state.endpoints) == (before, endpoints)
            continue
        if state.position is None or before is None:
            continue
        if before.epoch == state.position.epoch:
            assert state.position.revision >= before.revision
        else:
            assert update.full
            assert {endpoint.id for endpoint in endpoints} - update.removed <= {
                endpoint.id for endpoint in state.endpoints
            }
        if effect is not UpdateEffect.CHANGED:
            assert state.endpoints == endpoints


PORTS = st.dictionaries(st.integers(0, 150), st.none() | st.integers(1, 3), max_size=90)
UPDATES = st.lists(st.tuples(st.booleans(), st.integers(0, 3), PORTS), max_size=12)
"""Whether it is full, the epoch, and ports by number of the instance; None removes it."""


@given(UPDATES)
def test_the_endpoints_are_those_of_the_updates_in_the_order_of_ids(
    updates: list[tuple[bool, int, dict[int, int | None]]],
) -> None:
    state, known, kept = ViewState(), dict[str, Endpoint](), dict[str, Endpoint]()
    epoch = ""
    for revision, (full, era, ports) in enumerate(updates, 1):
        listed = {
            f"i-{n}": Endpoint(Instance("orders", f"i-{n}", "10.0.0.1", port)) for n, port in ports.items() if port
        }
        removed = frozenset(f"i-{n}" for n, port in ports.items() if not port)
        full = full or f"e{era}" != epoch
        if full:
            if epoch not in ("", f"e{era}"):
                kept = {**kept, **known}
            known, epoch = dict(listed), f"e{era}"
        else:
            known = {id: endpoint for id, endpoint in {**known, **listed}.items() if id not in removed}
        gone = frozenset[str]() if full else removed
        kept = {id: endpoint for id, endpoint in kept.items() if id not in listed and id not in gone}
        before = state.endpoints
        effect = state.apply(
            ServiceUpdate(ViewPosition(epoch, revision), full, listed, gone, since=0 if full else revision - 1), 0.0
        )
        expected = {**kept, **known}
        assert state.endpoints == tuple(expected[id] for id in sorted(expected))
        assert effect is UpdateEffect.CHANGED or (state.endpoints == before and revision > 1)
    state.tick(SETTLING_TIME)
    assert state.endpoints == tuple(known[id] for id in sorted(known))


def test_an_endpoint_that_a_full_update_repeats_stays_the_same_object() -> None:
    state = ViewState()
    state.apply(full_update(5, endpoint("a"), endpoint("b")), 0.0)
    before = state.endpoints
    state.apply(full_update(6, endpoint("a"), endpoint("b", Status.DRAINING)), 1.0)
    assert state.endpoints[0] is before[0]
    assert state.endpoints[1].status is Status.DRAINING
