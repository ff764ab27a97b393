"""Which of several routes is asked first: the more specific one, always in the same order.

After Kubernetes' Gateway API (HTTPRouteRule, "matches"): exact hosts before wildcards before any host, then the path,
the method, and the number of headers and of query parameters. Before all that, what operators gave a `priority`. A
regex comes before prefixes, as in Envoy Gateway: behind them, a catch-all would hide it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from adsum.gateway import hosts
from adsum.gateway.matches import MatchKind, Path
from adsum.gateway.routes import Route

_PATHS: Final = {MatchKind.EXACT: 0, MatchKind.REGEX: 1, MatchKind.PREFIX: 2}

_Key = tuple[int, tuple[int, int], tuple[int, int], bool, int, int, str]


def ordered(routes: Iterable[Route], host: str) -> list[Route]:
    """The routes that take that host, or all that a host pattern takes, in the order in which they are asked."""
    keyed: list[tuple[_Key, Route]] = []
    for route in routes:
        rank = hosts.rank(route.hosts, host)
        if rank is not None:
            keyed.append((_key(route, rank), route))
    return [route for _, route in sorted(keyed, key=lambda each: each[0])]


def anywhere(routes: Iterable[Route]) -> list[Route]:
    """The routes that take every host, in the order in which they are asked."""
    return ordered((route for route in routes if not route.hosts), "")


def _key(route: Route, rank: tuple[int, int]) -> _Key:
    return (
        -route.priority,
        rank,
        _specificity(route.path),
        not route.methods,
        -len(route.headers),
        -len(route.query),
        route.name,
    )


def _specificity(path: Path) -> tuple[int, int]:
    return _PATHS[path.kind], -len(path.stem if path.kind is MatchKind.PREFIX else path.value)
