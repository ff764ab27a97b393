"""Which of several routes is asked first: the more specific one, always in the same order.

After Kubernetes' Gateway API (HTTPRouteRule, "matches"): exact hosts before wildcards before any host, then the path,
the method, and the number of headers and of query parameters. Before all that, what operators gave a `priority`. A
regex comes before prefixes, as in Envoy Gateway: behind them, a catch-all would hide it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from adsum.gateway.intent.matches import MatchKind, PathMatch
from adsum.gateway.intent.routes import Route
from adsum.gateway.patterns import host_patterns

_PATHS: Final = {MatchKind.EXACT: 0, MatchKind.REGEX: 1, MatchKind.PREFIX: 2}

ANY_HOST_RANK: Final = (2, 0)
"""The rank of a route without hosts: after all that have some."""

_Key = tuple[int, tuple[int, int], tuple[int, int], bool, int, int, str]


class RouteOrder:
    """Routes, found by host in the order in which they are asked: what that costs grows with those that are found."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._anywhere: list[tuple[_Key, Route]] = []
        self._by_pattern: defaultdict[str, list[Route]] = defaultdict(list)
        for route in routes:
            if not route.hosts:
                self._anywhere.append((_key(route, ANY_HOST_RANK), route))
            for pattern in route.hosts:
                self._by_pattern[pattern].append(route)
        self._anywhere.sort(key=_keyed)

    @property
    def host_patterns(self) -> list[str]:
        """Every host pattern of a route, in order."""
        return sorted(self._by_pattern)

    def for_host(self, host: str) -> list[Route]:
        """The routes that take that host, or all that a host pattern takes."""
        found = {
            route.name: route
            for pattern in host_patterns.covering_patterns(host)
            for route in self._by_pattern.get(pattern, ())
        }
        ranked = ((host_patterns.rank(route.hosts, host), route) for route in found.values())
        keyed = [(_key(route, rank), route) for rank, route in ranked if rank is not None]
        return [route for _, route in sorted((*self._anywhere, *keyed), key=_keyed)]

    @property
    def shared_route_count(self) -> int:
        """How many routes take every host, or all below a name: those that several hosts may have."""
        wildcards = (
            routes for pattern, routes in self._by_pattern.items() if pattern.startswith(host_patterns.WILDCARD)
        )
        return len(self._anywhere) + sum(map(len, wildcards))

    def for_patterns(self, patterns: Iterable[str]) -> list[tuple[Route, str]]:
        """The routes that take a host of these patterns, each with a pattern that it takes it by ("": any host).

        Of those that take one host, what is asked first comes first; a route may come again after that.
        """
        covering = {each for pattern in patterns for each in host_patterns.covering_patterns(pattern)}
        found = [(key, "", route) for key, route in self._anywhere]
        for pattern in covering & self._by_pattern.keys():
            rank = host_patterns.rank((pattern,), pattern) or ANY_HOST_RANK
            found += [(_key(route, rank), pattern, route) for route in self._by_pattern[pattern]]
        return [(route, pattern) for _, pattern, route in sorted(found, key=lambda each: each[:2])]

    def for_any_host(self) -> list[Route]:
        """The routes that take every host."""
        return [route for _, route in self._anywhere]


def _keyed(each: tuple[_Key, Route]) -> _Key:
    return each[0]


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


def _specificity(path: PathMatch) -> tuple[int, int]:
    return _PATHS[path.kind], -len(path.stem if path.kind is MatchKind.PREFIX else path.value)
