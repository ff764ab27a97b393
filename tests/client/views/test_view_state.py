from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.client.sources.source import ServiceUpdate, ViewPosition
from adsum.client.views.view_state import SETTLING_TIME, RevisionGap, UpdateEffect, ViewState
from adsum.core.model import Status
from tests.client.fakes import delta_update, endpoint, full_update


def ids(fold: ViewState) -> list[str]:
    return [each.id for each in fold.endpoints]


def test_a_view_never_goes_backwards_within_an_epoch() -> None:
    fold = ViewState()
    fold.apply(full_update(5, endpoint("a"), endpoint("b")), 0.0)
    assert fold.apply(full_update(4, endpoint("old")), 1.0) is UpdateEffect.BEHIND
    assert fold.apply(delta_update(3, 4, removed=["a"]), 1.0) is UpdateEffect.BEHIND
    assert ids(fold) == ["a", "b"]
    assert fold.position == ("e1", 5)


def test_changes_of_a_node_that_caught_up_are_applied_after_its_old_update_was_ignored() -> None:
    fold = ViewState()
    fold.apply(full_update(5, endpoint("a"), endpoint("b")), 0.0)
    fold.apply(full_update(3, endpoint("a")), 1.0)
    assert fold.apply(delta_update(3, 7, endpoint("c"), removed=["a"]), 2.0) is UpdateEffect.CHANGED
    assert ids(fold) == ["b", "c"]


def test_a_heartbeat_keeps_the_view_fresh_and_changes_nothing() -> None:
    fold = ViewState()
    fold.apply(full_update(5, endpoint("a")), 0.0)
    assert fold.apply(delta_update(5, 9), 1.0) is UpdateEffect.REFRESHED
    assert fold.position == ("e1", 9)


def test_a_heartbeat_at_the_current_revision_keeps_the_view_fresh() -> None:
    fold = ViewState()
    fold.apply(full_update(5, endpoint("a")), 0.0)
    assert fold.apply(delta_update(5, 5), 1.0) is UpdateEffect.REFRESHED
    assert fold.position == ("e1", 5)


def test_an_update_with_the_same_endpoints_only_refreshes_the_view() -> None:
    fold = ViewState()
    fold.apply(full_update(5, endpoint("a")), 0.0)
    assert fold.apply(full_update(6, endpoint("a")), 1.0) is UpdateEffect.REFRESHED
    assert fold.apply(delta_update(6, 7, endpoint("a"), removed=["never-there"]), 1.0) is UpdateEffect.REFRESHED


def test_a_first_empty_update_changes_the_view() -> None:
    assert ViewState().apply(full_update(0), 0.0) is UpdateEffect.CHANGED


def test_changes_of_another_epoch_are_refused_until_a_full_update_comes() -> None:
    fold = ViewState()
    fold.apply(full_update(5, endpoint("a")), 0.0)
    with pytest.raises(RevisionGap):
        fold.apply(delta_update(1, 2, endpoint("b"), epoch="e2"), 1.0)
    assert ids(fold) == ["a"]
    assert fold.resume_from is None
    fold.apply(full_update(2, endpoint("a"), endpoint("b"), epoch="e2"), 2.0)
    assert fold.resume_from == ("e2", 2)


def test_changes_that_leave_a_gap_are_refused() -> None:
    fold = ViewState()
    fold.apply(full_update(5, endpoint("a")), 0.0)
    with pytest.raises(RevisionGap):
        fold.apply(delta_update(6, 7, endpoint("b")), 1.0)
    assert fold.apply(full_update(4), 2.0) is UpdateEffect.BEHIND, "a gap is no leave to go backwards"


def test_an_empty_new_epoch_removes_nothing_before_it_has_settled() -> None:
    fold = ViewState()
    fold.apply(full_update(5, endpoint("a"), endpoint("b")), 0.0)
    assert fold.apply(full_update(0, epoch="e2"), 10.0) is UpdateEffect.REFRESHED
    assert ids(fold) == ["a", "b"]
    assert fold.next_deadline() == 10.0 + SETTLING_TIME
    assert not fold.tick(10.0 + SETTLING_TIME - 0.1)
    assert fold.tick(10.0 + SETTLING_TIME)
    assert ids(fold) == []


def test_instances_that_come_back_in_a_new_epoch_end_the_settling() -> None:
    fold = ViewState()
    fold.apply(full_update(5, endpoint("a"), endpoint("b")), 0.0)
    fold.apply(full_update(0, epoch="e2"), 10.0)
    fold.apply(delta_update(0, 1, endpoint("a", Status.STARTING), epoch="e2"), 11.0)
    assert [each.status for each in fold.endpoints] == ["starting", "passing"]
    assert fold.is_settling
    fold.apply(delta_update(1, 2, endpoint("b"), epoch="e2"), 12.0)
    assert fold.next_deadline() is None


def test_an_instance_that_left_in_the_new_epoch_is_not_kept() -> None:
    fold = ViewState()
    fold.apply(full_update(5, endpoint("a"), endpoint("b")), 0.0)
    fold.apply(full_update(0, epoch="e2"), 10.0)
    assert fold.apply(delta_update(0, 2, removed=["a"], epoch="e2"), 11.0) is UpdateEffect.CHANGED
    assert ids(fold) == ["b"]


def test_connecting_again_while_settling_keeps_the_endpoints_of_the_epoch_before() -> None:
    fold = ViewState()
    fold.apply(full_update(5, endpoint("a"), endpoint("b")), 0.0)
    fold.apply(full_update(1, epoch="e2"), 10.0)
    fold.apply(full_update(2, endpoint("c"), epoch="e2"), 15.0)
    assert ids(fold) == ["a", "b", "c"]
    assert fold.next_deadline() == 10.0 + SETTLING_TIME


def test_an_empty_update_within_an_epoch_empties_the_view() -> None:
    fold = ViewState()
    fold.apply(full_update(5, endpoint("a")), 0.0)
    fold.apply(full_update(6), 1.0)
    assert ids(fold) == []


groups = st.builds(
    lambda epoch, revision, is_whole, back, present, gone: ServiceUpdate(
        ViewPosition(epoch, revision),
        is_whole,
        {id: endpoint(id) for id in present},
        frozenset(gone - present),
        since=max(0, revision - back),
    ),
    st.sampled_from(["e1", "e2"]),
    st.integers(0, 10),
    st.booleans(),
    st.integers(0, 4),
    st.frozensets(st.sampled_from("abcd")),
    st.frozensets(st.sampled_from("abcd")),
)


@given(st.lists(groups, max_size=30))
def test_positions_only_grow_and_another_epoch_needs_a_full_update(said: list[ServiceUpdate]) -> None:
    fold = ViewState()
    for now, group in enumerate(said):
        before, shown = fold.position, fold.endpoints
        try:
            taken = fold.apply(group, float(now))
        except RevisionGap:
            assert (fold.position, fold.endpoints) == (before, shown)
            continue
        if fold.position is None or before is None:
            continue
        if before.epoch == fold.position.epoch:
            assert fold.position.revision >= before.revision
        else:
            assert group.full
            assert {each.id for each in shown} - group.removed <= {each.id for each in fold.endpoints}
        if taken is not UpdateEffect.CHANGED:
            assert fold.endpoints == shown
