"""Cluster load assignments: the instances of a service as endpoints of gateways and gRPC clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from itertools import groupby
from typing import Any, Final, NamedTuple

from envoy.config.core.v3.health_check_pb2 import DEGRADED, DRAINING, HEALTHY, UNHEALTHY
from envoy.config.endpoint.v3.endpoint_components_pb2 import LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from adsum.core.addresses import is_ip_address
from adsum.core.model import Instance, Listing, Status
from adsum.core.selection import DECLARED_STATUSES, OVERPROVISIONING, USABLE_STATUSES
from adsum.core.tls_schemes import TLS_SCHEMES
from adsum.gateway.encoding import messages
from adsum.gateway.encoding.clusters.tls import TRANSPORT_MATCH_KEY, transport_metadata
from adsum.gateway.encoding.messages import METADATA_NAMESPACE

HEALTH_BY_STATUS: Final = {
    Status.PASSING: HEALTHY,
    Status.WARNING: DEGRADED,
    Status.STARTING: UNHEALTHY,
    Status.CRITICAL: UNHEALTHY,
    Status.DRAINING: DRAINING,
    Status.MAINTENANCE: DRAINING,
}
"""Envoy's health of each status. It is never UNKNOWN, which Envoy treats as healthy."""
_BEST_FIRST: Final = tuple(Status)


class AssignmentReader(Enum):
    """The client that an assignment is for.

    gRPC uses HEALTHY endpoints only, so degraded endpoints are sent to it as healthy ones that are used last. A gRPC
    channel uses TLS to all instances or to none (gRFC A29), and our channels use none. So instances with TLS are left
    out: they must receive nothing in plain text.
    """

    ENVOY = "envoy"
    GRPC = "grpc"


class _LocalityKey(NamedTuple):
    """The locality of an endpoint. Priority 0 is used first; zones of one priority share requests by weight."""

    priority: int
    zone: str


class _EndpointEntry(NamedTuple):
    locality: _LocalityKey
    ip: str
    port: int
    listing: Listing


def _any_instance(_: Instance) -> bool:
    return True


def assignment(
    name: str,
    listings: Iterable[Listing],
    addresses: Mapping[str, str],
    zone: str = "",
    reader: AssignmentReader = AssignmentReader.ENVOY,
    *,
    is_member: Callable[[Instance], bool] = _any_instance,
) -> Any:
    """Returns the assignment of a cluster. Endpoints in `zone` come before those in other zones ("": no preference).

    `addresses` has the IPs of host names; an instance whose host name is missing there is left out. Instances with TLS
    are left out for gRPC. Of the rest, the assignment has the instances for which `is_member` is true.
    """
    reachable = [
        item for item in listings if reader is AssignmentReader.ENVOY or item.instance.scheme not in TLS_SCHEMES
    ]
    members = [item for item in without_reserves(_without_starting(reachable)) if is_member(item.instance)]
    entries = _entries(members, addresses, zone, reader)
    message = ClusterLoadAssignment(cluster_name=name)
    message.policy.overprovisioning_factor.value = round(OVERPROVISIONING * 100)
    priorities = sorted({entry.locality.priority for entry in entries})  # Envoy needs them from 0 without gaps.
    for key, group in groupby(entries, key=lambda entry: entry.locality):
        message.endpoints.append(_locality(key.zone, priorities.index(key.priority), list(group), reader))
    return message


def _without_starting(listings: Sequence[Listing]) -> Sequence[Listing]:
    """Returns the listings without starting instances, unless all others are draining or in maintenance.

    So starting instances do not count toward the panic threshold. A process that takes over an address is starting at
    first. Envoy and gRPC know instances by address alone: the gap makes them forget the failures of the previous one.
    """
    started = [item for item in listings if item.status is not Status.STARTING]
    return started if any(item.status not in DECLARED_STATUSES for item in started) else listings


def without_reserves(listings: Sequence[Listing]) -> Sequence[Listing]:
    """Returns the listings without reserves (weight 0), unless no instance with a weight is usable."""
    weighted = [item for item in listings if item.instance.weight]
    return weighted if any(item.status in USABLE_STATUSES for item in weighted) else listings


def _entries(
    listings: Iterable[Listing], addresses: Mapping[str, str], zone: str, reader: AssignmentReader
) -> list[_EndpointEntry]:
    """Returns one entry for each address and port, sorted. Of two instances at one address, the healthier one stays."""
    by_address: dict[tuple[str, int], Listing] = {}
    for listing in sorted(listings, key=lambda item: (_BEST_FIRST.index(item.status), item.instance.id)):
        instance = listing.instance
        ip = instance.address if is_ip_address(instance.address) else addresses.get(instance.address)
        if ip is not None:
            by_address.setdefault((ip, instance.port), listing)
    return sorted(
        _EndpointEntry(_locality_key(listing, zone, reader), ip, port, listing)
        for (ip, port), listing in by_address.items()
    )


def _locality_key(listing: Listing, zone: str, reader: AssignmentReader) -> _LocalityKey:
    is_remote = bool(zone) and listing.instance.zone != zone
    is_degraded = reader is AssignmentReader.GRPC and listing.status is Status.WARNING
    return _LocalityKey(is_remote + 2 * is_degraded, listing.instance.zone)


def _locality(zone: str, priority: int, entries: Sequence[_EndpointEntry], reader: AssignmentReader) -> Any:
    locality = LocalityLbEndpoints(priority=priority)
    locality.locality.zone = zone
    locality.locality.SetInParent()
    # gRPC splits calls between zones by this weight, and skips zones without a weight.
    usable = sum(item.listing.instance.weight or 1 for item in entries if item.listing.status in USABLE_STATUSES)
    locality.load_balancing_weight.value = max(1, usable)
    locality.lb_endpoints.extend(_endpoint(entry, reader) for entry in entries)
    return locality


def _endpoint(entry: _EndpointEntry, reader: AssignmentReader) -> Any:
    instance, status = entry.listing.instance, entry.listing.status
    is_degraded = reader is AssignmentReader.GRPC and status is Status.WARNING
    endpoint = LbEndpoint(health_status=HEALTHY if is_degraded else HEALTH_BY_STATUS[status])
    endpoint.endpoint.address.CopyFrom(messages.socket_address(entry.ip, entry.port))
    endpoint.load_balancing_weight.value = instance.weight or 1
    if reader is AssignmentReader.ENVOY:
        # The certificate is verified against this name. For an IP it is the id, which Envoy's admin pages show.
        endpoint.endpoint.hostname = instance.id if is_ip_address(instance.address) else instance.address
        endpoint.metadata.filter_metadata[METADATA_NAMESPACE].update({"id": instance.id})
        if instance.scheme in TLS_SCHEMES:
            endpoint.metadata.filter_metadata[TRANSPORT_MATCH_KEY].update(transport_metadata(instance.address))
    return endpoint
