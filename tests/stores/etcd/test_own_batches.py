from __future__ import annotations

from adsum.core.catalog.changes import forget_service
from adsum.core.provenance import Cause, Provenance
from adsum.stores.etcd.layout import Head
from adsum.stores.etcd.own_batches import MAX_OWN_BATCHES, OwnBatches
from tests.stores.support import change


def test_a_batch_is_given_back_once_with_its_revision() -> None:
    batches, changes = OwnBatches(), [change("a"), change("b")]
    batches.add("x", changes)
    batch = batches.take(Head("e1", "x"), 7)
    assert batch is not None
    assert (batch.revision, batch.changes) == (7, tuple(changes))
    assert batches.take(Head("e1", "x"), 7) is None
    assert batches.take(Head("e1", "of another node"), 8) is None


def test_a_batch_that_the_watch_delivers_with_other_changes_is_decoded() -> None:
    batches = OwnBatches()
    batches.add("twice", [change("a"), change("a")])
    batches.add("forgets", [forget_service("orders", Provenance(Cause.DEREGISTERED, "tester"))])
    assert batches.take(Head("e1", "twice"), 7) is None
    assert batches.take(Head("e1", "forgets"), 8) is None


def test_batches_that_are_never_delivered_are_forgotten() -> None:
    batches = OwnBatches()
    for number in range(MAX_OWN_BATCHES + 1):
        batches.add(str(number), [change("a")])
    assert batches.take(Head("e1", "0"), 7) is None
    assert batches.take(Head("e1", "1"), 8) is not None
