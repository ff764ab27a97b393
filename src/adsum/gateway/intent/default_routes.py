"""Default routes: every service under `/{service}/` and as `{service}.localhost`, without anybody declaring it.

They answer on hosts that no declared route names, and come after every declared route.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from adsum.core.errors import Invalid
from adsum.gateway.intent.actions import HeaderEdits, Target
from adsum.gateway.intent.matches import MatchKind, Path
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.patterns import host_patterns

PREFIX: Final = "default:"
"""The names of default routes begin with this, no others do."""
BY_PATH: Final = PREFIX + "by-path"
BY_HOST: Final = PREFIX + "by-host"
LOCAL: Final = ".localhost"
PREFIX_HEADER: Final = "x-forwarded-prefix"
"""Tells a service what was cut off its paths."""


def by_path(service: str) -> Route:
    """The service under `/{service}/`, which it does not see."""
    return Route(
        BY_PATH,
        path=Path(MatchKind.PREFIX, f"/{service}"),
        to=(Target(Selector(service)),),
        rewrite="/",
        request_headers=HeaderEdits(set={PREFIX_HEADER: f"/{service}"}),
    )


def by_host(service: str) -> Route:
    """The service on its own host name."""
    return Route(BY_HOST, hosts=(service + LOCAL,), to=(Target(Selector(service)),))


def is_default(route: Route) -> bool:
    return route.name.startswith(PREFIX)


def refuse(field: str, name: str) -> None:
    """Raises `Invalid` for a declared route's name that would look like a default one's."""
    if name.startswith(PREFIX):
        raise Invalid(field, f"must not begin with {PREFIX}, as the names of default routes do")


def answer_on(host: str, declared: Iterable[Route]) -> bool:
    """Whether default routes answer on that host: none of the declared routes names it."""
    return not any(host_patterns.covers(pattern, host) for route in declared for pattern in route.hosts)
