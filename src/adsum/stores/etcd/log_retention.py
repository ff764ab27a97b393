"""The retention of the log in etcd: follows its keys and picks those to delete."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from adsum.stores.etcd.layout import Head, Layout
from adsum.stores.retention import Retention

TRIM_SLACK_CHANGES: Final = 1_000
"""Changes by which the log exceeds its bounds before it is trimmed, so that most batches delete nothing."""


class LogRetention:
    """Follows the keys of the log without reading the entries."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._retention = Retention[bytes]()
        self._newest = b""
        self.is_loaded = False
        """True once all keys of the log are known."""

    def load(self, keys: Iterable[bytes]) -> None:
        """Sets all keys of the log, given in order. Keys that no node wrote are skipped."""
        self._retention = Retention[bytes]()
        self._newest = b""
        for key in keys:
            with suppress(ValueError):
                self._retention.add(*self._entry(key))
                self._newest = key
        self.is_loaded = True

    def add(self, head: Head) -> None:
        """Adds the entries of a batch, given its head. A batch that is known already changes nothing."""
        counts = head.logged or ({"": head.count} if head.count else {})
        entries = sorted(
            (self._layout.log_key(head.basis, service, count), service, count) for service, count in counts.items()
        )
        if head.basis and entries and entries[0][0] > self._newest:
            for key, service, count in entries:
                self._retention.add(service, key, count)
            self._newest = entries[-1][0]

    def trim(self) -> list[bytes]:
        """Removes and returns the keys to delete now; none until the log exceeds its bounds by the slack."""
        return self._retention.trim() if self._retention.is_over_bounds(TRIM_SLACK_CHANGES) else []

    def oldest(self, service: str) -> bytes | None:
        """Returns the first key that may hold changes of the service; None if no key does."""
        # Entries of earlier versions hold the changes of several services: their service is "".
        candidates = (self._retention.oldest(name) for name in (service, ""))
        return min((key for key in candidates if key is not None), default=None)

    def _entry(self, key: bytes) -> tuple[str, bytes, int]:
        service, count = self._layout.parse_log_key(key)
        return service, key, count
