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

from adsum.core.model import Instance, Listing
from adsum.core.selection import USABLE
from adsum.gateway.encoding.clusters.assignments import without_reserve
from adsum.gateway.encoding.clusters.tls import is_name
from adsum.gateway.intent.upstreams import Protocol

GRPC_SCHEMES: Final = frozenset({"grpc", "grpcs"})
"""Schemes of programs that serve gRPC and nothing else."""
HTTP2_SCHEMES: Final = GRPC_SCHEMES | {"h2", "h2c"}

_MARK: Final = "h2"
"""Ends the names of HTTP/2 clusters. No condition of a selector can look like it: each of those has a = in it."""


class Version(Enum):
    """A version of HTTP."""

    HTTP1 = "http1"
    HTTP2 = "http2"


class Shares(NamedTuple):
    """How requests are shared between the instances that speak HTTP/1.1 and those that speak HTTP/2."""

    http1: int
    http2: int


@dataclass(frozen=True, slots=True)
class Split:
    """Where the ordinary requests for some instances of a service go, and where the gRPC calls go.

    `empty`: none of them takes requests. It is found out of the targets that share a route's requests with others.
    """

    requests: Shares
    calls: Shares
    empty: bool = False


Splits = Mapping[str, Split]
"""By the names of selectors. One that is missing is `ALL_HTTP1`."""
ALL_HTTP1: Final = Split(Shares(1, 0), Shares(1, 0))
"""What is so of every service that no instance with HTTP/2 is listed of."""
ALL_HTTP2: Final = Split(Shares(0, 1), Shares(0, 1))


def version(instance: Instance, protocol: Protocol) -> Version:
    """What that instance is spoken to: what its service's settings say, else what its scheme says."""
    if protocol is Protocol.AUTO:
        return Version.HTTP2 if instance.scheme in HTTP2_SCHEMES else Version.HTTP1
    return Version.HTTP2 if protocol is Protocol.HTTP2 else Version.HTTP1


def versions(instances: Iterable[Instance], protocol: Protocol) -> list[Version]:
    """All that the instances are spoken to; what is usual if there are none."""
    if protocol is not Protocol.AUTO:
        return [Version.HTTP2 if protocol is Protocol.HTTP2 else Version.HTTP1]
    spoken = {each.scheme in HTTP2_SCHEMES for each in instances} or {False}
    return [Version.HTTP2 if http2 else Version.HTTP1 for http2 in sorted(spoken)]


def cluster_name(name: str, version: Version) -> str:
    """The cluster of those of a selector's instances that speak that version."""
    if version is Version.HTTP1:
        return name
    return f"{name}&{_MARK}" if "?" in name else f"{name}?{_MARK}"


def sole(service: str) -> str:
    """The cluster without instances that tells a script that all of the service's speak HTTP/2."""
    return f"{cluster_name(service, Version.HTTP2)}&only"


def split(spoken: Sequence[Version], listings: Sequence[Listing], addresses: Mapping[str, str]) -> Split:
    """How requests for those instances are shared. Those that can't take requests count only if nobody can.

    gRPC needs HTTP/2, and a program that serves gRPC alone can't do anything with other requests. `spoken`: all that
    the instances of their service are spoken to. `addresses`: the IP of each host name that is an instance's address.
    """
    if len(spoken) == 1:
        return ALL_HTTP1 if spoken[0] is Version.HTTP1 else ALL_HTTP2
    reached = [each for each in listings if _is_reached(each.instance, addresses)]
    left = without_reserve(reached)
    takers = [each.instance for each in left if each.status in USABLE] or [each.instance for each in left]
    http1 = sum(each.weight or 1 for each in takers if each.scheme not in HTTP2_SCHEMES)
    http2 = sum(each.weight or 1 for each in takers if each.scheme in HTTP2_SCHEMES - GRPC_SCHEMES)
    grpc = any(each.scheme in GRPC_SCHEMES for each in takers)
    calls = Shares(1, 0) if http1 and not (http2 or grpc) else Shares(0, 1)
    if not http1 and not http2:
        return Split(Shares(0, 1) if grpc else Shares(1, 0), calls)
    common = gcd(http1, http2)
    return Split(Shares(http1 // common, http2 // common), calls)


def is_empty(listings: Iterable[Listing], addresses: Mapping[str, str]) -> bool:
    """Whether none of those instances both can be reached and takes requests."""
    return not any(each.status in USABLE and _is_reached(each.instance, addresses) for each in listings)


def _is_reached(instance: Instance, addresses: Mapping[str, str]) -> bool:
    return instance.address in addresses or not is_name(instance.address)


def vacated(splits: Splits) -> frozenset[str]:
    """The clusters of all selectors to which no route leads, because nobody in them takes requests."""
    return frozenset(
        cluster_name(name, version)
        for name, each in splits.items()
        for version, *shares in zip(Version, each.requests, each.calls, strict=True)
        if each.empty or not any(shares)
    )


def clusters(name: str, shares: Shares) -> Iterator[tuple[str, float]]:
    """The clusters that take part, and what part of 1.0."""
    whole = shares.http1 + shares.http2
    for version, share in zip(Version, shares, strict=True):
        if share:
            yield cluster_name(name, version), share / whole
