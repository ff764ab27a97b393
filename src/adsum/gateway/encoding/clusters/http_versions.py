"""The version of HTTP of each instance, and the split of requests between instances with different versions.

Envoy uses one version for all instances of a cluster. So the HTTP/2 instances of a service have a cluster of their own,
and a route splits requests between both clusters by the weight of the instances that can take requests. Each instance
is treated by its own scheme: no other instance changes that.
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

_HTTP2_SUFFIX: Final = "h2"
"""The last part of the names of HTTP/2 clusters. No condition of a selector looks like it: each contains a `=`."""


class HttpVersion(Enum):
    """A version of HTTP."""

    HTTP1 = "http1"
    HTTP2 = "http2"


class VersionWeights(NamedTuple):
    """The weights by which requests are split between HTTP/1.1 and HTTP/2 instances."""

    http1: int
    http2: int


@dataclass(frozen=True, slots=True)
class TrafficSplit:
    """The split of ordinary requests and of gRPC calls to a selector's instances between the versions of HTTP.

    `is_empty`: no instance takes requests. It is set only for targets that share a route's requests with other targets.
    """

    requests: VersionWeights
    calls: VersionWeights
    is_empty: bool = False


TrafficSplits = Mapping[str, TrafficSplit]
"""Traffic splits by the names of selectors. A missing selector has `ALL_HTTP1`."""
ALL_HTTP1: Final = TrafficSplit(VersionWeights(1, 0), VersionWeights(1, 0))
"""The split of a service without an HTTP/2 instance."""
ALL_HTTP2: Final = TrafficSplit(VersionWeights(0, 1), VersionWeights(0, 1))


def http_version(instance: Instance, protocol: UpstreamProtocol) -> HttpVersion:
    """Returns the version for the instance: that of its upstream's protocol, or that of its scheme."""
    if protocol is UpstreamProtocol.AUTO:
        return HttpVersion.HTTP2 if instance.scheme in HTTP2_SCHEMES else HttpVersion.HTTP1
    return HttpVersion.HTTP2 if protocol is UpstreamProtocol.HTTP2 else HttpVersion.HTTP1


def http_versions(instances: Iterable[Instance], protocol: UpstreamProtocol) -> list[HttpVersion]:
    """Returns the versions of the instances in order; HTTP/1.1 if there are no instances."""
    if protocol is not UpstreamProtocol.AUTO:
        return [HttpVersion.HTTP2 if protocol is UpstreamProtocol.HTTP2 else HttpVersion.HTTP1]
    uses_http2 = {instance.scheme in HTTP2_SCHEMES for instance in instances} or {False}
    return [HttpVersion.HTTP2 if http2 else HttpVersion.HTTP1 for http2 in sorted(uses_http2)]


def cluster_name(name: str, version: HttpVersion) -> str:
    """Returns the name of the cluster with the selector's instances of that version."""
    if version is HttpVersion.HTTP1:
        return name
    return f"{name}&{_HTTP2_SUFFIX}" if "?" in name else f"{name}?{_HTTP2_SUFFIX}"


def http2_only_marker(service: str) -> str:
    """Returns the name of the marker: a cluster without instances that exists if all instances speak HTTP/2."""
    return f"{cluster_name(service, HttpVersion.HTTP2)}&only"


def traffic_split(
    service_versions: Sequence[HttpVersion], listings: Sequence[Listing], addresses: Mapping[str, str]
) -> TrafficSplit:
    """Returns the split of requests to these instances, by weight.

    Instances that can't take requests count only if none of them can. gRPC calls need HTTP/2, and a program that serves
    gRPC alone can't answer other requests. `service_versions`: the versions of all instances of the service.
    `addresses`: the IP of each host name that is an instance's address.
    """
    if len(service_versions) == 1:
        return ALL_HTTP1 if service_versions[0] is HttpVersion.HTTP1 else ALL_HTTP2
    reachable = without_reserves([item for item in listings if _is_reachable(item.instance, addresses)])
    usable = [item.instance for item in reachable if item.status in USABLE_STATUSES]
    instances = usable or [item.instance for item in reachable]
    http1 = sum(instance.weight or 1 for instance in instances if instance.scheme not in HTTP2_SCHEMES)
    http2 = sum(instance.weight or 1 for instance in instances if instance.scheme in HTTP2_SCHEMES - GRPC_SCHEMES)
    has_grpc = any(instance.scheme in GRPC_SCHEMES for instance in instances)
    calls = VersionWeights(1, 0) if http1 and not (http2 or has_grpc) else VersionWeights(0, 1)
    if not http1 and not http2:
        return TrafficSplit(VersionWeights(0, 1) if has_grpc else VersionWeights(1, 0), calls)
    divisor = gcd(http1, http2)
    return TrafficSplit(VersionWeights(http1 // divisor, http2 // divisor), calls)


def is_empty(listings: Iterable[Listing], addresses: Mapping[str, str]) -> bool:
    """Returns whether none of these instances is both reachable and usable."""
    return not any(item.status in USABLE_STATUSES and _is_reachable(item.instance, addresses) for item in listings)


def _is_reachable(instance: Instance, addresses: Mapping[str, str]) -> bool:
    return instance.address in addresses or is_ip_address(instance.address)


def unrouted_clusters(splits: TrafficSplits) -> frozenset[str]:
    """Returns the clusters to which no route leads because none of their instances takes requests."""
    return frozenset(
        cluster_name(name, version)
        for name, split in splits.items()
        for version, *weights in zip(HttpVersion, split.requests, split.calls, strict=True)
        if split.is_empty or not any(weights)
    )


def weighted_clusters(name: str, weights: VersionWeights) -> Iterator[tuple[str, float]]:
    """Yields the clusters of a selector with a weight, each with its share (0.0 to 1.0)."""
    total = weights.http1 + weights.http2
    for version, weight in zip(HttpVersion, weights, strict=True):
        if weight:
            yield cluster_name(name, version), weight / total
