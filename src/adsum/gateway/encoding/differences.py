"""Which services differ between two snapshots, without looking at all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from adsum.core.catalog import ServiceSnapshot, Snapshot
from adsum.gateway.encoding.tls import is_name


def between(before: Snapshot, after: Snapshot) -> set[str]:
    """The services that changed, came or went."""
    if before is after:
        return set()
    changed = after.forgotten.since(before.revision)
    if changed is None or before.epoch != after.epoch or after.revision < before.revision:
        names = before.services.keys() | after.services.keys()  # Another history, or one that is not remembered.
        return {name for name in names if before.services.get(name) is not after.services.get(name)}
    # Their order is that of their last changes.
    for service in reversed(after.services.values()):  # type: ignore[call-overload]  # a dict's, and so reversible
        if service.revision <= before.revision:
            break
        changed.add(service.name)
    return changed


def resolved(snapshot: Snapshot, before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    """The services with an instance whose name stands for another IP now."""
    if before is after:
        return set()
    names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    if not names:
        return set()
    return {service.name for service in snapshot.services.values() if names & set(_names(service))}


def _names(service: ServiceSnapshot) -> Iterable[str]:
    return (each.instance.address for each in service.listings.values() if is_name(each.instance.address))
