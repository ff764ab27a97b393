"""Which instances of a service are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from adsum.core.model import Listing


@dataclass(frozen=True, slots=True)
class InstanceFilter:
    """Admits instances that stand as one of `statuses`, have all `tags` and `metadata`, and are in `zone`."""

    statuses: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    zone: str | None = None
    metadata: frozenset[tuple[str, str]] = frozenset()

    @staticmethod
    def from_query(query: Mapping[str, Any]) -> InstanceFilter | None:
        """The filter in a parsed query; None if everything is asked for."""
        narrow = InstanceFilter(
            frozenset(query.get("status", ())),
            frozenset(query.get("tag", ())),
            query.get("zone"),
            frozenset(query.get("metadata", {}).items()),
        )
        return narrow if narrow != NO_FILTER else None

    @property
    def digest(self) -> str:
        """A short text that another filter has not: the same in every process."""
        asked = sorted(self.statuses), sorted(self.tags), self.zone, sorted(self.metadata)
        return blake2b(repr(asked).encode(errors="surrogatepass"), digest_size=8).hexdigest()

    def matches(self, listing: Listing) -> bool:
        instance = listing.instance
        return (
            (not self.statuses or listing.status in self.statuses)
            and self.tags.issubset(instance.tags)
            and (self.zone is None or instance.zone == self.zone)
            and all(instance.metadata.get(key) == value for key, value in self.metadata)
        )


NO_FILTER = InstanceFilter()
