"""How much of history etcd keeps: the entries of the log by their keys, oldest first, and which of them may go."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from adsum.core.changes import HISTORY
from adsum.etcd.values import Delete
from adsum.stores.etcd.layout import Layout

SLACK: Final = 1_000
"""By how many changes more than `HISTORY` the log may grow before it is cut: most batches cut nothing."""


class Trail:
    """Follows the log without reading it."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._keys: deque[bytes] = deque()
        self._changes = 0

    def load(self, keys: Iterable[bytes]) -> None:
        """Every key of the log, in order."""
        self._keys = deque(keys)
        self._changes = sum(map(self._layout.log_count, self._keys))

    def add(self, basis: int, count: int) -> None:
        """A batch was written; one that is known already changes nothing."""
        key = self._layout.log_key(basis, count)
        if basis and (not self._keys or key > self._keys[-1]):
            self._keys.append(key)
            self._changes += count

    def cut(self) -> Delete | None:
        """What is to be deleted now, if anything."""
        if self._changes <= HISTORY + SLACK:
            return None
        left = self._changes
        for key in self._keys:
            left -= self._layout.log_count(key)
            if left < HISTORY:
                return Delete(self._keys[0], key) if key != self._keys[0] else None
        return None

    def was_cut(self, cut: Delete) -> None:
        """It is done."""
        while self._keys and cut.end is not None and self._keys[0] < cut.end:
            self._changes -= self._layout.log_count(self._keys.popleft())
