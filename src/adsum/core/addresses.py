"""Host addresses: IP addresses and host names as text."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

WILDCARD_ADDRESSES: Final = ("0.0.0.0", "::")  # noqa: S104 - to compare with
"""The addresses of a program that listens on every address of its host."""
MAX_CACHED_ADDRESSES: Final = 65_536
"""Addresses other than usual IPv4 ones whose parsing is cached. Past it those used longest ago are parsed again."""
IPV4_OCTET_PATTERN: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
"""A number of an IPv4 address as text."""

_IPV4 = re.compile(rf"{IPV4_OCTET_PATTERN}(?:\.{IPV4_OCTET_PATTERN}){{3}}")


def format_host_port(address: str, port: int) -> str:
    """Returns `address:port`, with brackets around an IPv6 address."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def is_ipv4_address(address: str) -> bool:
    """Returns whether the text is an IPv4 address."""
    return _IPV4.fullmatch(address) is not None


def is_ip_address(address: str) -> bool:
    """Returns whether the text is an IP address (without brackets), rather than a host name."""
    return _IPV4.fullmatch(address) is not None or _can_be_parsed(address)


@lru_cache(maxsize=MAX_CACHED_ADDRESSES)  # Thousands of instances share a host, and each of their changes looks it up.
def _can_be_parsed(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return True


def is_loopback_host(host: str) -> bool:
    """Returns whether the host is this host itself, by a loopback address (without brackets) or the name localhost."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def split_host_port(address: str) -> tuple[str, str]:
    """Returns the host and the port in HOST:PORT as text, the host without the brackets of an IPv6 address."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), port
