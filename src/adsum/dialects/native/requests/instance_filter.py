"""A filter for the instances of a service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from adsum.core.model import Listing


@dataclass(frozen=True, slots=True)
class InstanceFilter:
    """Matches instances with one of the statuses, all tags, all metadata and the zone. An empty field matches all."""

    statuses: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    zone: str | None = None
    metadata: frozenset[tuple[str, str]] = frozenset()

    @staticmethod
    def from_query(query: Mapping[str, Any]) -> InstanceFilter | None:
        """Returns the filter in a parsed query, None if it matches everything."""
        instance_filter = InstanceFilter(
            frozenset(query.get("status", ())),
            frozenset(query.get("tag", ())),
            query.get("zone"),
            frozenset(query.get("metadata", {}).items()),
        )
        return instance_filter if instance_filter != NO_FILTER else None

    @property
    def digest(self) -> str:
        """A short text that identifies the filter: the same in every process, and another one for another filter."""
        values = sorted(self.statuses), sorted(self.tags), self.zone, sorted(self.metadata)
        return blake2b(repr(values).encode(errors="surrogatepass"), digest_size=8).hexdigest()

    def matches(self, listing: Listing) -> bool:
        instance = listing.instance
        return (
            (not self.statuses or listing.status in self.statuses)
            and self.tags.issubset(instance.tags)
            and (self.zone is None or instance.zone == self.zone)
            and all(instance.metadata.get(key) == value for key, value in self.metadata)
        )


NO_FILTER = InstanceFilter()
