"""The batches that this node has written and that the watch has not delivered yet, so that it need not decode them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from adsum.core.catalog.changes import Batch, Change
from adsum.stores.etcd.layout import Head

MAX_OWN_BATCHES: Final = 8
"""Batches that are kept. Past it the oldest is forgotten, and decoded when the watch delivers it."""


class OwnBatches:
    """The changes of batches that were written in one part, by the random name of the batch."""

    def __init__(self) -> None:
        self._changes: dict[str, Sequence[Change]] = {}

    def add(self, batch: str, changes: Sequence[Change]) -> None:
        """Keeps the changes of a batch that is about to be written, if the watch will deliver just these.

        Of several changes of one instance it delivers the last, and what is forgotten is not a key.
        """
        if len({change.key for change in changes}) < len(changes) or any(change.forgets_service for change in changes):
            return
        self._changes[batch] = changes
        if len(self._changes) > MAX_OWN_BATCHES:
            del self._changes[next(iter(self._changes))]

    def take(self, head: Head, revision: int) -> Batch | None:
        """Removes the batch with that head, and returns it; None if it must be decoded."""
        changes = self._changes.pop(head.batch, None)
        return Batch(revision, tuple(changes)) if changes is not None else None
