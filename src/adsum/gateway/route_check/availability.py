"""Whether somebody takes what a target is sent, and which of a route's targets share its requests therefore."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum

from adsum.core.catalog.snapshots import Snapshot
from adsum.core.selection import USABLE
from adsum.gateway.intent.actions import Target
from adsum.gateway.intent.selectors import Selector


class Presence(StrEnum):
    """Whether somebody takes the requests that are sent to some instances of a service.

    EMPTY: none of them takes requests now. UNKNOWN: no service of that name is known.
    """

    THERE = "there"
    EMPTY = "empty"
    UNKNOWN = "unknown"


def presence(selector: Selector, snapshot: Snapshot) -> Presence:
    """Whether the catalog lists an instance that the selector means and that takes requests."""
    if selector.service not in snapshot.services:
        return Presence.UNKNOWN
    listings = snapshot.services[selector.service].listings.values()
    there = any(each.status in USABLE and selector.chooses(each.instance) for each in listings)
    return Presence.THERE if there else Presence.EMPTY


def assumed(_: Selector) -> Presence:
    """What is so where the catalog is not asked."""
    return Presence.THERE


def sharing(targets: Iterable[Target], is_empty: Callable[[Selector], bool]) -> list[Target]:
    """The targets that share a route's requests by their weights.

    One that nobody takes requests for has no share; if that is so of all, they share as they would with somebody there.
    """
    weighted = [each for each in targets if each.weight]
    return [each for each in weighted if not is_empty(each.to)] or weighted
