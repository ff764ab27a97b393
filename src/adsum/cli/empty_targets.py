"""What is said of a route's targets that nobody takes requests for."""

from __future__ import annotations

from collections.abc import Iterable

from adsum import wire
from adsum.gateway.route_check.availability import Presence


def sentences(routes: Iterable[wire.RouteView]) -> list[str]:
    """One for each empty target of these routes."""
    return [f"route {view.route.name} leads to {each.to}: {why(each)}" for view in routes for each in view.empty]


def why(target: wire.EmptyTarget | wire.DestinationView) -> str:
    """Why it is empty; "" if it is not."""
    if target.presence is Presence.UNKNOWN:
        return f"no service {target.to.partition('?')[0]} is registered (none ever was, or it is forgotten)"
    return "no instance of it takes requests now" if target.presence is Presence.EMPTY else ""
