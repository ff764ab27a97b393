"""The JSON of a route, which is also that of the routes' file: how it becomes the model's values and back."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from adsum.core.errors import Invalid
from adsum.gateway.intent import default_routes, routes
from adsum.gateway.intent.actions import NO_EDITS, RETRIES, HeaderEdits
from adsum.gateway.intent.matches import ANYWHERE
from adsum.gateway.intent.routes import Route
from adsum.wire.actions import (
    CorsBody,
    EditsBody,
    HashBody,
    MirrorBody,
    RateLimitBody,
    RedirectBody,
    RetriesBody,
    SelectorBody,
    TargetBody,
)
from adsum.wire.durations import Length, maybe_seconds, within
from adsum.wire.matches import HeaderBody, PathBody, QueryBody
from adsum.wire.requests import Request


class RouteBody(Request, frozen=True):
    """A route. Lengths of time are seconds, or texts such as 2s and 1m30s."""

    name: str = ""
    hosts: list[str] = []
    path: PathBody | None = None
    methods: list[str] = []
    headers: list[HeaderBody] = []
    query: list[QueryBody] = []
    to: list[TargetBody] = []
    redirect: RedirectBody | None = None
    rewrite: str | None = None
    timeout: Length | None = None
    try_timeout: Length | None = None
    idle_timeout: Length | None = None
    retries: RetriesBody | None = None
    mirror: MirrorBody | None = None
    request_headers: EditsBody | None = None
    response_headers: EditsBody | None = None
    cors: CorsBody | None = None
    max_body: Annotated[int, Meta(ge=1, le=routes.MAX_BODY)] | None = None
    retry_body: Annotated[int, Meta(ge=1, le=routes.MAX_BODY)] | None = None
    rate_limit: RateLimitBody | None = None
    hash: HashBody | None = None
    priority: Annotated[int, Meta(ge=-routes.MAX_PRIORITY, le=routes.MAX_PRIORITY)] = 0

    def to_route(self, name: str = "") -> Route:
        """The route of that name, or of its own. Raises `Invalid`, naming the field as it was sent."""
        if self.name and name and self.name != name:
            raise Invalid("name", f"must be {name}, as it was asked for")
        name = name or self.name
        default_routes.refuse("name", name)
        return Route(
            name=name,
            hosts=tuple(host.lower() for host in self.hosts),
            path=within("path", self.path.to_path) if self.path else ANYWHERE,
            methods=tuple(self.methods),
            headers=tuple(within(f"headers[{n}]", each.to_match) for n, each in enumerate(self.headers)),
            query=tuple(within(f"query[{n}]", each.to_match) for n, each in enumerate(self.query)),
            to=tuple(within(f"to[{n}]", each.to_target) for n, each in enumerate(self.to)),
            redirect=within("redirect", self.redirect.to_redirect) if self.redirect else None,
            rewrite=self.rewrite,
            timeout=maybe_seconds("timeout", self.timeout),
            try_timeout=maybe_seconds("try_timeout", self.try_timeout),
            idle_timeout=maybe_seconds("idle_timeout", self.idle_timeout),
            retries=within("retries", self.retries.to_retries) if self.retries else RETRIES,
            mirror=within("mirror", self.mirror.to_mirror) if self.mirror else None,
            request_headers=_edits("request_headers", self.request_headers),
            response_headers=_edits("response_headers", self.response_headers),
            cors=within("cors", self.cors.to_cors) if self.cors else None,
            max_body=self.max_body,
            retry_body=self.retry_body,
            rate_limit=within("rate_limit", self.rate_limit.to_rate_limit) if self.rate_limit else None,
            hash=within("hash", self.hash.to_hash) if self.hash else None,
            priority=self.priority,
        )

    @staticmethod
    def of(route: Route) -> RouteBody:
        redirect, mirror, limit, hash = route.redirect, route.mirror, route.rate_limit, route.hash
        return RouteBody(
            name=route.name,
            hosts=list(route.hosts),
            path=PathBody.of(route.path) if route.path != ANYWHERE else None,
            methods=list(route.methods),
            headers=[HeaderBody.of(each) for each in route.headers],
            query=[QueryBody.of(each) for each in route.query],
            to=[TargetBody.of_target(each) for each in route.to],
            redirect=RedirectBody.of(redirect) if redirect else None,
            rewrite=route.rewrite,
            timeout=route.timeout,
            try_timeout=route.try_timeout,
            idle_timeout=route.idle_timeout,
            retries=RetriesBody.of(route.retries) if route.retries != RETRIES else None,
            mirror=MirrorBody(SelectorBody.of(mirror.to), mirror.share) if mirror else None,
            request_headers=EditsBody.of(route.request_headers) if route.request_headers != NO_EDITS else None,
            response_headers=EditsBody.of(route.response_headers) if route.response_headers != NO_EDITS else None,
            cors=CorsBody.of(route.cors) if route.cors else None,
            max_body=route.max_body,
            retry_body=route.retry_body,
            rate_limit=RateLimitBody(limit.requests, limit.per, limit.burst) if limit else None,
            hash=HashBody(hash.header, hash.cookie, hash.ttl) if hash else None,
            priority=route.priority,
        )


def _edits(field: str, body: EditsBody | None) -> HeaderEdits:
    return within(field, body.to_edits) if body else NO_EDITS
