"""Detects that an etcd cluster has another history: it was wiped, or restored from a backup. Pure.

The revisions of the new history continue from a lower one. Concurrent calls are answered in any order, so an answer
below the revision that is known *now* proves nothing. But a linearizable read never returns a revision below the one
that was known when the read began, so a lower one proves another history. Watches and keep-alives are answered by one
member, which may lag. So their revisions count as known, but prove nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from adsum.etcd.values import Header


@dataclass(frozen=True, slots=True)
class ReadStart:
    """The history and the newest revision that were known when a read began."""

    history_number: int
    newest: int


class ClusterHistory:
    """The current history of a cluster, and the newest revision that is known of it."""

    def __init__(self) -> None:
        self._cluster = 0
        """The id of the cluster; 0 while nothing is known."""
        self._number = 0
        self._newest = 0

    @property
    def epoch(self) -> str:
        """The name of the history. It is the same in all processes that have seen no other history of the cluster."""
        return f"{self._cluster:x}-{self._number}"

    def begin_read(self) -> ReadStart:
        """Begins a linearizable read. Pass the result to `end_read`."""
        return ReadStart(self._number, self._newest)

    def end_read(self, start: ReadStart, header: Header) -> str | None:
        """Returns the epoch of a read's answer; None if another history began meanwhile, so that it is not known."""
        if start.history_number != self._number:
            return None
        if self._cluster and (header.cluster != self._cluster or header.revision < start.newest):
            self._number += 1
            self._newest = 0
        self._cluster = header.cluster
        self._newest = max(self._newest, header.revision)
        return self.epoch

    def observe(self, epoch: str, revision: int) -> None:
        """Adds a revision that a watch or an earlier process knew. Ignores a revision of another epoch."""
        if not self._cluster:
            self._begin_with(epoch)
        if epoch == self.epoch:
            self._newest = max(self._newest, revision)

    def _begin_with(self, epoch: str) -> None:
        cluster, _, number = epoch.partition("-")
        try:
            self._cluster, self._number = int(cluster, 16), int(number)
        except ValueError:
            return  # Another source of views made this epoch.
