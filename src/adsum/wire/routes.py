"""The JSON of a route, in the API and in files with routes."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from adsum.core.errors import Invalid
from adsum.gateway.intent import default_routes, routes
from adsum.gateway.intent.actions import DEFAULT_RETRIES, NO_HEADER_EDITS, HeaderEdits
from adsum.gateway.intent.matches import ANY_PATH
from adsum.gateway.intent.routes import Route
from adsum.wire.actions import (
    CorsBody,
    HashBody,
    HeaderEditsBody,
    MirrorBody,
    RateLimitBody,
    RedirectBody,
    RetriesBody,
    SelectorBody,
    TargetBody,
)
from adsum.wire.durations import Duration, convert_field, optional_seconds
from adsum.wire.matches import HeaderMatchBody, PathMatchBody, QueryMatchBody
from adsum.wire.requests import RequestBody


class RouteBody(RequestBody, frozen=True):
    """A route. Durations are seconds, or texts such as 2s and 1m30s."""

    name: str = ""
    hosts: list[str] = []
    path: PathMatchBody | None = None
    methods: list[str] = []
    headers: list[HeaderMatchBody] = []
    query: list[QueryMatchBody] = []
    to: list[TargetBody] = []
    redirect: RedirectBody | None = None
    rewrite: str | None = None
    timeout: Duration | None = None
    try_timeout: Duration | None = None
    idle_timeout: Duration | None = None
    retries: RetriesBody | None = None
    mirror: MirrorBody | None = None
    request_headers: HeaderEditsBody | None = None
    response_headers: HeaderEditsBody | None = None
    cors: CorsBody | None = None
    max_body: Annotated[int, Meta(ge=1, le=routes.MAX_BODY_BYTES)] | None = None
    retry_body: Annotated[int, Meta(ge=1, le=routes.MAX_BODY_BYTES)] | None = None
    rate_limit: RateLimitBody | None = None
    hash: HashBody | None = None
    priority: Annotated[int, Meta(ge=-routes.MAX_PRIORITY, le=routes.MAX_PRIORITY)] = 0

    def to_route(self, name: str = "") -> Route:
        """Returns the route, with this name or its own. Raises `Invalid` with the field as it was sent."""
        if self.name and name and self.name != name:
            raise Invalid("name", f"must be {name}, the name in the path")
        name = name or self.name
        default_routes.check_declared_name("name", name)
        return Route(
            name=name,
            hosts=tuple(host.lower() for host in self.hosts),
            path=convert_field("path", self.path.to_path) if self.path else ANY_PATH,
            methods=tuple(self.methods),
            headers=tuple(
                convert_field(f"headers[{n}]", condition.to_match) for n, condition in enumerate(self.headers)
            ),
            query=tuple(convert_field(f"query[{n}]", condition.to_match) for n, condition in enumerate(self.query)),
            to=tuple(convert_field(f"to[{n}]", target.to_target) for n, target in enumerate(self.to)),
            redirect=convert_field("redirect", self.redirect.to_redirect) if self.redirect else None,
            rewrite=self.rewrite,
            timeout=optional_seconds("timeout", self.timeout),
            try_timeout=optional_seconds("try_timeout", self.try_timeout),
            idle_timeout=optional_seconds("idle_timeout", self.idle_timeout),
            retries=convert_field("retries", self.retries.to_retries) if self.retries else DEFAULT_RETRIES,
            mirror=convert_field("mirror", self.mirror.to_mirror) if self.mirror else None,
            request_headers=_edits("request_headers", self.request_headers),
            response_headers=_edits("response_headers", self.response_headers),
            cors=convert_field("cors", self.cors.to_cors) if self.cors else None,
            max_body=self.max_body,
            retry_body=self.retry_body,
            rate_limit=convert_field("rate_limit", self.rate_limit.to_rate_limit) if self.rate_limit else None,
            hash=convert_field("hash", self.hash.to_hash) if self.hash else None,
            priority=self.priority,
        )

    @staticmethod
    def from_route(route: Route) -> RouteBody:
        redirect, mirror, limit, hash = route.redirect, route.mirror, route.rate_limit, route.hash
        return RouteBody(
            name=route.name,
            hosts=list(route.hosts),
            path=PathMatchBody.from_path(route.path) if route.path != ANY_PATH else None,
            methods=list(route.methods),
            headers=[HeaderMatchBody.from_match(condition) for condition in route.headers],
            query=[QueryMatchBody.from_match(condition) for condition in route.query],
            to=[TargetBody.from_target(target) for target in route.to],
            redirect=RedirectBody.from_redirect(redirect) if redirect else None,
            rewrite=route.rewrite,
            timeout=route.timeout,
            try_timeout=route.try_timeout,
            idle_timeout=route.idle_timeout,
            retries=RetriesBody.from_retries(route.retries) if route.retries != DEFAULT_RETRIES else None,
            mirror=MirrorBody(SelectorBody.from_selector(mirror.selector), mirror.share) if mirror else None,
            request_headers=HeaderEditsBody.from_edits(route.request_headers)
            if route.request_headers != NO_HEADER_EDITS
            else None,
            response_headers=HeaderEditsBody.from_edits(route.response_headers)
            if route.response_headers != NO_HEADER_EDITS
            else None,
            cors=CorsBody.from_cors(route.cors) if route.cors else None,
            max_body=route.max_body,
            retry_body=route.retry_body,
            rate_limit=RateLimitBody(limit.requests, limit.per, limit.burst) if limit else None,
            hash=HashBody(hash.header, hash.cookie, hash.ttl) if hash else None,
            priority=route.priority,
        )


def _edits(field: str, body: HeaderEditsBody | None) -> HeaderEdits:
    return convert_field(field, body.to_edits) if body else NO_HEADER_EDITS
