"""Which services are reached at other addresses than before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from adsum.core.addresses import is_ip_address
from adsum.core.catalog.service_snapshot import ServiceSnapshot
from adsum.core.catalog.snapshots import Snapshot


def readdressed_services(snapshot: Snapshot, before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    """The services with an instance whose name stands for another IP now."""
    if before is after:
        return set()
    names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    if not names:
        return set()
    return {service.name for service in snapshot.services.values() if names & set(_names(service))}


def _names(service: ServiceSnapshot) -> Iterable[str]:
    return (each.instance.address for each in service.listings.values() if not is_ip_address(each.instance.address))
