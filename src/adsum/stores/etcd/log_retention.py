"""How much of history etcd keeps: the entries of the log by their keys, and which of them may go."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from adsum.stores.etcd.layout import Head, Layout
from adsum.stores.retention import Retention

TRIM_SLACK_CHANGES: Final = 1_000
"""By how many changes more than its bounds allow the log may grow before it is cut: most batches cut nothing."""


class LogRetention:
    """Follows the log without reading it."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._retention = Retention[bytes]()
        self._newest = b""
        self.is_loaded = False
        """Whether it follows all that is in the log."""

    def load(self, keys: Iterable[bytes]) -> None:
        """Every key of the log, in order."""
        self._retention = Retention[bytes]()
        self._newest = b""
        for key in keys:
            with suppress(ValueError):  # Somebody else's: nothing that a node writes.
                self._retention.add(*self._entry(key))
                self._newest = key
        self.is_loaded = True

    def add(self, head: Head) -> None:
        """A batch with that head was written; one that is known already changes nothing."""
        counts = head.logged or ({"": head.count} if head.count else {})
        keys = sorted(self._layout.log_key(head.basis, service, count) for service, count in counts.items())
        if head.basis and keys and keys[0] > self._newest:
            for key in keys:
                self._retention.add(*self._entry(key))
            self._newest = keys[-1]

    def trim(self) -> list[bytes]:
        """The entries that are to be deleted now, if any. They are not followed any more."""
        return self._retention.trim() if self._retention.is_over_bounds(TRIM_SLACK_CHANGES) else []

    def oldest(self, service: str) -> bytes | None:
        """The first entry that may be about the service; None if none is."""
        oldest = (self._retention.oldest(each) for each in (service, ""))
        return min((key for key in oldest if key is not None), default=None)

    def _entry(self, key: bytes) -> tuple[str, bytes, int]:
        service, count = self._layout.parse_log_key(key)
        return service, key, count
