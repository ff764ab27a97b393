"""Routes: conditions on requests, and the action for requests that meet them. Constructors raise `Invalid`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from adsum.core import validation
from adsum.core.errors import Invalid
from adsum.gateway import direct_responses
from adsum.gateway.intent.actions import (
    DEFAULT_RETRIES,
    NO_HEADER_EDITS,
    HashPolicy,
    HeaderEdits,
    Mirror,
    RateLimit,
    Redirect,
    Retries,
    Target,
)
from adsum.gateway.intent.cors import Cors
from adsum.gateway.intent.matches import ANY_PATH, HeaderMatch, MatchKind, PathMatch, QueryMatch, check_plain_path
from adsum.gateway.intent.selectors import Selector
from adsum.gateway.patterns import host_patterns, regexes

MAX_HOSTS: Final = 32
UNROUTABLE_METHODS: Final = ("CONNECT", direct_responses.TRACE_METHOD)
MAX_METHODS: Final = 16
MAX_METHODS_CHARACTERS: Final = 80
"""Characters of all methods of one route together: they become a regex, whose size is bounded."""
MAX_ROUTE_CONDITIONS: Final = 16
"""Conditions on headers, and as many on the query, that one route may have; more are refused."""
MAX_TARGETS: Final = 16
MAX_PRIORITY: Final = 1_000
MIN_ROUTE_TIMEOUT, MAX_ROUTE_TIMEOUT = 0.001, 86_400.0
MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""The largest `max_body` and `retry_body` of a route, in bytes: gateways hold bodies of that size in memory."""

_FORWARDING: Final = (
    *("rewrite", "timeout", "try_timeout", "idle_timeout", "mirror", "max_body", "retry_body", "rate_limit", "hash"),
)
"""Fields that a route with a redirect can't have."""
_METHOD: Final = re.compile(r"[A-Z][A-Z-]{0,31}")
_BACKSLASH: Final = re.compile(r"\\(.?)")


@dataclass(frozen=True, slots=True)
class Route:
    r"""A route takes requests that meet all its conditions. It sends them `to` its targets or answers with `redirect`.

    `rewrite` replaces the matched prefix, or the whole path if the path condition is exact or a regex; with a regex,
    `\1` stands for its first group. Timeouts are seconds. `timeout` bounds the whole response with all its tries;
    None: no bound, for streams. `try_timeout` bounds one try. `idle_timeout` ends a request on which no bytes move.
    With `max_body`, the gateway reads the whole request before it forwards it, and refuses a larger body; streams need
    it unset. A request whose body has at most `retry_body` bytes can be tried at another instance; the gateway buffers
    that much of each body. None: 1 MiB. Routes with a higher `priority` come first
    (see `adsum.gateway.route_check.route_order`).
    """

    name: str
    hosts: tuple[str, ...] = ()
    path: PathMatch = ANY_PATH
    methods: tuple[str, ...] = ()
    headers: tuple[HeaderMatch, ...] = ()
    query: tuple[QueryMatch, ...] = ()
    to: tuple[Target, ...] = ()
    redirect: Redirect | None = None
    rewrite: str | None = None
    timeout: float | None = None
    try_timeout: float | None = None
    idle_timeout: float | None = None
    retries: Retries = DEFAULT_RETRIES
    mirror: Mirror | None = None
    request_headers: HeaderEdits = NO_HEADER_EDITS
    response_headers: HeaderEdits = NO_HEADER_EDITS
    cors: Cors | None = None
    max_body: int | None = None
    retry_body: int | None = None
    rate_limit: RateLimit | None = None
    hash: HashPolicy | None = None
    priority: int = 0

    @property
    def selectors(self) -> list[Selector]:
        """The selectors of the targets and of the mirror."""
        return [target.selector for target in self.to] + ([self.mirror.selector] if self.mirror is not None else [])

    def __post_init__(self) -> None:
        validation.instance_id("name", self.name)
        self._check_conditions()
        self._check_targets()
        self._check_rewrite()
        for name in ("timeout", "try_timeout", "idle_timeout"):
            length = getattr(self, name)
            if length is not None:
                validation.seconds(name, length, MIN_ROUTE_TIMEOUT, MAX_ROUTE_TIMEOUT)
        if self.timeout is not None and self.try_timeout is not None and self.try_timeout > self.timeout:
            raise Invalid("try_timeout", "must not be longer than timeout")
        for name in ("max_body", "retry_body"):
            size = getattr(self, name)
            if size is not None:
                validation.whole_number(name, size, 1, MAX_BODY_BYTES)
        validation.whole_number("priority", self.priority, -MAX_PRIORITY, MAX_PRIORITY)

    def _check_conditions(self) -> None:
        validation.texts("hosts", self.hosts, MAX_HOSTS)
        for n, host in enumerate(self.hosts):
            host_patterns.check_host_pattern(f"hosts[{n}]", host)
        validation.texts("methods", self.methods, MAX_METHODS)
        for n, method in enumerate(self.methods):
            if not _METHOD.fullmatch(method) or method in UNROUTABLE_METHODS:
                unrouted = " and ".join(UNROUTABLE_METHODS)
                raise Invalid(
                    f"methods[{n}]", f"must be a method in upper case, such as GET; {unrouted} can't be routed"
                )
        if sum(map(len, self.methods)) > MAX_METHODS_CHARACTERS:
            raise Invalid("methods", f"must be at most {MAX_METHODS_CHARACTERS} characters together")
        for name, conditions in (("headers", self.headers), ("query", self.query)):
            validation.whole_number(name, len(conditions), 0, MAX_ROUTE_CONDITIONS)

    def _check_targets(self) -> None:
        if bool(self.to) is (self.redirect is not None):
            raise Invalid("to", "must name a service, or the route must have a redirect, and not both")
        validation.whole_number("to", len(self.to), 0, MAX_TARGETS)
        names = [target.selector.name for target in self.to]
        if len(set(names)) != len(names):
            raise Invalid("to", "must not repeat a target: add up their weights")
        if self.to and not any(target.weight for target in self.to):
            raise Invalid("to", "must have a target with a weight above 0")
        if self.redirect is not None:
            for name in _FORWARDING:
                if getattr(self, name) is not None:
                    raise Invalid(name, "can't be used together with a redirect")
            if self.redirect.prefix and self.path.kind is not MatchKind.PREFIX:
                raise Invalid("redirect.prefix", "needs a path with a prefix")

    def _check_rewrite(self) -> None:
        if self.rewrite is None:
            return
        if self.path.kind is not MatchKind.REGEX:
            check_plain_path("rewrite", self.rewrite)
            if "\\" in self.rewrite:
                raise Invalid("rewrite", "must have no backslash, unless the path is a regex")
            return
        check_plain_path("rewrite", _BACKSLASH.sub("", self.rewrite))
        group_count = regexes.group_count(self.path.value)
        for group in _BACKSLASH.findall(self.rewrite):
            if not ("1" <= group <= "9" and int(group) <= group_count):
                raise Invalid("rewrite", f"\\{group} must be one of the {group_count} groups of the path's regex")
