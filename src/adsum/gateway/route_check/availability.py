"""Whether somebody takes what a target is sent, and which of a route's targets share its requests therefore."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum

from adsum.core.catalog.snapshots import Snapshot
from adsum.core.selection import USABLE_STATUSES
from adsum.gateway.intent.actions import Target
from adsum.gateway.intent.selectors import Selector


class Availability(StrEnum):
    """Whether somebody takes the requests that are sent to some instances of a service.

    EMPTY: none of them takes requests now. UNKNOWN: no service of that name is known.
    """

    AVAILABLE = "available"
    EMPTY = "empty"
    UNKNOWN = "unknown"


def availability(selector: Selector, snapshot: Snapshot) -> Availability:
    """Whether the catalog lists an instance that the selector means and that takes requests."""
    if selector.service not in snapshot.services:
        return Availability.UNKNOWN
    listings = snapshot.services[selector.service].listings.values()
    there = any(each.status in USABLE_STATUSES and selector.selects(each.instance) for each in listings)
    return Availability.AVAILABLE if there else Availability.EMPTY


def assume_available(_: Selector) -> Availability:
    """What is so where the catalog is not asked."""
    return Availability.AVAILABLE


def active_targets(targets: Iterable[Target], is_empty: Callable[[Selector], bool]) -> list[Target]:
    """The targets that share a route's requests by their weights.

    One that nobody takes requests for has no share; if that is so of all, they share as they would with somebody there.
    """
    weighted = [each for each in targets if each.weight]
    return [each for each in weighted if not is_empty(each.selector)] or weighted
