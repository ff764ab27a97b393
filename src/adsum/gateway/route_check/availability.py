"""The availability of targets: whether an instance takes their requests, and which targets share a route's requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum

from adsum.core.catalog.snapshots import Snapshot
from adsum.core.selection import USABLE_STATUSES
from adsum.gateway.intent.actions import Target
from adsum.gateway.intent.selectors import Selector


class Availability(StrEnum):
    """The availability of a target.

    AVAILABLE: an instance takes its requests. EMPTY: none of its instances takes requests now. UNKNOWN: the catalog has
    no service of that name.
    """

    AVAILABLE = "available"
    EMPTY = "empty"
    UNKNOWN = "unknown"


def availability(selector: Selector, snapshot: Snapshot) -> Availability:
    """Returns the availability of the selector's instances in the catalog."""
    if selector.service not in snapshot.services:
        return Availability.UNKNOWN
    listings = snapshot.services[selector.service].listings.values()
    usable = any(listing.status in USABLE_STATUSES and selector.selects(listing.instance) for listing in listings)
    return Availability.AVAILABLE if usable else Availability.EMPTY


def assume_available(_: Selector) -> Availability:
    """Returns AVAILABLE: for callers without a catalog."""
    return Availability.AVAILABLE


def active_targets(targets: Iterable[Target], is_empty: Callable[[Selector], bool]) -> list[Target]:
    """Returns the targets that share a route's requests by their weights.

    An empty target has no share. If all targets are empty, they share as if none were.
    """
    weighted = [target for target in targets if target.weight]
    return [target for target in weighted if not is_empty(target.selector)] or weighted
