"""Default routes: every service is reached under `/{service}/` and as `{service}.localhost`, without a declaration.

They apply to hosts that no declared route names, and come after every declared route.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from adsum.core.errors import Invalid
from adsum.gateway.intent.actions import HeaderEdits, Target
from adsum.gateway.intent.matches import MatchKind, PathMatch
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.patterns import host_patterns

DEFAULT_NAME_PREFIX: Final = "default:"
"""The prefix of the names of default routes. Declared names can't have it."""
PATH_ROUTE_NAME: Final = DEFAULT_NAME_PREFIX + "by-path"
HOST_ROUTE_NAME: Final = DEFAULT_NAME_PREFIX + "by-host"
LOCALHOST_SUFFIX: Final = ".localhost"
PREFIX_HEADER: Final = "x-forwarded-prefix"
"""The request header with the prefix that the gateway removed from the path."""


def path_route(service: str) -> Route:
    """Returns the route to the service under `/{service}/`; the service receives paths without that prefix."""
    return Route(
        PATH_ROUTE_NAME,
        path=PathMatch(MatchKind.PREFIX, f"/{service}"),
        to=(Target(Selector(service)),),
        rewrite="/",
        request_headers=HeaderEdits(set={PREFIX_HEADER: f"/{service}"}),
    )


def host_route(service: str) -> Route:
    """Returns the route to the service on its own host name."""
    return Route(HOST_ROUTE_NAME, hosts=(service + LOCALHOST_SUFFIX,), to=(Target(Selector(service)),))


def is_default(route: Route) -> bool:
    return route.name.startswith(DEFAULT_NAME_PREFIX)


def check_declared_name(field: str, name: str) -> None:
    """Raises `Invalid` if a declared route has a name reserved for default routes."""
    if name.startswith(DEFAULT_NAME_PREFIX):
        raise Invalid(field, f"must not begin with {DEFAULT_NAME_PREFIX}, which is reserved for default routes")


def apply_to_host(host: str, declared: Iterable[Route]) -> bool:
    """Returns whether default routes apply to the host: no declared route names it."""
    return not any(host_patterns.covers(pattern, host) for route in declared for pattern in route.hosts)
