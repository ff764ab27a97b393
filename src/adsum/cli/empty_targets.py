"""Messages about targets of a route for which no instance takes requests."""

from __future__ import annotations

from collections.abc import Iterable

from adsum import wire
from adsum.gateway.route_check.availability import Availability


def messages(routes: Iterable[wire.RouteView]) -> list[str]:
    """Returns one message for each empty target of the routes."""
    return [
        f"route {view.route.name} leads to {target.to}: {reason(target)}"
        for view in routes
        for target in view.empty_targets
    ]


def reason(target: wire.EmptyTarget | wire.DestinationView) -> str:
    """Returns why the target is empty; "" if it is not."""
    if target.availability is Availability.UNKNOWN:
        return f"no service {target.to.partition('?')[0]} is registered (it never was, or was forgotten)"
    return "no instance of it is available" if target.availability is Availability.EMPTY else ""
