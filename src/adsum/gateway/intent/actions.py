"""The actions of a route: targets, redirects, retries, mirrors, header edits, rate limits and sticky hashing."""

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
"""Headers that a route may set. It may add as many, and remove as many; more are refused."""
MAX_RETRY_ATTEMPTS: Final = 10
"""The largest number of retries of one request that a route may set."""
MAX_RATE_LIMIT_REQUESTS: Final = 1_000_000
"""The largest `requests` and `burst` of a rate limit."""
MIN_FILL_INTERVAL, MAX_FILL_INTERVAL = 0.05, 3_600.0
"""Seconds between two fills of a rate limit. Envoy fills no faster than the minimum."""
MAX_COOKIE_TTL: Final = 400 * 86_400.0
"""The longest lifetime of a cookie in seconds: browsers keep none longer."""
REDIRECT_STATUSES: Final = (301, 302, 303, 307, 308)

_COOKIE: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_FRAMING_HEADERS: Final = frozenset(
    {"host", "connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"}
    | {"upgrade"}
)
"""Headers that frame or route the message itself: a route can't change them."""


@dataclass(frozen=True, slots=True)
class Target:
    """A target of a route. Its share of the requests is its `weight` divided by the sum of all targets' weights."""

    selector: Selector
    weight: int = 1

    def __post_init__(self) -> None:
        validation.whole_number("weight", self.weight, 0, MAX_TARGET_WEIGHT)


@dataclass(frozen=True, slots=True)
class Redirect:
    """A response that redirects the caller. Parts of the URL that are not set stay; the query always stays.

    `path` replaces the whole path, `prefix` the part that the route's path matched.
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
            raise Invalid("", "must change the scheme, host, port or path: else it redirects to itself")


class RetryOn(StrEnum):
    """The outcomes of a try after which a request can be retried, by Envoy's names.

    See Envoy's router filter, `x-envoy-retry-on` and `x-envoy-retry-grpc-on`.
    """

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
"""The request never reached a service: a retry is always safe."""
FAILURE_CONDITIONS: Final = (RetryOn.RESET, RetryOn.GATEWAY_ERROR)
"""The service may have processed the request: a retry is safe when the method is idempotent."""
IDEMPOTENT_METHODS: Final = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
"""Idempotent methods (RFC 9110, section 9.2.2): a request with one of them may be sent twice."""


@dataclass(frozen=True, slots=True)
class Retries:
    """The number of retries of a request, and the outcomes after which they happen.

    Requests that never reached a service are always retried. The failures in `on` are retried for idempotent methods
    only, unless `unsafe`.
    """

    attempts: int = 2
    unsafe: bool = False
    on: tuple[RetryOn, ...] = FAILURE_CONDITIONS

    def __post_init__(self) -> None:
        validation.whole_number("attempts", self.attempts, 0, MAX_RETRY_ATTEMPTS)
        if len(set(self.on)) != len(self.on):
            raise Invalid("on", "must not repeat")

    def conditions(self, *, idempotent: bool) -> tuple[RetryOn, ...]:
        """Returns the outcomes after which a request is retried. `idempotent`: its method is idempotent."""
        if not self.attempts:
            return ()
        failures = self.on if idempotent or self.unsafe else ()
        return (*UNSENT_CONDITIONS, *(outcome for outcome in failures if outcome not in UNSENT_CONDITIONS))


DEFAULT_RETRIES: Final = Retries()


@dataclass(frozen=True, slots=True)
class Mirror:
    """The instances that get a copy of a share of the requests. The gateway ignores their responses."""

    selector: Selector
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise Invalid("share", "must be a share from 0 to 1")


@dataclass(frozen=True, slots=True)
class HeaderEdits:
    """Changes to headers: `set` replaces a header, `add` adds a value, `remove` drops it. Values are literal."""

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
                if name in _FRAMING_HEADERS:
                    raise Invalid(f"{part}.{name}", "can't be changed: the header frames or routes the message itself")


NO_HEADER_EDITS: Final = HeaderEdits()


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A token bucket of a route at each gateway; when it is empty, the gateway answers 429.

    It holds `burst` tokens (None: `requests`) and gets `requests` more every `per` seconds. It counts the requests for
    all hosts of the route. A gateway that listens at several addresses has one bucket for each. When the rate limit of
    any route changes, all buckets are full again.
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
    """A sticky hash: requests with the same value of a header, or of a cookie, go to the same instance.

    A caller without the cookie receives one that lasts `ttl` seconds; 0.0: until the browser closes.
    """

    header: str = ""
    cookie: str = ""
    ttl: float = 0.0

    def __post_init__(self) -> None:
        if bool(self.header) is bool(self.cookie):
            raise Invalid("", "must name a header or a cookie, and not both")
        if self.header:
            validation.headers("header", {self.header: ""}, 1)
            if self.ttl:
                raise Invalid("ttl", "needs a cookie: a header has no ttl")
        elif not _COOKIE.fullmatch(self.cookie):
            raise Invalid("cookie", "must be a cookie's name: a token of at most 64 characters")
        validation.seconds("ttl", self.ttl, 0.0, MAX_COOKIE_TTL)
