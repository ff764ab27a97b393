"""What came between two snapshots, instance by instance, at the cost of what changed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from itertools import repeat
from typing import Final

from adsum.core.catalog.service_snapshot import ServiceSnapshot
from adsum.core.catalog.snapshots import Snapshot
from adsum.core.model import Key, LeaseState, Listing
from adsum.core.nodes.sharding import shard_of
from adsum.core.provenance import Cause

RENEWING_CAUSES: Final = frozenset({Cause.REGISTERED, Cause.REREGISTERED, Cause.LEASE_RENEWED})
"""The causes by which a lease starts afresh."""


@dataclass(frozen=True, slots=True)
class ChangedInstance:
    """An instance that changed: its listing now (None: it left), and whether its lease was renewed in between."""

    key: Key
    listing: Listing | None
    renewed: bool


def changed_instances(before: Snapshot, after: Snapshot) -> Iterator[ChangedInstance]:
    """Every instance that changed from one snapshot to the next, about in the order of change, the latest first."""
    another = before.epoch != after.epoch
    forgotten = None if another else after.forgotten_services.names_since(before.revision)
    gone = before.services.keys() - after.services.keys() if forgotten is None else forgotten - after.services.keys()
    for name in gone:  # Loaded anew, or emptied and forgotten: they went without a trace.
        for id in before.service(name).listings:
            yield ChangedInstance(Key(name, id), None, renewed=False)
    for service in after.changed_since(-1 if another else before.revision):
        if another or before.revision < service.compact_revision:
            yield from _compared(before.service(service.name), service)
        else:
            yield from _trailed(before.revision, service)


def handed_over_instances(
    before: Snapshot, after: Snapshot, kept: Set[int], ours: Set[int]
) -> Iterator[ChangedInstance]:
    """What was kept here and is not ours any more, as if it had left; and what is ours now, as if it had just come."""
    for service in before.services.values():
        if shard_of(service.name) in kept - ours:
            for key in map(Key, repeat(service.name), service.listings):
                yield ChangedInstance(key, None, renewed=False)
    for service in after.services.values():
        if shard_of(service.name) in ours - kept:
            for listing in service.listings.values():
                yield ChangedInstance(listing.key, listing, renewed=False)


def _trailed(since: int, service: ServiceSnapshot) -> Iterator[ChangedInstance]:
    renewed: dict[str, bool] = {}
    for step in reversed(service.recent_changes):
        if step.revision <= since:
            break
        renewed[step.id] = renewed.get(step.id, False) or (step.listed and step.provenance.cause in RENEWING_CAUSES)
    for id, renewal in renewed.items():
        yield ChangedInstance(Key(service.name, id), service.listings.get(id), renewal)


def _compared(before: ServiceSnapshot, after: ServiceSnapshot) -> Iterator[ChangedInstance]:
    for id in before.listings.keys() - after.listings.keys():
        yield ChangedInstance(Key(after.name, id), None, renewed=False)
    for id, listing in after.listings.items():
        old = before.listings.get(id)
        if old is not listing:
            back = old is not None and old.lease is LeaseState.LAPSED and listing.lease is LeaseState.HELD
            yield ChangedInstance(Key(after.name, id), listing, back or (old is not None and _renews(listing)))


def _renews(listing: Listing | None) -> bool:
    return listing is not None and listing.provenance.cause in RENEWING_CAUSES
