"""Host patterns: an exact name, or `*.` and a name for everything below it; which takes a host, and how well."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import Final

from adsum.core.errors import Invalid
from adsum.core.validation import MAX_ADDRESS_LENGTH, quoted

WILDCARD: Final = "*."
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PORT: Final = re.compile(r":[^:\]]*$")


def check_host_pattern(field: str, value: str) -> None:
    """A host name in lower case, an IPv4 or [IPv6] address, or `*.` and a host name; without a port."""
    name = value.removeprefix("*.")
    if len(value) <= MAX_ADDRESS_LENGTH and _NAME.fullmatch(name):
        return
    if ipv6 := _ipv6(value):
        if ipv6 != value:
            raise Invalid(field, f"must be written as callers write it, {ipv6}, not {quoted(value)}")
        return
    raise Invalid(field, f"must be a host such as shop.example or *.shop.example, without a port, not {quoted(value)}")


def _ipv6(value: str) -> str:
    """The address in brackets as it is written usually (RFC 5952); "" if it is none."""
    try:
        return f"[{ipaddress.IPv6Address(value[1:-1]).compressed}]" if value[:1] + value[-1:] == "[]" else ""
    except ValueError:
        return ""


def host_of_authority(authority: str) -> str:
    """The host of a request's authority: in lower case, without its port and without the dot of the DNS root."""
    return (authority if authority.endswith("]") else _PORT.sub("", authority)).lower().removesuffix(".")


def covers(pattern: str, host: str) -> bool:
    """Whether the pattern takes that host, or all that another pattern takes. A wildcard takes any depth below it."""
    if pattern.startswith(WILDCARD):
        return host.endswith(pattern[1:]) and host != pattern[1:]
    return pattern == host


def authority_regex(pattern: str) -> str:
    """A regex of RE2 for the authorities whose host the pattern takes."""
    below = pattern.startswith(WILDCARD)
    name = re.escape(pattern.removeprefix("*") if below else pattern)
    return f"(?i:{'.+' if below else ''}{name})(:[^:]*)?"


def covering_patterns(host: str) -> Iterator[str]:
    """Every pattern that takes that host, or all that a host pattern takes."""
    yield host
    at = host.find(".")
    while at >= 0:
        if at and (wider := "*" + host[at:]) != host:
            yield wider
        at = host.find(".", at + 1)


def rank(patterns: Iterable[str], host: str) -> tuple[int, int] | None:
    """How well the best of the patterns fits the host: the lower, the more exactly. None: none of them takes it.

    An exact name before wildcards, the longer wildcard before the shorter. No patterns at all take every host, last.
    """
    ranks = [(each.startswith(WILDCARD), -len(each)) for each in patterns if covers(each, host)]
    if ranks:
        return min(ranks)
    return None if any(True for _ in patterns) else (2, 0)
