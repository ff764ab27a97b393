"""Which hosts share a virtual host of Envoy's.

Envoy goes on to no other virtual host when none of the routes of one takes a request, so that each has to repeat the
routes that take any host. Where many hosts would repeat many of those, several hosts share one, in which each route
asks for its host itself. So the whole grows with the number of routes and hosts, and not with their product, and a
request is compared with at most about twice as many routes as take any host, or with `MAX_REPEATED_ROUTES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Final

from adsum.gateway.route_check.route_order import RouteOrder

MAX_REPEATED_ROUTES: Final = 1_000
"""Routes for any host that all virtual hosts together may repeat before hosts share one; more if there are more routes
and hosts than that, counted together."""


def group_hosts(order: RouteOrder) -> list[list[str]]:
    """Every host pattern of a route, in groups of about one size that have a virtual host each."""
    patterns, repeated = order.host_patterns, order.shared_route_count
    if not patterns:
        return []
    room = max(MAX_REPEATED_ROUTES, len(patterns) + repeated) // max(1, repeated)
    size = ceil(len(patterns) / min(len(patterns), room))
    return [list(patterns[start : start + size]) for start in range(0, len(patterns), size)]


def group_name(group: Sequence[str]) -> str:
    """What the virtual host of a group is called."""
    return group[0] if len(group) == 1 else f"{group[0]} to {group[-1]}"
