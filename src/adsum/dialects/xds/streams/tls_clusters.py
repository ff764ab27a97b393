"""The clusters of one client that use TLS, so that no instance is called in plain text when a change is rejected."""

from __future__ import annotations

from collections.abc import Iterable

from adsum.dialects.xds.streams.resource_view import ResourceView, is_named
from adsum.gateway.resources.resources import ResourceKind


class TlsClusters:
    """The clusters whose version at the client is known to use TLS.

    A response is recorded when it is sent: by the time of the answer, another version may be published. A cluster of
    which the client's version is not known is not among them.
    """

    __slots__ = ("_in_flight", "_names", "_resources")

    def __init__(self, resources: ResourceView) -> None:
        self._resources = resources
        self._names: set[str] = set()
        self._in_flight: frozenset[str] = frozenset()
        """The clusters in the last response that use TLS."""

    def __contains__(self, cluster: object) -> bool:
        return cluster in self._names

    def record_initial(self, versions: Iterable[tuple[str, str]]) -> None:
        """Records the clusters, by name and version, that the client had when it connected, before it gets others."""
        for cluster, version in versions:
            found = self._resources.find(ResourceKind.CLUSTER, cluster)
            if found is not None and found.has_tls and found.version == version:
                self._names.add(cluster)

    def record_sent(self, clusters: Iterable[str]) -> None:
        """Records that a response with the present version of these clusters is in flight."""
        self._in_flight = frozenset(filter(self._has_tls, clusters))

    def record_accepted(self, clusters: Iterable[str]) -> None:
        """Records that the client has accepted the response in flight, which had these clusters or removed them."""
        self._names.difference_update(clusters)
        self._names |= self._in_flight

    def record_rejected(self, clusters: Iterable[str], reason: str) -> None:
        """Records that the client has rejected the response in flight, which had these clusters or removed them.

        The client applies the clusters that its reason does not name, as far as is known: so these use TLS only if they
        did before and do in the response, too.
        """
        applied = (name for name in clusters if not is_named(name, reason))
        self._names.difference_update(name for name in applied if name not in self._in_flight)

    def remove(self, clusters: Iterable[str]) -> None:
        """Removes clusters that don't exist any more."""
        self._names.difference_update(clusters)

    def _has_tls(self, cluster: str) -> bool:
        found = self._resources.find(ResourceKind.CLUSTER, cluster)
        return found is not None and found.has_tls
