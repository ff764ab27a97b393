"""Substitutes: what a gateway is told in place of clusters that it refuses.

Envoy takes the other clusters of a response, and would answer requests for the one that it refused as if nobody had
told it of that service. A substitute has no instances, and says to callers why. The cluster itself is tried again when
it changes and every `RETRY` seconds: what it needs, such as a file at the gateway, may be there by then.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final, Protocol

from adsum.dialects.xds.streams.request import MAX_REJECTION_LENGTH
from adsum.dialects.xds.streams.subscription import ResourceLookup
from adsum.gateway.resources.resources import Resource, ResourceKind

MAX_CAUSE_LENGTH: Final = 256
"""Characters that callers see of a gateway's reason to reject a cluster; the rest is cut off."""
REJECTED_RETRY_INTERVAL: Final = 60.0
"""Seconds after which a gateway gets a rejected cluster again; at once if the cluster changes."""

_FOLDERS: Final = re.compile(r"/(?:[^\s/]+/)+")


class SubstituteLookup(ResourceLookup, Protocol):
    """What a client is to see, and substitutes for it."""

    def substitute(self, cluster: str, cause: str) -> Resource | None:
        """What says to callers why that cluster is not there; None: the client tells them by itself."""
        ...


class _Substitute:
    """What is told in place of one version of a cluster, and why."""

    __slots__ = ("resource", "retry_at", "version", "words")

    def __init__(self, version: str, resource: Resource, words: str) -> None:
        self.version = version
        self.resource = resource
        self.words = words
        self.retry_at: float | None = None


class ResourceView:
    """What one client is to see: its place, but substitutes for the clusters that it refuses."""

    __slots__ = ("_by_name", "_once", "_place")

    def __init__(self, place: SubstituteLookup) -> None:
        self._place = place
        self._by_name: dict[str, _Substitute] = {}
        self._once: dict[str, str] = {}
        """The versions that were refused once, maybe for what else was in the response."""

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def __contains__(self, cluster: object) -> bool:
        return cluster in self._by_name

    @property
    def max_names(self) -> int:
        """See `ResourceLookup`."""
        return self._place.max_names

    def names(self, kind: ResourceKind) -> Iterable[str]:
        """See `ResourceLookup`."""
        return self._place.names(kind)

    def find(self, kind: ResourceKind, name: str) -> Resource | None:
        """See `ResourceLookup`."""
        found = self._place.find(kind, name)
        if kind is not ResourceKind.CLUSTER or name not in self._by_name:
            return found
        if found is not None and found.version == self._by_name[name].version:
            return self._by_name[name].resource
        del self._by_name[name]
        return found

    @property
    def rejection(self) -> str:
        """Why the client refuses what it is told substitutes for, in its own words; "" if it refuses nothing."""
        return "; ".join(dict.fromkeys(each.words for each in self._by_name.values()))[:MAX_REJECTION_LENGTH]

    def record_rejected(self, clusters: Collection[str], reason: str) -> list[str]:
        """The client has refused these, and has none of that name; those to say again.

        Each is tried once more before a substitute is told: a client may only be late to ask for its assignment.
        """
        again = []
        for name in clusters:
            found = self._place.find(ResourceKind.CLUSTER, name)
            resource = None if found is None else self._place.substitute(name, _cause(name, clusters, reason))
            if found is None or resource is None:
                continue
            again.append(name)
            if self._once.get(name) == found.version:
                self._by_name[name] = _Substitute(found.version, resource, reason)
            else:
                self._once[name] = found.version
        return again

    def discard(self, clusters: Iterable[str]) -> list[str]:
        """These are taken after all, or gone; which of them there was a substitute for."""
        dropped = []
        for name in clusters:
            self._once.pop(name, None)
            if self._by_name.pop(name, None) is not None:
                dropped.append(name)
        return dropped

    def retry_due(self, now: float) -> list[str]:
        """The clusters to try again now; they have no substitute until they are refused again."""
        due = []
        for name, each in list(self._by_name.items()):
            if each.retry_at is None:
                each.retry_at = now + REJECTED_RETRY_INTERVAL
            elif now >= each.retry_at:
                del self._by_name[name]
                due.append(name)
        return due


def _cause(cluster: str, refused: Iterable[str], words: str) -> str:
    """What callers may know: what is said of that cluster alone, and of files the names without their folders."""
    _, found, about = f" {words}".partition(f" {cluster}: ")
    for other in refused:
        about = about.partition(f", {other}: ")[0]
    why = f": {_FOLDERS.sub('', about)}" if found else ""
    return f"the gateway refuses the settings of this service{why}"[:MAX_CAUSE_LENGTH]
