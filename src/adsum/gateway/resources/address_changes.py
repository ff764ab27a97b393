"""The services whose instances moved to other IPs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from adsum.core.addresses import is_ip_address
from adsum.core.catalog.service_snapshot import ServiceSnapshot
from adsum.core.catalog.snapshots import Snapshot


def readdressed_services(snapshot: Snapshot, before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    """Returns the services with an instance whose host name has another IP `after` than `before`."""
    if before is after:
        return set()
    names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    if not names:
        return set()
    return {service.name for service in snapshot.services.values() if names & set(_host_names(service))}


def _host_names(service: ServiceSnapshot) -> Iterable[str]:
    return (item.instance.address for item in service.listings.values() if not is_ip_address(item.instance.address))
