"""Routes: which requests go where. Frozen and valid from birth: constructors raise `Invalid`, naming the field."""

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
"""Characters of all methods of one route together: they become a regex, which must stay small."""
MAX_ROUTE_CONDITIONS: Final = 16
"""Conditions on headers, and as many on the query, of one route; more are refused."""
MAX_TARGETS: Final = 16
MAX_PRIORITY: Final = 1_000
MIN_ROUTE_TIMEOUT, MAX_ROUTE_TIMEOUT = 0.001, 86_400.0
MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""Bytes of a body that a route may have held in the gateway's memory; a larger value of a setting is refused."""

_FORWARDING: Final = (
    *("rewrite", "timeout", "try_timeout", "idle_timeout", "mirror", "max_body", "retry_body", "rate_limit", "hash"),
)
"""What makes no sense of a redirect."""
_METHOD: Final = re.compile(r"[A-Z][A-Z-]{0,31}")
_BACKSLASH: Final = re.compile(r"\\(.?)")


@dataclass(frozen=True, slots=True)
class Route:
    r"""A route takes a request when all its conditions hold, and sends it `to` its targets or answers a `redirect`.

    `rewrite` replaces what a prefix matched, else the whole path; with a regex, `\1` stands for its first group.
    Lengths are seconds. `timeout` is for the whole answer, with all its tries; None: none, streams take their time.
    `idle_timeout` ends a request on which nothing moves. With `max_body`, the gateway reads a request whole before it
    sends it on, and refuses a larger one: not for streams. A request whose body is at most `retry_body` bytes can be
    tried at another instance; the gateway holds so much of each body in its memory. None: 1 MiB. Of two routes, the
    higher `priority` is asked first (see `adsum.gateway.route_check.route_order`).
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
        """Everything that it sends requests to."""
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
            raise Invalid("to", "must name a service, unless there is a redirect")
        validation.whole_number("to", len(self.to), 0, MAX_TARGETS)
        names = [target.selector.name for target in self.to]
        if len(set(names)) != len(names):
            raise Invalid("to", "must not repeat a target: add up their weights")
        if self.to and not any(target.weight for target in self.to):
            raise Invalid("to", "must have a target with a weight")
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
        known = regexes.group_count(self.path.value)
        for group in _BACKSLASH.findall(self.rewrite):
            if not ("1" <= group <= "9" and int(group) <= known):
                raise Invalid("rewrite", f"\\{group} must be one of the {known} groups of the path's regex")
