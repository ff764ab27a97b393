"""The order in which routes are compared with a request: the more specific route first.

A route with a higher `priority` comes first. Routes of one priority are ordered as in Kubernetes' Gateway API
(HTTPRouteRule, "matches"): exact hosts before wildcards before any host, then by the path, the method, and the number
of header and query conditions. A regex comes before prefixes, as in Envoy Gateway: otherwise a prefix for all paths
would hide it. Ties are broken by name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from adsum.gateway.intent.matches import MatchKind, PathMatch
from adsum.gateway.intent.routes import Route
from adsum.gateway.patterns import host_patterns

_PATHS: Final = {MatchKind.EXACT: 0, MatchKind.REGEX: 1, MatchKind.PREFIX: 2}

_Key = tuple[int, tuple[int, int], tuple[int, int], bool, int, int, str]


class RouteOrder:
    """An index of routes by host that returns them in order. A look-up costs time for the routes that it finds."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._any_host: list[tuple[_Key, Route]] = []
        self._by_pattern: defaultdict[str, list[Route]] = defaultdict(list)
        for route in routes:
            if not route.hosts:
                self._any_host.append((_key(route, host_patterns.ANY_HOST_RANK), route))
            for pattern in route.hosts:
                self._by_pattern[pattern].append(route)
        self._any_host.sort(key=_first)

    @property
    def host_patterns(self) -> list[str]:
        """The host patterns of all routes, sorted."""
        return sorted(self._by_pattern)

    def for_host(self, host: str) -> list[Route]:
        """Returns the routes for the host, or for every host that a host pattern matches, in order."""
        found = {
            route.name: route
            for pattern in host_patterns.covering_patterns(host)
            for route in self._by_pattern.get(pattern, ())
        }
        ranked = ((host_patterns.rank(route.hosts, host), route) for route in found.values())
        keyed = [(_key(route, rank), route) for rank, route in ranked if rank is not None]
        return [route for _, route in sorted((*self._any_host, *keyed), key=_first)]

    @property
    def shared_route_count(self) -> int:
        """The number of routes that several hosts can have: those for every host, and those with a wildcard."""
        wildcards = (
            routes for pattern, routes in self._by_pattern.items() if pattern.startswith(host_patterns.WILDCARD)
        )
        return len(self._any_host) + sum(map(len, wildcards))

    def for_patterns(self, patterns: Iterable[str]) -> list[tuple[Route, str]]:
        """Returns the routes for hosts of these patterns, each with the pattern that matches ("": any host).

        The routes of each single host are in order. A route can occur several times; its first place counts.
        """
        covering = {wider for pattern in patterns for wider in host_patterns.covering_patterns(pattern)}
        found = [(key, "", route) for key, route in self._any_host]
        for pattern in covering & self._by_pattern.keys():
            rank = host_patterns.rank((pattern,), pattern) or host_patterns.ANY_HOST_RANK
            found += [(_key(route, rank), pattern, route) for route in self._by_pattern[pattern]]
        return [(route, pattern) for _, pattern, route in sorted(found, key=lambda entry: entry[:2])]

    def for_any_host(self) -> list[Route]:
        """Returns the routes for every host, in order."""
        return [route for _, route in self._any_host]


def _first(entry: tuple[_Key, Route]) -> _Key:
    return entry[0]


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
