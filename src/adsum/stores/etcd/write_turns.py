"""The turns of nodes that write at the same time, so that few of their transactions fail. Pure: time is an argument.

A transaction fails if another node has written since it was decided. If all nodes write as soon as they can, most
transactions fail, and those that succeed are small. So nodes that have just written take turns, in the order of their
ids, and each waits for the nodes whose turn comes before its own. A node that lets its turn pass is not waited for
until it has written again. Turns are only a courtesy: the condition of each transaction keeps the order of batches.

A node that is slower than the others, or farther from etcd, may never finish in time. Therefore a node whose
transactions fail repeatedly requests a turn, and all others leave the store to it for a while.
"""

from __future__ import annotations

from typing import Final

ACTIVE_TIME: Final = 0.5
"""Seconds after which a node that has not written is not waited for."""
MIN_TURN, MAX_TURN = 0.003, 0.05
"""Seconds that a node has to begin and finish a write, at least and at most. Then it is the next one's turn."""
REQUESTED_TURN: Final = 0.15
"""Seconds for which the other nodes leave the store to one that has requested a turn."""
TURN_FACTOR: Final = 2.0
"""The length of a turn in relation to the usual time between the batches of two nodes."""
_SMOOTHING: Final = 0.1
"""The weight of the latest such time in the usual one."""


class WriteTurns:
    """Follows which nodes write, and computes how long one of them leaves the store to the others."""

    def __init__(self) -> None:
        self._written_at: dict[str, float] = {}
        """Node → instant of its latest batch, the latest one last. Only of those that are waited for."""
        self._requested_at: dict[str, float] = {}
        """Node → instant at which it requested a turn, the first one first."""
        self._usual_gap = MIN_TURN
        """Seconds between the batches of two nodes of which one comes after the other."""
        self._revision = 0
        """The revision of the latest batch that is known."""

    @property
    def length(self) -> float:
        """The seconds of a turn."""
        return min(MAX_TURN, max(MIN_TURN, TURN_FACTOR * self._usual_gap))

    def note_request(self, node: str, now: float) -> None:
        """Takes note of a node that requests a turn."""
        self._requested_at.setdefault(node, now)

    def note_batch(self, writer: str, revision: int, now: float) -> None:
        """Takes note of a batch of any node. One that is known already changes nothing.

        A node that let its turn pass is not waited for any more.
        """
        if revision <= self._revision:
            return
        self._revision = revision
        self._requested_at.pop(writer, None)
        latest = next(reversed(self._written_at), writer)
        gap = now - self._written_at.get(latest, now)
        passed = _between(self._order(writer), latest, writer)
        if not passed and latest != writer:
            self._usual_gap += _SMOOTHING * (min(MAX_TURN, gap) - self._usual_gap)
        for number, node in enumerate(passed, 1):
            if gap >= number * self.length:
                del self._written_at[node]
        self._written_at.pop(writer, None)
        self._written_at[writer] = now

    def delay(self, node: str, now: float) -> float:
        """Returns the seconds for which this node leaves the store to others; 0.0 or less if it is its turn."""
        while self._written_at and now - self._written_at[first := next(iter(self._written_at))] > ACTIVE_TIME:
            del self._written_at[first]
        if self._requested_at:
            requester, requested_at = next(iter(self._requested_at.items()))
            if (left := requested_at + REQUESTED_TURN - now) > 0:
                return 0.0 if requester == node else left
            del self._requested_at[requester]
            return self.delay(node, now)
        if not self._written_at:
            return 0.0
        latest, at = next(reversed(self._written_at.items()))
        turns_before = len(_between(self._order(node), latest, node))
        return at + turns_before * self.length - now if turns_before else 0.0

    def _order(self, node: str) -> list[str]:
        return sorted({*self._written_at, node})


def _between(order: list[str], start: str, end: str) -> list[str]:
    """Returns the nodes between two of them in a ring; all others if both are the same."""
    first, last = order.index(start), order.index(end)
    return order[first + 1 : last] if first < last else order[first + 1 :] + order[:last]
