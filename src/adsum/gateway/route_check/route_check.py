"""The route check: finds the route that takes a request, and the reasons, as a gateway would."""

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
"""The status with which a gateway answers a request that no route takes."""
_BLANKS = " \t"
"""Characters that may stand around a header's value and are not part of it (RFC 9110, section 5.5)."""
_ORIGIN, _REQUEST_METHOD = "origin", "access-control-request-method"


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A request to check. `host` may have a port, `path` a query. Header names may be in any case."""

    method: str = "GET"
    host: str = "localhost"
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    scheme: str = "http"


class _NormalizedRequest(NamedTuple):
    """A request as a gateway reads it, computed once for all routes.

    `path` is without its query, `query` includes its question mark. `headers` has the values of all headers of a name,
    joined by commas; `parameters` has the first parameter of a name as sent.
    """

    request: CheckedRequest
    host: str
    path: str
    query: str
    headers: Mapping[str, str]
    parameters: Mapping[str, str]

    @staticmethod
    def from_request(request: CheckedRequest) -> _NormalizedRequest:
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
        return _NormalizedRequest(request, host, normalize(path), mark + query, joined, parameters if mark else {})


@dataclass(frozen=True, slots=True)
class SkippedRoute:
    """A route that does not take the request, and the first condition that the request does not meet."""

    route: str
    mismatch: str


@dataclass(frozen=True, slots=True)
class Destination:
    """A target of the route that takes the request, its share (0.0 to 1.0) and its availability.

    An empty or unknown target has no share while another target is available.
    """

    selector: Selector
    share: float
    availability: Availability


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a route check.

    `route` None: no route takes the request, and `status` is 404; or the gateway refuses it before it matches routes,
    and `reasons` has the reason for `status`. `path` is the path that a target receives. `status` and `location` are
    those of a redirect. `is_preflight`: the gateway answers the request itself. `reasons` are the conditions of the
    route. `skipped` are the routes that were compared before, in order, and then the routes for other hosts.
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


def _do_nothing() -> None:
    return None


def check_route(
    intent: Intent,
    services: Collection[str],
    request: CheckedRequest,
    availability: Callable[[Selector], Availability] = assume_available,
    *,
    default_routes: bool = True,
    before_route: Callable[[], None] = _do_nothing,
) -> Verdict:
    """Returns the route that takes the request, with these services known, and its destinations.

    The time grows linearly with the routes and with the length of the request. `before_route` is called before the
    request is compared with each route; an exception that it raises ends the check.
    """
    refusal = direct_response(request.method, request.host, request.path.partition("?")[0])
    if refusal is not None:
        return Verdict(status=refusal.status, reasons=(refusal.reason,))
    normalized = _NormalizedRequest.from_request(request)
    skipped: list[SkippedRoute] = []
    for route in _candidates(intent, services, normalized, default_routes=default_routes):
        before_route()
        mismatch = _mismatch(route, normalized)
        if mismatch is None:
            return _verdict(route, normalized, availability, (*skipped, *_routes_of_other_hosts(intent, normalized)))
        skipped.append(SkippedRoute(route.name, mismatch))
    return Verdict(status=NO_ROUTE_STATUS, skipped=(*skipped, *_routes_of_other_hosts(intent, normalized)))


def _candidates(
    intent: Intent, services: Collection[str], request: _NormalizedRequest, *, default_routes: bool
) -> Iterator[Route]:
    """Yields the routes for the request's host in order, then the default route that its host or path names."""
    host = request.host
    yield from route_order.RouteOrder(intent.routes).for_host(host)
    if default_routes and defaults.apply_to_host(host, intent.routes):
        known = set(services) | intent.named_services()
        name, first_segment = host.removesuffix(defaults.LOCALHOST_SUFFIX), request.path.split("/")[1]
        if name not in ("", host):
            yield from [defaults.host_route(name)] if name in known else []
        elif first_segment in known:
            yield defaults.path_route(first_segment)


def _routes_of_other_hosts(intent: Intent, request: _NormalizedRequest) -> Iterator[SkippedRoute]:
    for route in sorted(intent.routes, key=lambda route: route.name):
        if host_patterns.rank(route.hosts, request.host) is None:
            yield SkippedRoute(route.name, f"host {' or '.join(route.hosts)}")


def _mismatch(route: Route, request: _NormalizedRequest) -> str | None:
    """Returns the first condition of the route that the request does not meet; None: the route takes the request."""
    if not route.path.matches(request.path):
        return f"path {route.path}"
    is_preflight = _is_preflight(route, request)
    if route.methods and request.request.method not in route.methods and not is_preflight:
        return f"method {' or '.join(route.methods)}"
    for header in route.headers:
        if not header.matches(request.headers.get(header.name)) and not is_preflight:
            return str(header)
    for parameter in route.query:
        if not parameter.matches(request.parameters.get(parameter.name)):
            return str(parameter)
    return None


def _is_preflight(route: Route, request: _NormalizedRequest) -> bool:
    """Returns whether the request is a browser's preflight for the route.

    A preflight has neither the method nor the headers of the call that the browser wants to make.
    """
    if route.cors is None or request.request.method != "OPTIONS" or _ORIGIN not in request.headers:
        return False
    method = request.headers.get(_REQUEST_METHOD)
    return method is not None and (not route.methods or method in route.methods)


def _verdict(
    route: Route,
    request: _NormalizedRequest,
    availability: Callable[[Selector], Availability],
    skipped: tuple[SkippedRoute, ...],
) -> Verdict:
    reasons, is_default = tuple(_conditions(route)), defaults.is_default(route)
    if route.cors is not None and _is_preflight(route, request) and route.cors.allows(request.headers.get(_ORIGIN, "")):
        return Verdict(route, is_default, is_preflight=True, reasons=reasons, skipped=skipped)
    if route.redirect is not None:
        location = _location(route, route.redirect, request)
        return Verdict(route, is_default, (), "", route.redirect.status, location, reasons=reasons, skipped=skipped)
    path = path_rewrites.rewrite_path(route, request.path) + request.query
    destinations = tuple(_destinations(route, availability))
    return Verdict(route, is_default, destinations, path, reasons=reasons, skipped=skipped)


def _destinations(route: Route, availability: Callable[[Selector], Availability]) -> Iterator[Destination]:
    by_name = {target.selector.name: availability(target.selector) for target in route.to if target.weight}
    active = active_targets(route.to, lambda selector: by_name[selector.name] is not Availability.AVAILABLE)
    total_weight = sum(target.weight for target in active)
    for target in route.to:
        if target.weight:
            share = target.weight / total_weight if target in active else 0.0
            yield Destination(target.selector, share, by_name[target.selector.name])


def _conditions(route: Route) -> Iterator[str]:
    if route.hosts:
        yield f"host {' or '.join(route.hosts)}"
    if route.path != ANY_PATH:
        yield f"path {route.path}"
    if route.methods:
        yield f"method {' or '.join(route.methods)}"
    yield from map(str, route.headers)
    yield from map(str, route.query)


def _location(route: Route, redirect: Redirect, request: _NormalizedRequest) -> str:
    scheme = redirect.scheme or request.request.scheme
    host = redirect.host or _redirect_authority(request.request, scheme, redirect.port)
    port = f":{redirect.port}" if redirect.port else ""
    path = request.path
    if redirect.path:
        path = redirect.path
    elif redirect.prefix:
        path = path_rewrites.replace_prefix(route.path.stem, redirect.prefix, path)
    return f"{scheme}://{host}{port}{path}{request.query}"


def _redirect_authority(request: CheckedRequest, scheme: str, port: int | None) -> str:
    """Returns the request's authority, without its port if the redirect sets one or changes the scheme.

    A change of the scheme drops only the default port of the request's scheme.
    """
    name, colon, old_port = request.host.rpartition(":")
    if not colon or request.host.endswith("]"):
        return request.host
    was_default = scheme != request.scheme and old_port == {"http": "80", "https": "443"}.get(request.scheme)
    return name if port or was_default else request.host
