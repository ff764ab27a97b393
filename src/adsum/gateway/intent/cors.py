"""CORS: the origins whose web pages may call a route (fetch.spec.whatwg.org, "CORS protocol")."""

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
"""Characters of an origin with a wildcard: it becomes a regex, whose size is bounded (`regexes.MAX_REGEX_STEPS`)."""
MAX_CORS_NAMES: Final = 64
"""Methods, allowed headers or exposed headers of a route; more are refused."""
MAX_PREFLIGHT_AGE: Final = 86_400.0
"""The longest `max_age` in seconds: no browser caches the response to a preflight longer."""

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]{0,31}://(\*\.)?[a-z0-9_.-]{1,253}(:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Cors:
    """The origins whose pages may call a route: `https://shop.example`, `https://*.shop.example`, or `*` for all.

    The gateway answers preflights. `methods` and `headers` may contain `*`. `max_age` is in seconds.
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
            raise Invalid("credentials", "can't be allowed for the origin *: name the origins")

    def allows(self, origin: str) -> bool:
        """Returns whether pages of that origin may call the route."""
        return any(pattern in (ANY_ORIGIN, origin) or _matches_wildcard(pattern, origin) for pattern in self.origins)


def _matches_wildcard(pattern: str, origin: str) -> bool:
    """Returns whether the pattern has a wildcard and matches the origin."""
    scheme, wildcard, domain = pattern.partition("*.")
    return bool(wildcard) and regexes.matches(subdomain_regex(scheme, domain), origin)


def subdomain_regex(scheme: str, domain: str) -> str:
    """Returns the regex of the origins with that scheme and a host below `domain`, which includes the port."""
    return rf"{re.escape(scheme)}[a-z0-9_.-]+\.{re.escape(domain)}"
