"""The rule by which a store trims its recorded changes. Pure.

Every service keeps its latest `max_per_service` changes. Past `max_total` changes of all services, the service that has
the most loses its oldest first. So one service's changes never push out another's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

from adsum.core.catalog.changes import MAX_HISTORY, MAX_HISTORY_PER_SERVICE

T = TypeVar("T")


class Retention(Generic[T]):
    """Counts recorded changes by service and picks those to delete.

    An entry is the store's own reference to a record, of one change or several. Adding and trimming an entry take
    constant time.
    """

    def __init__(self, max_per_service: int = MAX_HISTORY_PER_SERVICE, max_total: int = MAX_HISTORY) -> None:
        self._max_per_service = max_per_service
        self._max_total = max_total
        self._entries: dict[str, deque[tuple[T, int]]] = {}
        """Service → its entries with their numbers of changes, the oldest first."""
        self._counts: dict[str, int] = {}
        """Service → its number of changes."""
        self._services_by_count: dict[int, dict[str, None]] = {}
        """Number of changes → services that have so many; the one that has had it for longest comes first."""
        self._highest = 0
        self._total = 0

    def __len__(self) -> int:
        """Returns the number of changes of all services."""
        return self._total

    def add(self, service: str, entry: T, changes: int = 1) -> None:
        """Adds the newest entry of a service, which holds so many changes."""
        self._entries.setdefault(service, deque()).append((entry, changes))
        self._add_to_count(service, changes)

    def newest_first(self, service: str) -> Iterable[T]:
        """Returns the entries of a service, newest first."""
        return (entry for entry, _ in reversed(self._entries.get(service, ())))

    def oldest(self, service: str) -> T | None:
        """Returns the oldest entry of a service; None if it has none."""
        entries = self._entries.get(service)
        return entries[0][0] if entries else None

    def is_over_bounds(self, slack: int = 0) -> bool:
        """Returns whether a bound is exceeded by more than `slack` changes."""
        return self._total > self._max_total + slack or self._highest > self._max_per_service + slack

    def trim(self) -> list[T]:
        """Removes and returns the entries that are wholly beyond the bounds."""
        trimmed: list[T] = []
        while self.is_over_bounds():
            service = next(iter(self._services_by_count[self._highest]))
            entries = self._entries[service]
            entry, changes = entries[0]
            if self._total - changes < self._max_total and self._highest - changes < self._max_per_service:
                break
            entries.popleft()
            if not entries:
                del self._entries[service]
            self._add_to_count(service, -changes)
            trimmed.append(entry)
        return trimmed

    def _add_to_count(self, service: str, changes: int) -> None:
        before = self._counts.pop(service, 0)
        after = before + changes
        self._total += changes
        if before:
            services = self._services_by_count[before]
            del services[service]
            if not services:
                del self._services_by_count[before]
        if after:
            self._counts[service] = after
            self._services_by_count.setdefault(after, {})[service] = None
        self._highest = max(self._highest, after)
        while self._highest and self._highest not in self._services_by_count:
            self._highest -= 1
