"""The instances that changed between two snapshots, at the cost of what changed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Set
from itertools import repeat
from typing import Final

from msgspec import Struct

from adsum.core.catalog.service_snapshot import ServiceSnapshot
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.model import Key, LeaseState, Listing
from adsum.core.nodes.sharding import shard_of
from adsum.core.provenance import Cause

RENEWING_CAUSES: Final = frozenset({Cause.REGISTERED, Cause.REREGISTERED, Cause.LEASE_RENEWED})
"""The causes of changes that renew a lease."""


class ChangedInstance(Struct, frozen=True, gc=False):
    """A changed instance: its new listing (None: it was removed), and whether its lease was renewed in between."""

    key: Key
    listing: Listing | None
    renewed: bool


def changed_instances(before: Snapshot, after: Snapshot) -> Iterator[ChangedInstance]:
    """Yields every instance that changed between two snapshots, roughly in the order of change, the latest first."""
    new_epoch = before.epoch != after.epoch
    forgotten = None if new_epoch else after.forgotten_services.names_since(before.revision)
    gone = before.services.keys() - after.services.keys() if forgotten is None else forgotten - after.services.keys()
    for name in gone:  # Forgotten, or missing in a newly loaded catalog: there is no change of their instances.
        for id in before.service(name).listings:
            yield ChangedInstance(Key(name, id), None, renewed=False)
    for service in after.changed_since(-1 if new_epoch else before.revision):
        if new_epoch or before.revision < service.compact_revision:
            yield from _from_comparison(before.service(service.name), service)
        else:
            yield from _from_recent_changes(before.revision, service)


def handed_over_instances(
    before: Snapshot, after: Snapshot, kept_before: Set[int], kept: Set[int]
) -> Iterator[ChangedInstance]:
    """Yields the instances of lost shards as removed, and those of gained shards as new."""
    for service in before.services.values():
        if shard_of(service.name) in kept_before - kept:
            for key in map(Key, repeat(service.name), service.listings):
                yield ChangedInstance(key, None, renewed=False)
    for service in after.services.values():
        if shard_of(service.name) in kept - kept_before:
            for listing in service.listings.values():
                yield ChangedInstance(listing.key, listing, renewed=False)


def _from_recent_changes(revision: int, service: ServiceSnapshot) -> Iterator[ChangedInstance]:
    renewed: dict[Key, bool] = {}
    for change in reversed(service.recent_changes):
        if change.revision <= revision:
            break
        is_renewal = change.listed and change.provenance.cause in RENEWING_CAUSES
        renewed[change.key] = renewed.get(change.key, False) or is_renewal
    for key, was_renewed in renewed.items():
        yield ChangedInstance(key, service.listings.get(key.id), was_renewed)


def _from_comparison(before: ServiceSnapshot, after: ServiceSnapshot) -> Iterator[ChangedInstance]:
    for id in before.listings.keys() - after.listings.keys():
        yield ChangedInstance(Key(after.name, id), None, renewed=False)
    for id, listing in after.listings.items():
        old = before.listings.get(id)
        if old is not listing:
            yield ChangedInstance(Key(after.name, id), listing, old is not None and _is_renewed(old, listing))


def _is_renewed(old: Listing, new: Listing) -> bool:
    held_again = old.lease is LeaseState.LAPSED and new.lease is LeaseState.HELD
    return held_again or new.provenance.cause in RENEWING_CAUSES
