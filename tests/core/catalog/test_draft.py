"""Drafts, and their bound in bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from adsum.core.catalog import decisions, observations
from adsum.core.catalog.changes import Batch
from adsum.core.catalog.decisions import Caller, Decision
from adsum.core.catalog.draft import Draft
from adsum.core.catalog.snapshots import EMPTY_SNAPSHOT, Snapshot
from adsum.core.catalog.takeover import Takeover
from adsum.core.errors import CatalogFull
from adsum.core.model import Instance, Key, Override, Registration, Status

ANN = Caller("ann", 1.0)
KEY = Key("orders", "o1")


def _registration(id: str = "o1", *, size: int = 0, holder: str = "h1") -> Registration:
    instance = Instance("orders", id, "10.0.0.1", 8000 + len(id), metadata={"m": "x" * size} if size else {})
    return Registration(instance, holder=holder)


def _listed(*registrations: Registration) -> Snapshot:
    snapshot = EMPTY_SNAPSHOT
    for registration in registrations:
        snapshot = snapshot.apply(Batch(snapshot.revision + 1, decisions.register(registration, ANN)(snapshot)))
    return snapshot


def test_registrations_of_one_batch_share_the_remaining_memory() -> None:
    one, other = _registration("o1", size=500), _registration("o22", size=500)
    draft = Draft(EMPTY_SNAPSHOT, one.size + other.size - 1)
    draft.add(decisions.register(one, ANN)(draft))
    with pytest.raises(CatalogFull, match=r"--max-catalog"):
        draft.add(decisions.register(other, ANN)(draft))
    assert (draft.instance_count, draft.size, draft.find(other.key)) == (1, one.size, None)
    draft.add(decisions.deregister(one.key, "", "", ANN)(draft))
    draft.add(decisions.register(other, ANN)(draft))
    assert draft.size == other.size


def test_a_larger_registration_of_a_listed_instance_is_refused_past_the_bound() -> None:
    snapshot = _listed(_registration(size=10))
    draft = Draft(snapshot, snapshot.size)
    with pytest.raises(CatalogFull, match="needs"):
        draft.add(decisions.register(_registration(size=11), ANN)(draft))


@pytest.mark.parametrize(
    "decide",
    [
        lambda: decisions.register(_registration(size=9), ANN),
        lambda: decisions.register(replace(_registration(size=10), ttl=3.0), ANN),
        lambda: decisions.deregister(KEY, "h1", "", ANN),
        lambda: observations.lapse(KEY, "", ANN),
        lambda: decisions.set_override(KEY, Override(Status.DRAINING, "ann", "x" * 1_000), "", ANN),
        lambda: decisions.register(_registration("o1", size=10, holder="h2"), ANN, Takeover.FORCE),
    ],
)
def test_changes_that_need_no_memory_are_accepted_far_beyond_the_bound(decide: Callable[[], Decision]) -> None:
    draft = Draft(_listed(_registration(size=10), _registration("o22")), 1)
    facts = decide()(draft)
    assert facts
    draft.add(facts)
