"""Host patterns: an exact host, or `*.` and a name for every host below that name. A more exact pattern ranks first."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator
from typing import Final

from adsum.core.errors import Invalid
from adsum.core.validation import MAX_ADDRESS_LENGTH, quoted

WILDCARD: Final = "*."
ANY_HOST_RANK: Final = (2, 0)
"""The rank of an empty set of patterns, which matches every host. It comes after all other ranks."""
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PORT: Final = re.compile(r":[^:\]]*$")


def check_host_pattern(field: str, value: str) -> None:
    """Raises `Invalid` unless the value is a host pattern without a port.

    That is a host name in lower case, an IPv4 or [IPv6] address, or `*.` and a host name.
    """
    name = value.removeprefix(WILDCARD)
    if len(value) <= MAX_ADDRESS_LENGTH and _NAME.fullmatch(name):
        return
    if ipv6 := _ipv6(value):
        if ipv6 != value:
            raise Invalid(field, f"must have the canonical form {ipv6}, which callers send, not {quoted(value)}")
        return
    raise Invalid(field, f"must be a host such as shop.example or *.shop.example, without a port, not {quoted(value)}")


def _ipv6(value: str) -> str:
    """Returns the canonical form (RFC 5952) of an IPv6 address in brackets; "" if the value is not one."""
    try:
        return f"[{ipaddress.IPv6Address(value[1:-1]).compressed}]" if value[:1] + value[-1:] == "[]" else ""
    except ValueError:
        return ""


def host_of_authority(authority: str) -> str:
    """Returns the host of a request's authority: in lower case, without its port and the dot of the DNS root."""
    return (authority if authority.endswith("]") else _PORT.sub("", authority)).lower().removesuffix(".")


def covers(pattern: str, host: str) -> bool:
    """Returns whether the pattern matches the host, or every host that a pattern given as `host` matches.

    A wildcard matches any depth below its name.
    """
    if pattern.startswith(WILDCARD):
        return host.endswith(pattern[1:]) and host != pattern[1:]
    return pattern == host


def authority_regex(pattern: str) -> str:
    """Returns an RE2 regex of the authorities whose host the pattern matches."""
    below = pattern.startswith(WILDCARD)
    name = re.escape(pattern.removeprefix("*") if below else pattern)
    return f"(?i:{'.+' if below else ''}{name})(:[^:]*)?"


def covering_patterns(host: str) -> Iterator[str]:
    """Yields every pattern that covers the host or host pattern, itself included."""
    yield host
    at = host.find(".")
    while at >= 0:
        if at and (wider := "*" + host[at:]) != host:
            yield wider
        at = host.find(".", at + 1)


def rank(patterns: Collection[str], host: str) -> tuple[int, int] | None:
    """Returns the rank of the best pattern that matches the host; a lower rank is more exact. None: no pattern matches.

    Exact hosts come before wildcards, and longer wildcards before shorter ones. An empty set of patterns has
    `ANY_HOST_RANK`.
    """
    if not patterns:
        return ANY_HOST_RANK
    ranks = [(pattern.startswith(WILDCARD), -len(pattern)) for pattern in patterns if covers(pattern, host)]
    return min(ranks, default=None)
