"""What becomes of a request that a route takes: where it goes, how often, and what is changed on the way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from adsum.core import model, validation
from adsum.core.errors import Invalid
from adsum.gateway.intent.matches import check_plain_path
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.patterns import host_patterns

MAX_TARGET_WEIGHT: Final = 1_000
MAX_HEADER_EDITS: Final = 32
"""Headers that a route sets, adds or removes, of each; more are refused."""
MAX_RETRY_ATTEMPTS: Final = 10
"""Retries of one request at most; more are refused."""
MAX_RATE_LIMIT_REQUESTS: Final = 1_000_000
"""Requests per fill of a rate limit, and its burst, at most."""
MIN_FILL_INTERVAL, MAX_FILL_INTERVAL = 0.05, 3_600.0
"""Seconds between two fills of a rate limit: Envoy fills no faster."""
MAX_COOKIE_TTL: Final = 400 * 86_400.0
"""Seconds that a cookie lasts at most: what browsers keep."""
REDIRECT_STATUSES: Final = (301, 302, 303, 307, 308)

_COOKIE: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_KEPT: Final = frozenset(
    {"host", "connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"}
    | {"upgrade"}
)
"""Headers that carry the message itself: not a route's to change."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go, and their share: `weight` of the sum of all targets' weights."""

    selector: Selector
    weight: int = 1

    def __post_init__(self) -> None:
        validation.whole_number("weight", self.weight, 0, MAX_TARGET_WEIGHT)


@dataclass(frozen=True, slots=True)
class Redirect:
    """An answer that sends the caller elsewhere. What is not set stays; the query always does.

    `path` replaces the whole path, `prefix` what the route's path matched.
    """

    scheme: str = ""
    host: str = ""
    port: int | None = None
    path: str = ""
    prefix: str = ""
    status: int = 302

    def __post_init__(self) -> None:
        if self.scheme not in ("", "http", "https"):
            raise Invalid("scheme", "must be http or https")
        if self.host:
            host_patterns.check_host_pattern("host", self.host)
            if self.host.startswith("*"):
                raise Invalid("host", "must be one host")
        if self.port is not None:
            validation.whole_number("port", self.port, 1, validation.MAX_PORT)
        if self.path and self.prefix:
            raise Invalid("prefix", "can't be used together with path")
        for name, value in (("path", self.path), ("prefix", self.prefix)):
            if value:
                check_plain_path(name, value)
        if self.status not in REDIRECT_STATUSES:
            raise Invalid("status", "must be 301, 302, 303, 307 or 308")
        if not (self.scheme or self.host or self.port or self.path or self.prefix):
            raise Invalid("", "must change the scheme, host, port or path: this one would go round in circles")


class RetryOn(StrEnum):
    """What of a try is worth another: Envoy's words (router filter, `x-envoy-retry-on` and `x-envoy-retry-grpc-on`)."""

    CONNECT_FAILURE = "connect-failure"
    REFUSED_STREAM = "refused-stream"
    RESET_BEFORE_REQUEST = "reset-before-request"
    RESET = "reset"
    GATEWAY_ERROR = "gateway-error"
    ANY_5XX = "5xx"
    RETRIABLE_4XX = "retriable-4xx"
    CANCELLED = "cancelled"
    DEADLINE_EXCEEDED = "deadline-exceeded"
    INTERNAL = "internal"
    RESOURCE_EXHAUSTED = "resource-exhausted"
    UNAVAILABLE = "unavailable"


UNSENT_CONDITIONS: Final = (RetryOn.CONNECT_FAILURE, RetryOn.REFUSED_STREAM, RetryOn.RESET_BEFORE_REQUEST)
"""The request never reached a service: another try is always safe."""
FAILURE_CONDITIONS: Final = (RetryOn.RESET, RetryOn.GATEWAY_ERROR)
"""The service may have worked on it: another try is safe when the method is idempotent."""
IDEMPOTENT_METHODS: Final = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
"""Methods that may be sent twice (RFC 9110, section 9.2.2)."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is tried again, and after what.

    What never reached a service is always retried; the failures in `on` only for idempotent methods, unless `unsafe`.
    """

    attempts: int = 2
    unsafe: bool = False
    on: tuple[RetryOn, ...] = FAILURE_CONDITIONS

    def __post_init__(self) -> None:
        validation.whole_number("attempts", self.attempts, 0, MAX_RETRY_ATTEMPTS)
        if len(set(self.on)) != len(self.on):
            raise Invalid("on", "must not repeat")

    def conditions(self, *, idempotent: bool) -> tuple[RetryOn, ...]:
        """What a request is retried after."""
        if not self.attempts:
            return ()
        more = self.on if idempotent or self.unsafe else ()
        return (*UNSENT_CONDITIONS, *(each for each in more if each not in UNSENT_CONDITIONS))


DEFAULT_RETRIES: Final = Retries()


@dataclass(frozen=True, slots=True)
class Mirror:
    """A copy of a share of the requests goes here too; nobody waits for the answer, nor sees it."""

    selector: Selector
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise Invalid("share", "must be a share from 0 to 1")


@dataclass(frozen=True, slots=True)
class HeaderEdits:
    """Changes to headers: `set` replaces what is there, `add` adds to it. Values are taken as they are."""

    set: Mapping[str, str] = field(default_factory=model.empty_mapping)
    add: Mapping[str, str] = field(default_factory=model.empty_mapping)
    remove: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        validation.headers("set", self.set, MAX_HEADER_EDITS)
        validation.headers("add", self.add, MAX_HEADER_EDITS)
        validation.texts("remove", self.remove, MAX_HEADER_EDITS)
        validation.headers("remove", dict.fromkeys(self.remove, ""), MAX_HEADER_EDITS)
        for part, names in (("set", self.set), ("add", self.add), ("remove", self.remove)):
            lowered = [name.lower() for name in names]
            if len(set(lowered)) != len(lowered):
                raise Invalid(part, "must not repeat a header")
            for name in lowered:
                if name in _KEPT:
                    raise Invalid(f"{part}.{name}", "carries the message itself and can't be changed")


NO_HEADER_EDITS: Final = HeaderEdits()


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A bucket at each gateway that holds `burst` requests and gets `requests` more every `per` seconds; then 429.

    Of whatever hosts the requests are; a gateway that listens at several addresses has one for each of them. It is full
    again when the rate limit of any route changes.
    """

    requests: int
    per: float = 1.0
    burst: int | None = None

    def __post_init__(self) -> None:
        validation.whole_number("requests", self.requests, 1, MAX_RATE_LIMIT_REQUESTS)
        validation.seconds("per", self.per, MIN_FILL_INTERVAL, MAX_FILL_INTERVAL)
        if self.burst is not None:
            validation.whole_number("burst", self.burst, self.requests, MAX_RATE_LIMIT_REQUESTS)


@dataclass(frozen=True, slots=True)
class HashPolicy:
    """Requests with the same header, or the same cookie, go to the same instance.

    A caller without the cookie is given one that lasts `ttl` seconds; 0.0: as long as the browser runs.
    """

    header: str = ""
    cookie: str = ""
    ttl: float = 0.0

    def __post_init__(self) -> None:
        if bool(self.header) is bool(self.cookie):
            raise Invalid("", "must be of a header or of a cookie")
        if self.header:
            validation.headers("header", {self.header: ""}, 1)
            if self.ttl:
                raise Invalid("ttl", "is a cookie's")
        elif not _COOKIE.fullmatch(self.cookie):
            raise Invalid("cookie", "must be a cookie's name: a token of at most 64 characters")
        validation.seconds("ttl", self.ttl, 0.0, MAX_COOKIE_TTL)
