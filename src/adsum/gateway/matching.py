"""Which route a request would take, and why: the same answer that a gateway gives, without a gateway."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from adsum.gateway import defaults, hosts, paths, precedence
from adsum.gateway.actions import Redirect
from adsum.gateway.intent import Intent
from adsum.gateway.matches import ANYWHERE
from adsum.gateway.routes import Route
from adsum.gateway.selectors import Selector

NO_ROUTE = 404
"""What a gateway answers to a request that no route takes."""
_ORIGIN, _ASKED_METHOD = "origin", "access-control-request-method"


@dataclass(frozen=True, slots=True)
class Request:
    """A request to ask about. `host` may have a port, `path` a query; the names of headers may be in any case."""

    method: str = "GET"
    host: str = "localhost"
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    scheme: str = "http"

    def header(self, name: str) -> str | None:
        """The values of all headers of that name, joined by commas."""
        values = [value for key, value in self.headers if key.lower() == name]
        return ",".join(values) if values else None

    @property
    def target(self) -> str:
        """The path without its query, as a gateway reads it."""
        return paths.normal(self.path.partition("?")[0])

    @property
    def query(self) -> str:
        """The query with its question mark; "" without one."""
        return "".join(self.path.partition("?")[1:])

    def parameter(self, name: str) -> str | None:
        """The first parameter of that name in the query, as it was sent."""
        for pair in self.query[1:].split("&"):
            key, _, value = pair.partition("=")
            if key == name:
                return value
        return None


@dataclass(frozen=True, slots=True)
class Passed:
    """A route that did not take the request, and the first of its conditions that did not hold."""

    route: str
    failed: str


@dataclass(frozen=True, slots=True)
class Destination:
    """Where requests go, and their share of 1.0."""

    to: Selector
    share: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a request.

    `route` None: no route takes it, and `status` is 404. `path` is what a target sees. `status` and `location` are a
    redirect's. `preflight`: the gateway answers it itself. `because` tells the conditions of the route that hold,
    `passed` the routes that were asked before, in order, and then those that are for other hosts.
    """

    route: Route | None = None
    default: bool = False
    to: tuple[Destination, ...] = ()
    path: str = ""
    status: int | None = None
    location: str = ""
    preflight: bool = False
    because: tuple[str, ...] = ()
    passed: tuple[Passed, ...] = ()


def explain(intent: Intent, services: Collection[str], request: Request, *, default_routes: bool = True) -> Verdict:
    """Which route takes the request, when those services are known."""
    host = hosts.bare(request.host)
    asked: list[Passed] = []
    for route in _candidates(intent, services, request, host, default_routes=default_routes):
        failed = _failed(route, request)
        if failed is None:
            return _verdict(route, request, (*asked, *_elsewhere(intent, host)))
        asked.append(Passed(route.name, failed))
    return Verdict(status=NO_ROUTE, passed=(*asked, *_elsewhere(intent, host)))


def _candidates(
    intent: Intent, services: Collection[str], request: Request, host: str, *, default_routes: bool
) -> Iterator[Route]:
    yield from precedence.ordered(intent.routes, host)
    if default_routes and defaults.answer_on(host, intent.routes):
        known = set(services) | {each.service for each in intent.selectors().values()}
        name, local, _ = host.partition(defaults.LOCAL)
        first = request.target.split("/")[1]
        if local and host == name + local:
            yield from [defaults.by_host(name)] if name in known else []
        elif first in known:
            yield defaults.by_path(first)


def _elsewhere(intent: Intent, host: str) -> Iterator[Passed]:
    for route in sorted(intent.routes, key=lambda each: each.name):
        if hosts.rank(route.hosts, host) is None:
            yield Passed(route.name, f"host {' or '.join(route.hosts)}")


def _failed(route: Route, request: Request) -> str | None:
    """The first condition of the route that does not hold; None: it takes the request."""
    if not route.path.takes(request.target):
        return f"path {route.path}"
    preflight = _preflight(route, request)
    if route.methods and request.method not in route.methods and not preflight:
        return f"method {' or '.join(route.methods)}"
    for header in route.headers:
        if not header.holds(request.header(header.name)) and not preflight:
            return str(header)
    for parameter in route.query:
        if not parameter.holds(request.parameter(parameter.name)):
            return str(parameter)
    return None


def _preflight(route: Route, request: Request) -> bool:
    """Whether it is a browser's question if the route may be called: it has neither its method nor its headers yet."""
    if route.cors is None or request.method != "OPTIONS" or request.header(_ORIGIN) is None:
        return False
    asked = request.header(_ASKED_METHOD)
    return asked is not None and (not route.methods or asked in route.methods)


def _verdict(route: Route, request: Request, passed: tuple[Passed, ...]) -> Verdict:
    because, default = tuple(_conditions(route)), defaults.is_default(route)
    if route.cors is not None and _preflight(route, request) and route.cors.allows(request.header(_ORIGIN) or ""):
        return Verdict(route, default, preflight=True, because=because, passed=passed)
    if route.redirect is not None:
        location = _location(route, route.redirect, request)
        return Verdict(route, default, (), "", route.redirect.status, location, because=because, passed=passed)
    whole = sum(target.weight for target in route.to)
    to = tuple(Destination(target.to, target.weight / whole) for target in route.to if target.weight)
    path = paths.rewritten(route, request.target) + request.query
    return Verdict(route, default, to, path, because=because, passed=passed)


def _conditions(route: Route) -> Iterator[str]:
    if route.hosts:
        yield f"host {' or '.join(route.hosts)}"
    if route.path != ANYWHERE:
        yield f"path {route.path}"
    if route.methods:
        yield f"method {' or '.join(route.methods)}"
    yield from map(str, route.headers)
    yield from map(str, route.query)


def _location(route: Route, redirect: Redirect, request: Request) -> str:
    scheme = redirect.scheme or request.scheme
    host = redirect.host or _kept(request, scheme, redirect.port)
    port = f":{redirect.port}" if redirect.port else ""
    path = request.target
    if redirect.path:
        path = redirect.path
    elif redirect.prefix:
        path = paths.replaced(route.path.stem, redirect.prefix, path)
    return f"{scheme}://{host}{port}{path}{request.query}"


def _kept(request: Request, scheme: str, port: int | None) -> str:
    """The request's authority: without its port if there is a new one, or if it was the default of another scheme."""
    name, colon, old = request.host.rpartition(":")
    if not colon or request.host.endswith("]"):
        return request.host
    moved = scheme != request.scheme and old == {"http": "80", "https": "443"}.get(request.scheme)
    return name if port or moved else request.host
