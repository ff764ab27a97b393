"""A question about a request, and what gateways would do with it."""

from __future__ import annotations

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from msgspec import Meta

from adsum.core.errors import Invalid
from adsum.gateway.route_check import route_check
from adsum.gateway.route_check.availability import Presence
from adsum.wire.protocol import METHOD
from adsum.wire.requests import Request
from adsum.wire.responses import Answer

MAX_URL = 4_096
"""Characters of a request's URL; a longer one is refused."""
MAX_ASKED_HEADERS = 64
"""Headers of a request that is asked about; more are refused."""

_SENT: Final = re.compile("[!-~]*")
"""What a request's path and query are made of; to others a gateway answers 400."""

Line = Annotated[str, Meta(max_length=MAX_URL)]


class CheckRouteBody(Request, frozen=True):
    """A request to ask about: a whole URL, or a path for any host; and whether the gateway has default routes."""

    url: Line
    method: Annotated[str, Meta(pattern=METHOD)] = "GET"
    headers: Annotated[list[tuple[Line, Line]], Meta(max_length=MAX_ASKED_HEADERS)] = []
    default_routes: bool = True

    def to_request(self) -> route_check.Request:
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
        return route_check.Request(
            self.method, host or "localhost", path + query, tuple(self.headers), parts.scheme or "http"
        )


class DestinationView(Answer, frozen=True):
    """Where requests go: a service, or `SERVICE?tag=…&KEY=VALUE`, and its share of 1.0.

    `presence` is `there`, `empty` (none of its instances takes requests now) or `unknown` (no such service was ever
    registered). One that is not there has no share while another one is.
    """

    to: str
    share: float
    presence: Presence = Presence.THERE


class PassedView(Answer, frozen=True):
    """A route that does not take the request, and the first of its conditions that does not hold."""

    route: str
    failed: str


class VerdictView(Answer, frozen=True):
    """What becomes of a request.

    `route` "": no route takes it, and `status` is what the gateway answers; `because` tells why if it asks no route at
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
    because: list[str] = []
    passed: list[PassedView] = []

    @staticmethod
    def of(verdict: route_check.Verdict) -> VerdictView:
        return VerdictView(
            verdict.route.name if verdict.route is not None else "",
            verdict.default,
            [DestinationView(each.to.name, round(each.share, 4), each.presence) for each in verdict.to],
            verdict.path,
            verdict.status,
            verdict.location,
            verdict.preflight,
            list(verdict.because),
            [PassedView(each.route, each.failed) for each in verdict.passed],
        )
