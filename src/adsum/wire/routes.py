"""The JSON of a route, which is also that of the routes' file: how it becomes the model's values and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from adsum.core import model
from adsum.core.errors import Invalid
from adsum.gateway import actions, defaults, routes
from adsum.gateway.actions import NO_EDITS, HashOn, HeaderEdits, Mirror, RateLimit, Redirect, Retries, RetryOn, Target
from adsum.gateway.cors import Cors
from adsum.gateway.matches import ANYWHERE, HeaderMatch, MatchKind, Path, QueryMatch
from adsum.gateway.routes import Route
from adsum.gateway.selectors import Selector
from adsum.wire.lengths import Length, maybe_seconds, seconds, within
from adsum.wire.requests import Request
from adsum.wire.words import Port

Share = Annotated[float, Meta(ge=0, le=1)]


class PathBody(Request, frozen=True):
    """One of the three."""

    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None

    def to_path(self) -> Path:
        given = {MatchKind.EXACT: self.exact, MatchKind.PREFIX: self.prefix, MatchKind.REGEX: self.regex}
        return Path(*_only(given))

    @staticmethod
    def of(path: Path) -> PathBody:
        return PathBody(**{path.kind.value: path.value})


class HeaderBody(Request, frozen=True):
    """A condition on a header: one of `exact`, `prefix`, `regex` and `present`; with `invert`, it must not be so."""

    name: str
    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None
    present: bool | None = None
    invert: bool = False

    def to_match(self) -> HeaderMatch:
        given = {MatchKind.EXACT: self.exact, MatchKind.PREFIX: self.prefix, MatchKind.REGEX: self.regex}
        kind, value, absent = _condition(given, self.present)
        return HeaderMatch(self.name.lower(), kind, value, self.invert is not absent)

    @staticmethod
    def of(header: HeaderMatch) -> HeaderBody:
        if header.kind is MatchKind.PRESENT:
            return HeaderBody(header.name, present=True, invert=header.invert)
        said = {header.kind: header.value}.get
        exact, prefix, regex = said(MatchKind.EXACT), said(MatchKind.PREFIX), said(MatchKind.REGEX)
        return HeaderBody(header.name, exact, prefix, regex, invert=header.invert)


class QueryBody(Request, frozen=True):
    """A condition on a parameter of the query: one of `exact`, `regex` and `present`."""

    name: str
    exact: str | None = None
    regex: str | None = None
    present: bool | None = None

    def to_match(self) -> QueryMatch:
        kind, value, absent = _condition({MatchKind.EXACT: self.exact, MatchKind.REGEX: self.regex}, self.present)
        if absent:
            raise Invalid("present", "must be true: a route can't ask for a parameter to be absent")
        return QueryMatch(self.name, kind, value)

    @staticmethod
    def of(query: QueryMatch) -> QueryBody:
        if query.kind is MatchKind.PRESENT:
            return QueryBody(query.name, present=True)
        said = {query.kind: query.value}.get
        return QueryBody(query.name, said(MatchKind.EXACT), said(MatchKind.REGEX))


class SelectorBody(Request, frozen=True):
    """The instances of a service that have all these tags and metadata."""

    service: str
    tags: list[str] = []
    metadata: dict[str, str] = {}

    def to_selector(self) -> Selector:
        return Selector(self.service, tuple(self.tags), model.frozen(self.metadata))

    @staticmethod
    def of(selector: Selector) -> SelectorBody:
        return SelectorBody(selector.service, list(selector.tags), dict(selector.metadata))


class TargetBody(SelectorBody, frozen=True):
    """Where requests go, and their share of all the targets' weights."""

    weight: Annotated[int, Meta(ge=0, le=actions.MAX_WEIGHT)] = 1

    def to_target(self) -> Target:
        return Target(self.to_selector(), self.weight)

    @staticmethod
    def of_target(target: Target) -> TargetBody:
        to = target.to
        return TargetBody(to.service, list(to.tags), dict(to.metadata), target.weight)


class MirrorBody(Request, frozen=True):
    """Where copies of a share of the requests go."""

    to: SelectorBody
    share: Share = 1.0

    def to_mirror(self) -> Mirror:
        return Mirror(within("to", self.to.to_selector), self.share)


class RedirectBody(Request, frozen=True):
    """An answer that sends the caller elsewhere."""

    scheme: str = ""
    host: str = ""
    port: Port | None = None
    path: str = ""
    prefix: str = ""
    status: int = 302

    def to_redirect(self) -> Redirect:
        return Redirect(self.scheme, self.host.lower(), self.port, self.path, self.prefix, self.status)

    @staticmethod
    def of(redirect: Redirect) -> RedirectBody:
        return RedirectBody(
            redirect.scheme, redirect.host, redirect.port, redirect.path, redirect.prefix, redirect.status
        )


class RetriesBody(Request, frozen=True):
    """How often a request is tried again, and after what."""

    attempts: Annotated[int, Meta(ge=0, le=actions.MAX_ATTEMPTS)] = actions.RETRIES.attempts
    unsafe: bool = False
    on: list[RetryOn] | None = None

    def to_retries(self) -> Retries:
        on = actions.RETRIES.on if self.on is None else tuple(self.on)
        return Retries(self.attempts, self.unsafe, on)

    @staticmethod
    def of(retries: Retries) -> RetriesBody:
        on = None if retries.on == actions.RETRIES.on else list(retries.on)
        return RetriesBody(retries.attempts, retries.unsafe, on)


class EditsBody(Request, frozen=True):
    """Changes to headers."""

    set: dict[str, str] = {}
    add: dict[str, str] = {}
    remove: list[str] = []

    def to_edits(self) -> HeaderEdits:
        return HeaderEdits(model.frozen(self.set), model.frozen(self.add), tuple(self.remove))

    @staticmethod
    def of(edits: HeaderEdits) -> EditsBody:
        return EditsBody(dict(edits.set), dict(edits.add), list(edits.remove))


class CorsBody(Request, frozen=True):
    """Which pages of other origins may call."""

    origins: list[str]
    methods: list[str] = msgspec.field(default_factory=lambda: ["GET", "HEAD", "POST"])
    headers: list[str] = []
    expose: list[str] = []
    max_age: Length = 600.0
    credentials: bool = False

    def to_cors(self) -> Cors:
        methods, headers, expose = tuple(self.methods), tuple(self.headers), tuple(self.expose)
        return Cors(tuple(self.origins), methods, headers, expose, seconds("max_age", self.max_age), self.credentials)

    @staticmethod
    def of(cors: Cors) -> CorsBody:
        methods, headers, expose = list(cors.methods), list(cors.headers), list(cors.expose)
        return CorsBody(list(cors.origins), methods, headers, expose, cors.max_age, cors.credentials)


class RateLimitBody(Request, frozen=True):
    """So many requests every `per`, and `burst` at once."""

    requests: Annotated[int, Meta(ge=1, le=actions.MAX_RATE)]
    per: Length = 1.0
    burst: Annotated[int, Meta(ge=1, le=actions.MAX_RATE)] | None = None

    def to_rate_limit(self) -> RateLimit:
        return RateLimit(self.requests, seconds("per", self.per), self.burst)


class HashBody(Request, frozen=True):
    """What keeps a caller with one instance: a header, or a cookie that lasts `ttl`."""

    header: str = ""
    cookie: str = ""
    ttl: Length = 0.0

    def to_hash(self) -> HashOn:
        return HashOn(self.header.lower(), self.cookie, seconds("ttl", self.ttl))


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
    rate_limit: RateLimitBody | None = None
    hash: HashBody | None = None
    priority: Annotated[int, Meta(ge=-routes.MAX_PRIORITY, le=routes.MAX_PRIORITY)] = 0

    def to_route(self, name: str = "") -> Route:
        """The route of that name, or of its own. Raises `Invalid`, naming the field as it was sent."""
        if self.name and name and self.name != name:
            raise Invalid("name", f"must be {name}, as it was asked for")
        name = name or self.name
        defaults.refuse("name", name)
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
            retries=within("retries", self.retries.to_retries) if self.retries else actions.RETRIES,
            mirror=within("mirror", self.mirror.to_mirror) if self.mirror else None,
            request_headers=_edits("request_headers", self.request_headers),
            response_headers=_edits("response_headers", self.response_headers),
            cors=within("cors", self.cors.to_cors) if self.cors else None,
            max_body=self.max_body,
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
            retries=RetriesBody.of(route.retries) if route.retries != actions.RETRIES else None,
            mirror=MirrorBody(SelectorBody.of(mirror.to), mirror.share) if mirror else None,
            request_headers=EditsBody.of(route.request_headers) if route.request_headers != NO_EDITS else None,
            response_headers=EditsBody.of(route.response_headers) if route.response_headers != NO_EDITS else None,
            cors=CorsBody.of(route.cors) if route.cors else None,
            max_body=route.max_body,
            rate_limit=RateLimitBody(limit.requests, limit.per, limit.burst) if limit else None,
            hash=HashBody(hash.header, hash.cookie, hash.ttl) if hash else None,
            priority=route.priority,
        )


def _edits(field: str, body: EditsBody | None) -> HeaderEdits:
    return within(field, body.to_edits) if body else NO_EDITS


def _only(given: Mapping[MatchKind, str | None]) -> tuple[MatchKind, str]:
    """The one that is given."""
    there = [(kind, value) for kind, value in given.items() if value is not None]
    if len(there) != 1:
        raise Invalid("", f"must have one of {', '.join(given)}")
    return there[0]


def _condition(given: Mapping[MatchKind, str | None], present: bool | None) -> tuple[MatchKind, str, bool]:
    """What is compared with what, and whether it must be absent; nothing given asks for its presence."""
    if present is None and any(value is not None for value in given.values()):
        return (*_only(given), False)
    if any(value is not None for value in given.values()):
        raise Invalid("present", "can't be used together with another condition")
    return MatchKind.PRESENT, "", present is False
