"""The JSON of what a route does with requests: targets, redirects, retries, changes of headers."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from adsum.core import model
from adsum.gateway.intent import actions
from adsum.gateway.intent.actions import HashPolicy, HeaderEdits, Mirror, RateLimit, Redirect, Retries, RetryOn, Target
from adsum.gateway.intent.cors import Cors
from adsum.gateway.intent.selectors import Selector
from adsum.wire.durations import Duration, Fraction, convert_field, to_seconds
from adsum.wire.protocol import Name, Port
from adsum.wire.requests import RequestBody


class SelectorBody(RequestBody, frozen=True):
    """The instances of a service that have all `tags` and `metadata`, and none of `without_tags` and
    `without_metadata`.
    """

    service: Name
    tags: list[str] = []
    metadata: dict[str, str] = {}
    without_tags: list[str] = []
    without_metadata: dict[str, str] = {}

    def to_selector(self) -> Selector:
        return Selector(
            self.service,
            tuple(self.tags),
            model.freeze(self.metadata),
            tuple(self.without_tags),
            model.freeze(self.without_metadata),
        )

    @staticmethod
    def from_selector(selector: Selector) -> SelectorBody:
        return SelectorBody(*_fields(selector))


def _fields(selector: Selector) -> tuple[str, list[str], dict[str, str], list[str], dict[str, str]]:
    return (
        selector.service,
        list(selector.tags),
        dict(selector.metadata),
        list(selector.without_tags),
        dict(selector.without_metadata),
    )


class TargetBody(SelectorBody, frozen=True):
    """A target of requests. It gets the share of `weight` in the weights of all targets."""

    weight: Annotated[int, Meta(ge=0, le=actions.MAX_TARGET_WEIGHT)] = 1

    def to_target(self) -> Target:
        return Target(self.to_selector(), self.weight)

    @staticmethod
    def from_target(target: Target) -> TargetBody:
        return TargetBody(*_fields(target.selector), target.weight)


class MirrorBody(RequestBody, frozen=True):
    """The target of mirrored requests: it gets copies of `share` of the requests."""

    to: SelectorBody
    share: Fraction = 1.0

    def to_mirror(self) -> Mirror:
        return Mirror(convert_field("to", self.to.to_selector), self.share)


class RedirectBody(RequestBody, frozen=True):
    """A redirect. A field that is empty keeps this part of the request's URL."""

    scheme: str = ""
    host: str = ""
    port: Port | None = None
    path: str = ""
    prefix: str = ""
    status: int = 302

    def to_redirect(self) -> Redirect:
        return Redirect(self.scheme, self.host.lower(), self.port, self.path, self.prefix, self.status)

    @staticmethod
    def from_redirect(redirect: Redirect) -> RedirectBody:
        return RedirectBody(
            redirect.scheme, redirect.host, redirect.port, redirect.path, redirect.prefix, redirect.status
        )


class RetriesBody(RequestBody, frozen=True):
    """Retries: how often a request is retried, and on which failures."""

    attempts: Annotated[int, Meta(ge=0, le=actions.MAX_RETRY_ATTEMPTS)] = actions.DEFAULT_RETRIES.attempts
    unsafe: bool = False
    on: list[RetryOn] | None = None

    def to_retries(self) -> Retries:
        on = actions.DEFAULT_RETRIES.on if self.on is None else tuple(self.on)
        return Retries(self.attempts, self.unsafe, on)

    @staticmethod
    def from_retries(retries: Retries) -> RetriesBody:
        on = None if retries.on == actions.DEFAULT_RETRIES.on else list(retries.on)
        return RetriesBody(retries.attempts, retries.unsafe, on)


class HeaderEditsBody(RequestBody, frozen=True):
    """Changes of headers: set, add and remove."""

    set: dict[str, str] = {}
    add: dict[str, str] = {}
    remove: list[str] = []

    def to_edits(self) -> HeaderEdits:
        return HeaderEdits(model.freeze(self.set), model.freeze(self.add), tuple(self.remove))

    @staticmethod
    def from_edits(edits: HeaderEdits) -> HeaderEditsBody:
        return HeaderEditsBody(dict(edits.set), dict(edits.add), list(edits.remove))


class CorsBody(RequestBody, frozen=True):
    """The origins whose web pages may call, and what they may send and read (CORS)."""

    origins: list[str]
    methods: list[str] = msgspec.field(default_factory=lambda: ["GET", "HEAD", "POST"])
    headers: list[str] = []
    expose: list[str] = []
    max_age: Duration = 600.0
    credentials: bool = False

    def to_cors(self) -> Cors:
        methods, headers, expose = tuple(self.methods), tuple(self.headers), tuple(self.expose)
        return Cors(
            tuple(self.origins), methods, headers, expose, to_seconds("max_age", self.max_age), self.credentials
        )

    @staticmethod
    def from_cors(cors: Cors) -> CorsBody:
        methods, headers, expose = list(cors.methods), list(cors.headers), list(cors.expose)
        return CorsBody(list(cors.origins), methods, headers, expose, cors.max_age, cors.credentials)


class RateLimitBody(RequestBody, frozen=True):
    """A rate limit: `requests` every `per`, and at most `burst` at once."""

    requests: Annotated[int, Meta(ge=1, le=actions.MAX_RATE_LIMIT_REQUESTS)]
    per: Duration = 1.0
    burst: Annotated[int, Meta(ge=1, le=actions.MAX_RATE_LIMIT_REQUESTS)] | None = None

    def to_rate_limit(self) -> RateLimit:
        return RateLimit(self.requests, to_seconds("per", self.per), self.burst)


class HashBody(RequestBody, frozen=True):
    """Session affinity: a header, or a cookie that lives for `ttl`, keeps a caller with one instance."""

    header: str = ""
    cookie: str = ""
    ttl: Duration = 0.0

    def to_hash(self) -> HashPolicy:
        return HashPolicy(self.header.lower(), self.cookie, to_seconds("ttl", self.ttl))
