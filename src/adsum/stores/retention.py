"""Which recorded changes a store keeps, so that one service's changes never push out another's. Pure.

Every service keeps its latest `each` changes. Past `most` in all, the oldest changes of the service that has the most
go first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

from adsum.core.catalog.changes import MAX_HISTORY, MAX_HISTORY_PER_SERVICE

T = TypeVar("T")


class Retention(Generic[T]):
    """Counts what is recorded, service by service. An entry is whatever the store finds its record again by.

    Adding and dropping an entry takes the same time however many there are.
    """

    def __init__(self, max_per_service: int = MAX_HISTORY_PER_SERVICE, max_total: int = MAX_HISTORY) -> None:
        self._each = max_per_service
        self._most = max_total
        self._entries: dict[str, deque[tuple[T, int]]] = {}
        """The entries of each service, oldest first, each with how many changes it holds."""
        self._counts: dict[str, int] = {}
        """How many changes each service has."""
        self._ranks: dict[int, dict[str, None]] = {}
        """The services by that number; among equals, the one that has had it for longest comes first."""
        self._highest = 0
        self._total = 0

    def __len__(self) -> int:
        """How many changes there are."""
        return self._total

    def add(self, service: str, entry: T, changes: int = 1) -> None:
        """The newest entry of a service."""
        self._entries.setdefault(service, deque()).append((entry, changes))
        self._move(service, changes)

    def newest_first(self, service: str) -> Iterable[T]:
        """The entries of a service, newest first."""
        return (entry for entry, _ in reversed(self._entries.get(service, ())))

    def oldest(self, service: str) -> T | None:
        """The oldest entry of a service; None if it has none."""
        entries = self._entries.get(service)
        return entries[0][0] if entries else None

    def is_over_bounds(self, slack: int = 0) -> bool:
        """Whether there are more changes than the bounds and `slack` allow."""
        return self._total > self._most + slack or self._highest > self._each + slack

    def trim(self) -> list[T]:
        """Forget entries that are wholly beyond the bounds, and return them."""
        dropped: list[T] = []
        while self.is_over_bounds():
            service = next(iter(self._ranks[self._highest]))
            entries = self._entries[service]
            entry, changes = entries[0]
            if self._total - changes < self._most and self._highest - changes < self._each:
                break
            entries.popleft()
            if not entries:
                del self._entries[service]
            self._move(service, -changes)
            dropped.append(entry)
        return dropped

    def _move(self, service: str, changes: int) -> None:
        """A service has so many changes more."""
        before = self._counts.pop(service, 0)
        after = before + changes
        self._total += changes
        if before:
            rank = self._ranks[before]
            del rank[service]
            if not rank:
                del self._ranks[before]
        if after:
            self._counts[service] = after
            self._ranks.setdefault(after, {})[service] = None
        self._highest = max(self._highest, after)
        while self._highest and self._highest not in self._ranks:
            self._highest -= 1
