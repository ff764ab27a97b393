"""Decisions on what the keeper observes: leases that lapse and expire, checks that change, overrides that end.

Like `decisions`, they are pure and idempotent.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from msgspec.structs import replace

from adsum.core.catalog import takeover as takeovers
from adsum.core.catalog.changes import Change
from adsum.core.catalog.decisions import (
    Caller,
    Decision,
    hold_lease,
    listing_change,
    require_listed,
    with_provenance,
    without_override,
)
from adsum.core.catalog.draft import CatalogView
from adsum.core.identity import ProcessIdentity
from adsum.core.model import Key, LeaseState, Listing, Override, Status, freeze_statuses
from adsum.core.provenance import Cause

_CHECK_CAUSES: Final[Mapping[Status, Cause]] = MappingProxyType(
    {
        Status.PASSING: Cause.CHECK_PASSING,
        Status.WARNING: Cause.CHECK_WARNING,
        Status.CRITICAL: Cause.CHECK_CRITICAL,
    }
)


def renew(key: Key, caller: Caller) -> Decision:
    """Holds the lease again after it lapsed. Raises `UnknownInstance`."""

    def decide(view: CatalogView) -> list[Change]:
        return hold_lease(require_listed(view, key), caller)

    return decide


def lapse(key: Key, reason: str, caller: Caller, *, abandoned: bool = False) -> Decision:
    """Lists the instance as critical: the deadline of its lease passed.

    `abandoned`: the lease was not renewed since another instance came to the same address and port. If that instance
    still holds its lease, no process is left to renew this one, and it is removed at once.
    """

    def decide(view: CatalogView) -> list[Change]:
        before = view.find(key)
        if before is None or before.lease is LeaseState.LAPSED:
            return []
        if abandoned and (successors := successors_of(before, view)):
            return [_left_to(successors[0], before, caller)]
        after = replace(before, lease=LeaseState.LAPSED)
        return [listing_change(with_provenance(before, after, caller.provenance(Cause.LEASE_LAPSED, reason)))]

    return decide


def expire(key: Key, reason: str, caller: Caller) -> Decision:
    """Removes the instance: the grace after the lapse is over. An instance that has renewed meanwhile stays."""

    def decide(view: CatalogView) -> list[Change]:
        before = view.find(key)
        if before is None or before.lease is LeaseState.HELD:
            return []
        if successors := successors_of(before, view):
            return [_left_to(successors[0], before, caller)]
        return [Change(key, None, caller.provenance(Cause.LEASE_EXPIRED, reason))]

    return decide


def successors_of(listing: Listing, view: CatalogView) -> list[Listing]:
    """Returns the listings of other processes that hold their leases at the address and port of the instance."""
    others = view.listings_at(listing.instance.host_port)
    return [other for other in others if takeovers.is_successor(other, listing)]


def _left_to(successor: Listing, listing: Listing, caller: Caller) -> Change:
    name = takeovers.successor_name(successor.key, listing)
    reason = f"its lease lapsed, and {name} is at {successor.instance.place} now"
    return Change(listing.key, None, caller.provenance(Cause.SUPERSEDED, reason))


def record_check(
    key: Key, check: str, status: Status, note: str, caller: Caller, process: ProcessIdentity | None = None
) -> Decision:
    """Records a new status of a check. The outcome of a check that the instance no longer has is ignored.

    `process` is the process that was probed; its outcome is ignored if another process has the id now. None: any.
    """

    def decide(view: CatalogView) -> list[Change]:
        before = view.find(key)
        if before is None or check not in before.checks or before.checks[check] is status:
            return []
        if process is not None and before.registration.identity != process:
            return []
        after = replace(before, checks=freeze_statuses({**before.checks, check: status}))
        reason = f"{check}: {note}" if note else check
        return [listing_change(with_provenance(before, after, caller.provenance(_CHECK_CAUSES[status], reason)))]

    return decide


def expire_override(key: Key, override: Override, caller: Caller) -> Decision:
    """Removes this override, whose length is over. An override that was set later stays."""

    def decide(view: CatalogView) -> list[Change]:
        before = view.find(key)
        if before is None or before.override != override:
            return []
        return without_override(before, caller.provenance(Cause.OVERRIDE_EXPIRED, override.reason))

    return decide
