"""The bounds of the batches that wait for a follower."""

from __future__ import annotations

import pytest

from adsum.core.catalog.changes import Batch, FullState
from adsum.stores import batch_feed
from adsum.stores.batch_feed import BatchFeed
from tests.stores.support import change


async def test_batches_beyond_the_byte_limit_are_dropped_and_the_full_state_is_delivered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    revision = 0

    async def read_full_state() -> FullState:
        return FullState("e", revision, [])

    listing = change("o1").listing
    assert listing is not None
    monkeypatch.setattr(batch_feed, "MAX_QUEUED_BYTES", 2 * listing.registration.size)
    feed = BatchFeed(read_full_state)
    stream = feed.watch()
    assert isinstance(await anext(stream), FullState)

    def publish(count: int) -> None:
        nonlocal revision
        revision += 1
        feed.publish(Batch(revision, [change(f"o{n}") for n in range(count)]))

    for _ in range(3):  # Batches that were read do not count any more.
        publish(1)
        publish(1)
        assert [await anext(stream) for _ in range(2)] == [
            Batch(revision - 1, [change("o0")]),
            Batch(revision, [change("o0")]),
        ]
    publish(5)
    assert isinstance(await anext(stream), Batch), "one batch may be larger"
    for _ in range(3):
        publish(1)
    event = await anext(stream)
    assert isinstance(event, FullState)
    assert event.revision == revision
