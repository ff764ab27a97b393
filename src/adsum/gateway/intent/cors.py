"""CORS: which pages of other origins may call (fetch.spec.whatwg.org, "CORS protocol")."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from adsum.core import validation
from adsum.core.errors import Invalid
from adsum.core.validation import quoted
from adsum.gateway.patterns import regexes

ANY_ORIGIN: Final = "*"
MAX_ORIGINS: Final = 32
MAX_WILDCARD_ORIGIN_LENGTH: Final = 70
"""Characters of an origin with a wildcard: it becomes a regex, which must stay small (see `patterns.MAX_SIZE`)."""
MAX_CORS_NAMES: Final = 64
"""Methods or headers that a route allows or exposes; more are refused."""
MAX_PREFLIGHT_AGE: Final = 86_400.0
"""Seconds that a browser keeps a preflight's answer at most; none keeps it longer."""

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]{0,31}://(\*\.)?[a-z0-9_.-]{1,253}(:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Cors:
    """Pages of these origins may call: `https://shop.example`, `https://*.shop.example`, or `*` for all.

    Preflights are answered by the gateway; `methods` and `headers` may each be `*`. `max_age` is in seconds.
    """

    origins: tuple[str, ...]
    methods: tuple[str, ...] = ("GET", "HEAD", "POST")
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    max_age: float = 600.0
    credentials: bool = False

    def __post_init__(self) -> None:
        validation.texts("origins", self.origins, MAX_ORIGINS)
        if not self.origins:
            raise Invalid("origins", "must not be empty")
        for n, origin in enumerate(self.origins):
            if origin != ANY_ORIGIN and not _ORIGIN.fullmatch(origin):
                raise Invalid(f"origins[{n}]", f"must be an origin such as https://shop.example, not {quoted(origin)}")
            if "*." in origin and len(origin) > MAX_WILDCARD_ORIGIN_LENGTH:
                raise Invalid(
                    f"origins[{n}]", f"must be at most {MAX_WILDCARD_ORIGIN_LENGTH} characters with a wildcard"
                )
        for name, values in (("methods", self.methods), ("headers", self.headers), ("expose", self.expose)):
            validation.texts(name, values, MAX_CORS_NAMES)
            validation.headers(name, dict.fromkeys(values, ""), MAX_CORS_NAMES)
        validation.seconds("max_age", self.max_age, 0.0, MAX_PREFLIGHT_AGE)
        if self.credentials and ANY_ORIGIN in self.origins:
            raise Invalid("credentials", "can't be allowed to every origin: name the origins")

    def allows(self, origin: str) -> bool:
        """Whether pages of that origin may call."""
        return any(each in (ANY_ORIGIN, origin) or _below(each, origin) for each in self.origins)


def _below(pattern: str, origin: str) -> bool:
    """Whether the origin is one of those that a pattern with a wildcard means."""
    scheme, wildcard, rest = pattern.partition("*.")
    return bool(wildcard) and regexes.matches(subdomain_regex(scheme, rest), origin)


def subdomain_regex(scheme: str, domain: str) -> str:
    """The regex for every host below `rest`, its port included."""
    return rf"{re.escape(scheme)}[a-z0-9_.-]+\.{re.escape(domain)}"
