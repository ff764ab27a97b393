"""A question about a request, and what gateways would do with it."""

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
"""Characters of a request's URL; a longer one is refused."""
MAX_REQUEST_HEADERS = 64
"""Headers of a request that is asked about; more are refused."""

_SENT: Final = re.compile("[!-~]*")
"""What a request's path and query are made of; to others a gateway answers 400."""

Line = Annotated[str, Meta(max_length=MAX_URL_LENGTH)]


class CheckRouteBody(RequestBody, frozen=True):
    """A request to ask about: a whole URL, or a path for any host; and whether the gateway has default routes."""

    url: Line
    method: Annotated[str, Meta(pattern=METHOD_PATTERN)] = "GET"
    headers: Annotated[list[tuple[Line, Line]], Meta(max_length=MAX_REQUEST_HEADERS)] = []
    default_routes: bool = True

    def to_request(self) -> route_check.CheckedRequest:
        """Raises `Invalid`."""
        try:
            parts = urlsplit(self.url)
            host = parts.netloc.rpartition("@")[2]
        except ValueError as error:
            raise Invalid("url", f"can't be read: {error}") from None
        if parts.scheme not in ("", "http", "https") or bool(parts.scheme) is not bool(host):
            raise Invalid("url", "must be a path, or start with http:// or https:// and a host")
        path = parts.path or "/"
        if not path.startswith("/"):
            raise Invalid("url", "must be a path that starts with /, or start with http:// or https://")
        query = f"?{parts.query}" if parts.query else ""
        if not _SENT.fullmatch(path + query):
            raise Invalid("url", "must be ASCII without spaces, as it is sent: percent-encode the rest")
        return route_check.CheckedRequest(
            self.method, host or "localhost", path + query, tuple(self.headers), parts.scheme or "http"
        )


class DestinationView(ResponseBody, frozen=True):
    """Where requests go: a service, or `SERVICE?tag=…&KEY=VALUE`, and its share of 1.0.

    `availability` is `there`, `empty` (none of its instances takes requests now) or `unknown` (no such service was ever
    registered). One that is not there has no share while another one is.
    """

    to: str
    share: float
    availability: Availability = Availability.AVAILABLE


class SkippedRouteView(ResponseBody, frozen=True):
    """A route that does not take the request, and the first of its conditions that does not hold."""

    route: str
    failed_condition: str


class VerdictView(ResponseBody, frozen=True):
    """What becomes of a request.

    `route` "": no route takes it, and `status` is what the gateway answers; `reasons` tells why if it asks no route at
    all. `default`: the route is one of those that every service has. `path` is what the service sees; `status` and
    `location` are a redirect's; `preflight`: the gateway answers it itself.
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
                DestinationView(each.selector.name, round(each.share, 4), each.availability)
                for each in verdict.destinations
            ],
            verdict.path,
            verdict.status,
            verdict.location,
            verdict.is_preflight,
            list(verdict.reasons),
            [SkippedRouteView(each.route, each.mismatch) for each in verdict.skipped],
        )
