"""Which route a request would take, and why: the same answer that a gateway gives, without a gateway."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from adsum.gateway.direct_responses import direct_response
from adsum.gateway.intent import default_routes as defaults
from adsum.gateway.intent.actions import Redirect
from adsum.gateway.intent.intent import Intent
from adsum.gateway.intent.matches import ANY_PATH
from adsum.gateway.intent.routes import Route
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.patterns import host_patterns
from adsum.gateway.patterns.path_normalization import normalize
from adsum.gateway.route_check import path_rewrites, route_order
from adsum.gateway.route_check.availability import Availability, active_targets, assume_available

NO_ROUTE_STATUS = 404
"""What a gateway answers to a request that no route takes."""
_BLANKS = " \t"
"""What may stand around a header's value without being part of it (RFC 9110, 5.5)."""
_ORIGIN, _ASKED_METHOD = "origin", "access-control-request-method"


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A request to ask about. `host` may have a port, `path` a query; the names of headers may be in any case."""

    method: str = "GET"
    host: str = "localhost"
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    scheme: str = "http"


class _Reading(NamedTuple):
    """A request as a gateway reads it, worked out once for all routes.

    `target` is the path without its query, `query` has its question mark. `headers` has the values of all headers of
    a name, joined by commas, `parameters` the first parameter of a name as it was sent.
    """

    request: CheckedRequest
    host: str
    target: str
    query: str
    headers: Mapping[str, str]
    parameters: Mapping[str, str]

    @staticmethod
    def of(request: CheckedRequest) -> _Reading:
        path, mark, query = request.path.partition("?")
        headers: dict[str, list[str]] = {}
        for name, value in request.headers:
            headers.setdefault(name.lower(), []).append(value.strip(_BLANKS))
        parameters: dict[str, str] = {}
        for pair in query.split("&"):
            name, _, value = pair.partition("=")
            parameters.setdefault(name, value)
        joined = {name: ",".join(values) for name, values in headers.items()}
        host = host_patterns.host_of_authority(request.host)
        return _Reading(request, host, normalize(path), mark + query, joined, parameters if mark else {})


@dataclass(frozen=True, slots=True)
class SkippedRoute:
    """A route that did not take the request, and the first of its conditions that did not hold."""

    route: str
    mismatch: str


@dataclass(frozen=True, slots=True)
class Destination:
    """A target of the route that takes a request, its share of 1.0, and whether somebody is there to take it.

    A target with nobody has no share while another one has somebody.
    """

    selector: Selector
    share: float
    availability: Availability


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a request.

    `route` None: no route takes it, and `status` is 404; or none is asked, and `because` tells why the gateway answers
    `status`. `path` is what a target sees. `status` and `location` are a redirect's. `preflight`: the gateway answers
    it itself. `because` tells the conditions of the route that hold, `passed` the routes that were asked before, in
    order, and then those that are for other hosts.
    """

    route: Route | None = None
    is_default: bool = False
    destinations: tuple[Destination, ...] = ()
    path: str = ""
    status: int | None = None
    location: str = ""
    is_preflight: bool = False
    reasons: tuple[str, ...] = ()
    skipped: tuple[SkippedRoute, ...] = ()


def _nothing() -> None:
    return None


def check_route(
    intent: Intent,
    services: Collection[str],
    request: CheckedRequest,
    availability: Callable[[Selector], Availability] = assume_available,
    *,
    default_routes: bool = True,
    before_route: Callable[[], None] = _nothing,
) -> Verdict:
    """Which route takes the request, when those services are known, and where it goes.

    It takes time in proportion to the routes and to the length of the request. `before_route` is called before each
    route is asked: what it raises ends the question.
    """
    refused = direct_response(request.method, request.host, request.path.partition("?")[0])
    if refused is not None:
        return Verdict(status=refused.status, reasons=(refused.reason,))
    reading = _Reading.of(request)
    asked: list[SkippedRoute] = []
    for route in _candidates(intent, services, reading, default_routes=default_routes):
        before_route()
        failed = _failed(route, reading)
        if failed is None:
            return _verdict(route, reading, availability, (*asked, *_elsewhere(intent, reading.host)))
        asked.append(SkippedRoute(route.name, failed))
    return Verdict(status=NO_ROUTE_STATUS, skipped=(*asked, *_elsewhere(intent, reading.host)))


def _candidates(
    intent: Intent, services: Collection[str], reading: _Reading, *, default_routes: bool
) -> Iterator[Route]:
    host = reading.host
    yield from route_order.RouteOrder(intent.routes).for_host(host)
    if default_routes and defaults.apply_to_host(host, intent.routes):
        known = set(services) | intent.named_services()
        name, first = host.removesuffix(defaults.LOCALHOST_SUFFIX), reading.target.split("/")[1]
        if name not in ("", host):
            yield from [defaults.host_route(name)] if name in known else []
        elif first in known:
            yield defaults.path_route(first)


def _elsewhere(intent: Intent, host: str) -> Iterator[SkippedRoute]:
    for route in sorted(intent.routes, key=lambda each: each.name):
        if host_patterns.rank(route.hosts, host) is None:
            yield SkippedRoute(route.name, f"host {' or '.join(route.hosts)}")


def _failed(route: Route, reading: _Reading) -> str | None:
    """The first condition of the route that does not hold; None: it takes the request."""
    if not route.path.matches(reading.target):
        return f"path {route.path}"
    preflight = _preflight(route, reading)
    if route.methods and reading.request.method not in route.methods and not preflight:
        return f"method {' or '.join(route.methods)}"
    for header in route.headers:
        if not header.matches(reading.headers.get(header.name)) and not preflight:
            return str(header)
    for parameter in route.query:
        if not parameter.matches(reading.parameters.get(parameter.name)):
            return str(parameter)
    return None


def _preflight(route: Route, reading: _Reading) -> bool:
    """Whether it is a browser's question if the route may be called: it has neither its method nor its headers yet."""
    if route.cors is None or reading.request.method != "OPTIONS" or _ORIGIN not in reading.headers:
        return False
    asked = reading.headers.get(_ASKED_METHOD)
    return asked is not None and (not route.methods or asked in route.methods)


def _verdict(
    route: Route, reading: _Reading, presence: Callable[[Selector], Availability], passed: tuple[SkippedRoute, ...]
) -> Verdict:
    because, default = tuple(_conditions(route)), defaults.is_default(route)
    if route.cors is not None and _preflight(route, reading) and route.cors.allows(reading.headers.get(_ORIGIN, "")):
        return Verdict(route, default, is_preflight=True, reasons=because, skipped=passed)
    if route.redirect is not None:
        location = _location(route, route.redirect, reading)
        return Verdict(route, default, (), "", route.redirect.status, location, reasons=because, skipped=passed)
    path = path_rewrites.rewrite_path(route, reading.target) + reading.query
    to = tuple(_destinations(route, presence))
    return Verdict(route, default, to, path, reasons=because, skipped=passed)


def _destinations(route: Route, presence: Callable[[Selector], Availability]) -> Iterator[Destination]:
    known = {target.selector.name: presence(target.selector) for target in route.to if target.weight}
    shared = active_targets(route.to, lambda to: known[to.name] is not Availability.AVAILABLE)
    whole = sum(target.weight for target in shared)
    for target in route.to:
        if target.weight:
            share = target.weight / whole if target in shared else 0.0
            yield Destination(target.selector, share, known[target.selector.name])


def _conditions(route: Route) -> Iterator[str]:
    if route.hosts:
        yield f"host {' or '.join(route.hosts)}"
    if route.path != ANY_PATH:
        yield f"path {route.path}"
    if route.methods:
        yield f"method {' or '.join(route.methods)}"
    yield from map(str, route.headers)
    yield from map(str, route.query)


def _location(route: Route, redirect: Redirect, reading: _Reading) -> str:
    request = reading.request
    scheme = redirect.scheme or request.scheme
    host = redirect.host or _kept(request, scheme, redirect.port)
    port = f":{redirect.port}" if redirect.port else ""
    path = reading.target
    if redirect.path:
        path = redirect.path
    elif redirect.prefix:
        path = path_rewrites.replace_prefix(route.path.stem, redirect.prefix, path)
    return f"{scheme}://{host}{port}{path}{reading.query}"


def _kept(request: CheckedRequest, scheme: str, port: int | None) -> str:
    """The request's authority: without its port if there is a new one, or if it was the default of another scheme."""
    name, colon, old = request.host.rpartition(":")
    if not colon or request.host.endswith("]"):
        return request.host
    moved = scheme != request.scheme and old == {"http": "80", "https": "443"}.get(request.scheme)
    return name if port or moved else request.host
