"""Assignments: the instances of a service as gateways and gRPC clients see them."""

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
"""Never UNKNOWN, which Envoy takes for healthy."""
_BEST_FIRST: Final = tuple(Status)


class AssignmentReader(Enum):
    """Who reads an assignment.

    gRPC uses HEALTHY endpoints only: the degraded are a lower priority of healthy ones. Its channels decide themselves
    whether they speak TLS (gRFC A29), to all instances alike, and ours do not: to one that expects it, nothing may be
    sent in plain text.
    """

    ENVOY = "envoy"
    GRPC = "grpc"


class _Place(NamedTuple):
    """Where an endpoint stands: priorities are used in order, zones share one by weight."""

    priority: int
    zone: str


class _Entry(NamedTuple):
    place: _Place
    ip: str
    port: int
    listing: Listing


def _everybody(_: Instance) -> bool:
    return True


def assignment(
    name: str,
    listings: Iterable[Listing],
    addresses: Mapping[str, str],
    zone: str = "",
    reader: AssignmentReader = AssignmentReader.ENVOY,
    *,
    is_member: Callable[[Instance], bool] = _everybody,
) -> Any:
    """The endpoints of a cluster, for a reader in `zone` ("": anywhere), which are used before those elsewhere.

    An instance whose address is a name stands at its IP in `addresses`; without one it is left out. So is one that
    speaks TLS, for gRPC. Of those that are left, the ones for which `is_member` is true are told.
    """
    reached = [each for each in listings if reader is AssignmentReader.ENVOY or each.instance.scheme not in TLS_SCHEMES]
    left = [each for each in without_reserves(_without_starting(reached)) if is_member(each.instance)]
    entries = _entries(left, addresses, zone, reader)
    message = ClusterLoadAssignment(cluster_name=name)
    message.policy.overprovisioning_factor.value = round(OVERPROVISIONING * 100)
    priorities = sorted({entry.place.priority for entry in entries})  # Envoy wants them from 0 without gaps.
    for place, group in groupby(entries, key=lambda entry: entry.place):
        message.endpoints.append(_locality(place.zone, priorities.index(place.priority), list(group), reader))
    return message


def _without_starting(listings: Sequence[Listing]) -> Sequence[Listing]:
    """Starting instances are not there while others may be called: they are no reason to panic.

    A process that takes over an address is starting first. Readers that know addresses alone thus lose the process
    before, with what they counted against it, and begin anew with this one.
    """
    known = [each for each in listings if each.status is not Status.STARTING]
    return known if any(each.status not in DECLARED_STATUSES for each in known) else listings


def without_reserves(listings: Sequence[Listing]) -> Sequence[Listing]:
    """A weight of 0 is a reserve: it is not there while anything with a weight is usable."""
    weighted = [each for each in listings if each.instance.weight]
    return weighted if any(each.status in USABLE_STATUSES for each in weighted) else listings


def _entries(
    listings: Iterable[Listing], addresses: Mapping[str, str], zone: str, reader: AssignmentReader
) -> list[_Entry]:
    """In order, one of each address: of two that stand at the same one, the one that stands better."""
    at: dict[tuple[str, int], Listing] = {}
    for listing in sorted(listings, key=lambda each: (_BEST_FIRST.index(each.status), each.instance.id)):
        instance = listing.instance
        ip = instance.address if is_ip_address(instance.address) else addresses.get(instance.address)
        if ip is not None:
            at.setdefault((ip, instance.port), listing)
    return sorted(_Entry(_place(listing, zone, reader), ip, port, listing) for (ip, port), listing in at.items())


def _place(listing: Listing, zone: str, reader: AssignmentReader) -> _Place:
    away = bool(zone) and listing.instance.zone != zone
    worse = reader is AssignmentReader.GRPC and listing.status is Status.WARNING
    return _Place(away + 2 * worse, listing.instance.zone)


def _locality(zone: str, priority: int, entries: Sequence[_Entry], reader: AssignmentReader) -> Any:
    locality = LocalityLbEndpoints(priority=priority)
    locality.locality.zone = zone
    locality.locality.SetInParent()
    # gRPC shares calls among zones by this, and skips zones without it.
    usable = sum(each.listing.instance.weight or 1 for each in entries if each.listing.status in USABLE_STATUSES)
    locality.load_balancing_weight.value = max(1, usable)
    locality.lb_endpoints.extend(_endpoint(entry, reader) for entry in entries)
    return locality


def _endpoint(entry: _Entry, reader: AssignmentReader) -> Any:
    instance, status = entry.listing.instance, entry.listing.status
    worse = reader is AssignmentReader.GRPC and status is Status.WARNING
    endpoint = LbEndpoint(health_status=HEALTHY if worse else HEALTH_BY_STATUS[status])
    endpoint.endpoint.address.CopyFrom(messages.socket_address(entry.ip, entry.port))
    endpoint.load_balancing_weight.value = instance.weight or 1
    if reader is AssignmentReader.ENVOY:
        # The name that a certificate is held against; else what people look for in Envoy's own pages.
        endpoint.endpoint.hostname = instance.id if is_ip_address(instance.address) else instance.address
        endpoint.metadata.filter_metadata[METADATA_NAMESPACE].update({"id": instance.id})
        if instance.scheme in TLS_SCHEMES:
            endpoint.metadata.filter_metadata[TRANSPORT_MATCH_KEY].update(transport_metadata(instance.address))
    return endpoint
