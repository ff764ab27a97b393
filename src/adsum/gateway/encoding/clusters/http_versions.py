"""Which version of HTTP each instance speaks, and how a service's requests are shared between those that differ.

Envoy speaks one version to all instances of a cluster. So the instances of a service that speak HTTP/2 have a cluster
of their own, beside that of the others, and a route sends to both by the weight of those who can take requests. Each
instance goes by its own scheme: nobody who comes changes how another is spoken to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import gcd
from typing import Final, NamedTuple

from adsum.core.addresses import is_ip_address
from adsum.core.model import Instance, Listing
from adsum.core.selection import USABLE_STATUSES
from adsum.gateway.encoding.clusters.assignments import without_reserves
from adsum.gateway.intent.upstreams import UpstreamProtocol

GRPC_SCHEMES: Final = frozenset({"grpc", "grpcs"})
"""Schemes of programs that serve gRPC and nothing else."""
HTTP2_SCHEMES: Final = GRPC_SCHEMES | {"h2", "h2c"}

_MARK: Final = "h2"
"""Ends the names of HTTP/2 clusters. No condition of a selector can look like it: each of those has a = in it."""


class HttpVersion(Enum):
    """A version of HTTP."""

    HTTP1 = "http1"
    HTTP2 = "http2"


class VersionWeights(NamedTuple):
    """How requests are shared between the instances that speak HTTP/1.1 and those that speak HTTP/2."""

    http1: int
    http2: int


@dataclass(frozen=True, slots=True)
class TrafficSplit:
    """Where the ordinary requests for some instances of a service go, and where the gRPC calls go.

    `is_empty`: none of them takes requests. It is found out of the targets that share a route's requests with others.
    """

    requests: VersionWeights
    calls: VersionWeights
    is_empty: bool = False


TrafficSplits = Mapping[str, TrafficSplit]
"""By the names of selectors. One that is missing is `ALL_HTTP1`."""
ALL_HTTP1: Final = TrafficSplit(VersionWeights(1, 0), VersionWeights(1, 0))
"""What is so of every service that no instance with HTTP/2 is listed of."""
ALL_HTTP2: Final = TrafficSplit(VersionWeights(0, 1), VersionWeights(0, 1))


def http_version(instance: Instance, protocol: UpstreamProtocol) -> HttpVersion:
    """What that instance is spoken to: what its service's settings say, else what its scheme says."""
    if protocol is UpstreamProtocol.AUTO:
        return HttpVersion.HTTP2 if instance.scheme in HTTP2_SCHEMES else HttpVersion.HTTP1
    return HttpVersion.HTTP2 if protocol is UpstreamProtocol.HTTP2 else HttpVersion.HTTP1


def http_versions(instances: Iterable[Instance], protocol: UpstreamProtocol) -> list[HttpVersion]:
    """All that the instances are spoken to; what is usual if there are none."""
    if protocol is not UpstreamProtocol.AUTO:
        return [HttpVersion.HTTP2 if protocol is UpstreamProtocol.HTTP2 else HttpVersion.HTTP1]
    spoken = {each.scheme in HTTP2_SCHEMES for each in instances} or {False}
    return [HttpVersion.HTTP2 if http2 else HttpVersion.HTTP1 for http2 in sorted(spoken)]


def cluster_name(name: str, version: HttpVersion) -> str:
    """The cluster of those of a selector's instances that speak that version."""
    if version is HttpVersion.HTTP1:
        return name
    return f"{name}&{_MARK}" if "?" in name else f"{name}?{_MARK}"


def http2_only_marker(service: str) -> str:
    """The cluster without instances that tells a script that all of the service's speak HTTP/2."""
    return f"{cluster_name(service, HttpVersion.HTTP2)}&only"


def traffic_split(
    service_versions: Sequence[HttpVersion], listings: Sequence[Listing], addresses: Mapping[str, str]
) -> TrafficSplit:
    """How requests for those instances are shared. Those that can't take requests count only if nobody can.

    gRPC needs HTTP/2, and a program that serves gRPC alone can't do anything with other requests. `spoken`: all that
    the instances of their service are spoken to. `addresses`: the IP of each host name that is an instance's address.
    """
    if len(service_versions) == 1:
        return ALL_HTTP1 if service_versions[0] is HttpVersion.HTTP1 else ALL_HTTP2
    reached = [each for each in listings if _is_reached(each.instance, addresses)]
    left = without_reserves(reached)
    takers = [each.instance for each in left if each.status in USABLE_STATUSES] or [each.instance for each in left]
    http1 = sum(each.weight or 1 for each in takers if each.scheme not in HTTP2_SCHEMES)
    http2 = sum(each.weight or 1 for each in takers if each.scheme in HTTP2_SCHEMES - GRPC_SCHEMES)
    grpc = any(each.scheme in GRPC_SCHEMES for each in takers)
    calls = VersionWeights(1, 0) if http1 and not (http2 or grpc) else VersionWeights(0, 1)
    if not http1 and not http2:
        return TrafficSplit(VersionWeights(0, 1) if grpc else VersionWeights(1, 0), calls)
    common = gcd(http1, http2)
    return TrafficSplit(VersionWeights(http1 // common, http2 // common), calls)


def is_empty(listings: Iterable[Listing], addresses: Mapping[str, str]) -> bool:
    """Whether none of those instances both can be reached and takes requests."""
    return not any(each.status in USABLE_STATUSES and _is_reached(each.instance, addresses) for each in listings)


def _is_reached(instance: Instance, addresses: Mapping[str, str]) -> bool:
    return instance.address in addresses or is_ip_address(instance.address)


def unrouted_clusters(splits: TrafficSplits) -> frozenset[str]:
    """The clusters of all selectors to which no route leads, because nobody in them takes requests."""
    return frozenset(
        cluster_name(name, version)
        for name, each in splits.items()
        for version, *shares in zip(HttpVersion, each.requests, each.calls, strict=True)
        if each.is_empty or not any(shares)
    )


def weighted_clusters(name: str, weights: VersionWeights) -> Iterator[tuple[str, float]]:
    """The clusters that take part, and what part of 1.0."""
    whole = weights.http1 + weights.http2
    for version, share in zip(HttpVersion, weights, strict=True):
        if share:
            yield cluster_name(name, version), share / whole
