"""The client's rules of Consul's blocking queries: when to start over, and how often to query.

The source is "Blocking Queries: Implementation Details" in the documentation of Consul's HTTP API.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

QUERIES_PER_SECOND: Final = 4.0
"""The rate at which one query may be repeated, after a burst."""
QUERY_BURST: Final = 8.0
"""Repetitions of one query without a pause before the rate applies."""


class IndexChange(StrEnum):
    """The meaning of an answer's index."""

    CHANGED = "changed"
    SAME = "same"
    WENT_BACK = "back"
    """The state was restored or lost: query it anew."""


class BlockingQuery:
    """The index of one query that is repeated for ever."""

    def __init__(self, resets: int = 0, newest: int = 0) -> None:
        """`newest`: an index that an earlier process knew after `resets` resets."""
        self.index = 0
        """The index to query with. Consul answers a query with 0 at once."""
        self.resets = resets
        """The number of times that the index has gone backwards."""
        self._newest = newest

    def update(self, index: int) -> IndexChange:
        """Updates the index from an answer. Returns its meaning."""
        index = max(1, index)  # A query with 0 would never be held.
        if index < self._newest:
            self.index = self._newest = 0
            self.resets += 1
            return IndexChange.WENT_BACK
        before, self.index, self._newest = self.index, index, index
        return IndexChange.SAME if before == index else IndexChange.CHANGED
