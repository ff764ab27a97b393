"""The rules of Consul's blocking queries, for those who ask ("Blocking Queries: Implementation Details", in the
documentation of its HTTP API): when to begin again, and how often at most to ask.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

QUERIES_PER_SECOND: Final = 4.0
"""Answers a second that a query may have over time."""
QUERY_BURST: Final = 8.0
"""How many of them may come at once before that."""


class IndexChange(StrEnum):
    """What the index of an answer means."""

    CHANGED = "changed"
    SAME = "same"
    WENT_BACK = "back"
    """It went backwards: the state was restored or lost, and is to be asked for anew."""


class BlockingQuery:
    """One query that is asked again and again."""

    def __init__(self, resets: int = 0, newest: int = 0) -> None:
        """`newest`: an index that is known from earlier, of that history."""
        self.index = 0
        """What to ask with; 0: at once."""
        self.resets = resets
        """How often the index has gone backwards."""
        self._newest = newest

    def update(self, index: int) -> IndexChange:
        """An answer came with that index."""
        index = max(1, index)  # One that asked with 0 again would never be held.
        if index < self._newest:
            self.index = self._newest = 0
            self.resets += 1
            return IndexChange.WENT_BACK
        before, self.index, self._newest = self.index, index, index
        return IndexChange.SAME if before == index else IndexChange.CHANGED
