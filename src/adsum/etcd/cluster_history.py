"""Telling one history of an etcd from the next: one that was wiped or restored from a backup counts on from lower.

Calls that run at the same time are answered in any order, so an answer below what is known *by now* says nothing. But
no linearizable read is told less than what anybody had seen when it began: below that, it is another history. What
members say by themselves (watches, kept leases) may lag, so it counts as known, and proves nothing. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from adsum.etcd.values import Header


@dataclass(frozen=True, slots=True)
class ReadStart:
    """What was known when a read began."""

    history_number: int
    newest: int


class ClusterHistory:
    """The history that is followed, and how far it is known."""

    def __init__(self) -> None:
        self._cluster = 0
        """0: nothing is known yet."""
        self._number = 0
        self._newest = 0

    @property
    def epoch(self) -> str:
        """Its name, the same in every process that knows no other history of that cluster."""
        return f"{self._cluster:x}-{self._number}"

    def begin_read(self) -> ReadStart:
        """A linearizable read begins."""
        return ReadStart(self._number, self._newest)

    def end_read(self, start: ReadStart, header: Header) -> str | None:
        """The epoch of that answer; None: another history began meanwhile, and it may be of any."""
        if start.history_number != self._number:
            return None
        if self._cluster and (header.cluster != self._cluster or header.revision < start.newest):
            self._number += 1
            self._newest = 0
        self._cluster = header.cluster
        self._newest = max(self._newest, header.revision)
        return self.epoch

    def observe(self, epoch: str, revision: int) -> None:
        """An epoch is known up to there, by a watch or from an earlier process. Of another epoch that says nothing."""
        if not self._cluster:
            self._begin_with(epoch)
        if epoch == self.epoch:
            self._newest = max(self._newest, revision)

    def _begin_with(self, epoch: str) -> None:
        cluster, _, number = epoch.partition("-")
        try:
            self._cluster, self._number = int(cluster, 16), int(number)
        except ValueError:
            return  # It is none of ours.
