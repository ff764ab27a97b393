"""The check of a route: a request, and what gateways do with it."""

from __future__ import annotations

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from msgspec import Meta

from adsum.core.errors import Invalid
from adsum.gateway.route_check import route_check
from adsum.gateway.route_check.availability import Availability
from adsum.wire.protocol import METHOD_PATTERN
from adsum.wire.requests import RequestBody
from adsum.wire.responses import ResponseBody

MAX_URL_LENGTH = 4_096
"""Characters of the URL. A longer one is refused."""
MAX_REQUEST_HEADERS = 64
"""Headers of the request. More are refused."""

_TARGET: Final = re.compile("[!-~]*")
"""The characters of path and query. A gateway answers others with 400."""

Line = Annotated[str, Meta(max_length=MAX_URL_LENGTH)]


class CheckRouteBody(RequestBody, frozen=True):
    """A request to check.

    `url` is a whole URL, or a path for any host. `default_routes`: whether the gateway has them.
    """

    url: Line
    method: Annotated[str, Meta(pattern=METHOD_PATTERN)] = "GET"
    headers: Annotated[list[tuple[Line, Line]], Meta(max_length=MAX_REQUEST_HEADERS)] = []
    default_routes: bool = True

    def to_request(self) -> route_check.CheckedRequest:
        """Returns the request. Raises `Invalid`."""
        try:
            parts = urlsplit(self.url)
            host = parts.netloc.rpartition("@")[2]
        except ValueError as error:
            raise Invalid("url", f"is not a valid URL: {error}") from None
        if parts.scheme not in ("", "http", "https") or bool(parts.scheme) is not bool(host):
            raise Invalid("url", "must be a path, or start with http:// or https:// and a host")
        path = parts.path or "/"
        if not path.startswith("/"):
            raise Invalid("url", "must be a path that starts with /, or start with http:// or https://")
        query = f"?{parts.query}" if parts.query else ""
        if not _TARGET.fullmatch(path + query):
            raise Invalid("url", "must be ASCII without spaces: percent-encode other characters")
        return route_check.CheckedRequest(
            self.method, host or "localhost", path + query, tuple(self.headers), parts.scheme or "http"
        )


class DestinationView(ResponseBody, frozen=True):
    """A destination of requests: a service, or `SERVICE?tag=…&KEY=VALUE`, and its share between 0 and 1.

    `availability` is `available`, `empty` (no instance of it takes requests) or `unknown` (no such service was ever
    registered). A destination that is not available has no share while another one is available.
    """

    to: str
    share: float
    availability: Availability = Availability.AVAILABLE


class SkippedRouteView(ResponseBody, frozen=True):
    """A route that does not match the request, and the first of its conditions that fails."""

    route: str
    failed_condition: str


class VerdictView(ResponseBody, frozen=True):
    """The verdict of a check: what a gateway does with the request.

    `route` is the matching route. If it is "", no route matches, `status` is the response of the gateway, and `reasons`
    says why if the gateway compares no routes. `default`: the route is one of the default routes of services. `path` is
    the path that the service receives. `status` and `location` are those of a redirect. `preflight`: the gateway
    answers a CORS preflight itself.
    """

    route: str = ""
    default: bool = False
    to: list[DestinationView] = []
    path: str = ""
    status: int | None = None
    location: str = ""
    preflight: bool = False
    reasons: list[str] = []
    skipped: list[SkippedRouteView] = []

    @staticmethod
    def from_verdict(verdict: route_check.Verdict) -> VerdictView:
        return VerdictView(
            verdict.route.name if verdict.route is not None else "",
            verdict.is_default,
            [
                DestinationView(destination.selector.name, round(destination.share, 4), destination.availability)
                for destination in verdict.destinations
            ],
            verdict.path,
            verdict.status,
            verdict.location,
            verdict.is_preflight,
            list(verdict.reasons),
            [SkippedRouteView(skipped.route, skipped.mismatch) for skipped in verdict.skipped],
        )
