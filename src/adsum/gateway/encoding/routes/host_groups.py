"""Groups of hosts that share one of Envoy's virtual hosts.

Envoy tries no other virtual host when no route of the chosen one takes a request. So each virtual host repeats the
routes for any host. If many hosts would repeat many such routes, several hosts share a virtual host, in which each
route has a condition on its host. The table then grows with the number of routes and hosts, and not with their product.
A request is compared with at most about twice as many routes as there are for any host, or with `MAX_REPEATED_ROUTES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Final

from adsum.gateway.route_check.route_order import RouteOrder

MAX_REPEATED_ROUTES: Final = 1_000
"""Repeated routes in all virtual hosts together; past it, hosts share virtual hosts. If hosts and shared routes
together are more than that, their number is the bound."""


def group_hosts(order: RouteOrder) -> list[list[str]]:
    """Returns all host patterns of routes in groups of about equal size. Each group has one virtual host."""
    patterns, repeated = order.host_patterns, order.shared_route_count
    if not patterns:
        return []
    max_groups = max(MAX_REPEATED_ROUTES, len(patterns) + repeated) // max(1, repeated)
    size = ceil(len(patterns) / min(len(patterns), max_groups))
    return [list(patterns[start : start + size]) for start in range(0, len(patterns), size)]


def group_name(group: Sequence[str]) -> str:
    """Returns the name of a group's virtual host."""
    return group[0] if len(group) == 1 else f"{group[0]} to {group[-1]}"
