"""Default routes: every service under `/{service}/` and as `{service}.localhost`, without anybody declaring it.

They answer on hosts that no declared route names, and come after every declared route.
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
"""The names of default routes begin with this, no others do."""
PATH_ROUTE_NAME: Final = DEFAULT_NAME_PREFIX + "by-path"
HOST_ROUTE_NAME: Final = DEFAULT_NAME_PREFIX + "by-host"
LOCALHOST_SUFFIX: Final = ".localhost"
PREFIX_HEADER: Final = "x-forwarded-prefix"
"""Tells a service what was cut off its paths."""


def path_route(service: str) -> Route:
    """The service under `/{service}/`, which it does not see."""
    return Route(
        PATH_ROUTE_NAME,
        path=PathMatch(MatchKind.PREFIX, f"/{service}"),
        to=(Target(Selector(service)),),
        rewrite="/",
        request_headers=HeaderEdits(set={PREFIX_HEADER: f"/{service}"}),
    )


def host_route(service: str) -> Route:
    """The service on its own host name."""
    return Route(HOST_ROUTE_NAME, hosts=(service + LOCALHOST_SUFFIX,), to=(Target(Selector(service)),))


def is_default(route: Route) -> bool:
    return route.name.startswith(DEFAULT_NAME_PREFIX)


def check_declared_name(field: str, name: str) -> None:
    """Raises `Invalid` for a declared route's name that would look like a default one's."""
    if name.startswith(DEFAULT_NAME_PREFIX):
        raise Invalid(field, f"must not begin with {DEFAULT_NAME_PREFIX}, as the names of default routes do")


def apply_to_host(host: str, declared: Iterable[Route]) -> bool:
    """Whether default routes answer on that host: none of the declared routes names it."""
    return not any(host_patterns.covers(pattern, host) for route in declared for pattern in route.hosts)
