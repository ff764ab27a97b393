"""The resources that one client gets: those of its group, with substitutes for the clusters that it rejects.

Envoy accepts the other clusters of a response, and would answer requests for the rejected one as if the service did not
exist. A substitute cluster has no instances, and its metadata gives callers the reason. The cluster itself is sent
again when it changes and every `REJECTED_RETRY_INTERVAL` seconds: what it needs, such as a file on the gateway's host,
may exist by then.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

from adsum.dialects.xds.streams.request import MAX_REJECTION_LENGTH
from adsum.dialects.xds.subscribers import Subscribers
from adsum.gateway.resources.resources import Resource, ResourceKind

MAX_CAUSE_LENGTH: Final = 256
"""Characters that callers see of a gateway's reason to reject a cluster; the rest is cut off."""
REJECTED_RETRY_INTERVAL: Final = 60.0
"""Seconds after which a gateway gets a rejected cluster again; at once if the cluster changes."""

_FOLDERS: Final = re.compile(r"/(?:[^\s/]+/)+")


class _Substitute:
    """The substitute for one version of a cluster, and the client's reason to reject it."""

    __slots__ = ("reason", "resource", "retry_at", "version")

    def __init__(self, version: str, resource: Resource, reason: str) -> None:
        self.version = version
        self.resource = resource
        self.reason = reason
        self.retry_at: float | None = None


class ResourceView:
    """The resources that one client gets. It is true while there are substitutes, and contains their names."""

    __slots__ = ("_rejected_once", "_subscribers", "_substitutes")

    def __init__(self, subscribers: Subscribers) -> None:
        self._subscribers = subscribers
        self._substitutes: dict[str, _Substitute] = {}
        self._rejected_once: dict[str, str] = {}
        """Versions of clusters that were rejected once, perhaps because of another resource in the response."""

    def __bool__(self) -> bool:
        return bool(self._substitutes)

    def __contains__(self, cluster: object) -> bool:
        return cluster in self._substitutes

    def names(self, kind: ResourceKind) -> Iterable[str]:
        """Returns the names of all resources of a kind; none for gRPC clients, which name everything."""
        return self._subscribers.names(kind)

    def find(self, kind: ResourceKind, name: str) -> Resource | None:
        """Returns the resource of that name, or its substitute; None if it does not exist."""
        found = self._subscribers.find(kind, name)
        if kind is not ResourceKind.CLUSTER or name not in self._substitutes:
            return found
        if found is not None and found.version == self._substitutes[name].version:
            return self._substitutes[name].resource
        del self._substitutes[name]
        return found

    @property
    def rejection(self) -> str:
        """The client's reasons to reject the clusters that have substitutes; "" if there are none."""
        reasons = dict.fromkeys(substitute.reason for substitute in self._substitutes.values())
        return "; ".join(reasons)[:MAX_REJECTION_LENGTH]

    def record_rejected(self, clusters: Collection[str], reason: str) -> list[str]:
        """Records that the client has rejected these, and has no cluster of these names; returns those to send again.

        Each cluster is sent once more before it gets a substitute: a client may only be late to subscribe to its
        assignment. A substitute is not sent again: the response that had it was rejected because of another cluster.
        """
        resent = []
        for name in clusters:
            found = self._subscribers.find(ResourceKind.CLUSTER, name)
            before = self._substitutes.get(name)
            if found is None or (before is not None and before.version == found.version):
                continue
            resource = self._subscribers.substitute(name, _cause(name, clusters, reason))
            if resource is None:
                continue
            resent.append(name)
            if self._rejected_once.get(name) == found.version:
                self._substitutes[name] = _Substitute(found.version, resource, reason)
            else:
                self._rejected_once[name] = found.version
        return resent

    def discard(self, clusters: Iterable[str]) -> list[str]:
        """Forgets that these were rejected, since they are accepted or gone; returns those that had a substitute."""
        discarded = []
        for name in clusters:
            self._rejected_once.pop(name, None)
            if self._substitutes.pop(name, None) is not None:
                discarded.append(name)
        return discarded

    def retry_due(self, now: float) -> list[str]:
        """Removes the substitutes of the clusters that are to be sent again now, and returns their names."""
        due = []
        for name, substitute in list(self._substitutes.items()):
            if substitute.retry_at is None:
                substitute.retry_at = now + REJECTED_RETRY_INTERVAL
            elif now >= substitute.retry_at:
                del self._substitutes[name]
                due.append(name)
        return due


def is_named(cluster: str, reason: str) -> bool:
    """Returns whether the reason of a rejection is about this cluster, among others."""
    return f" {cluster}: " in reason


def _cause(cluster: str, rejected: Iterable[str], reason: str) -> str:
    """Returns what callers may see of the reason: the part about this cluster, with paths cut down to file names."""
    _, found, about = f" {reason}".partition(f" {cluster}: ")
    for other in rejected:
        about = about.partition(f", {other}: ")[0]
    detail = f": {_FOLDERS.sub('', about)}" if found else ""
    return f"the gateway refuses the settings of this service{detail}"[:MAX_CAUSE_LENGTH]
