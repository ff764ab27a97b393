"""The IP addresses of this host.

Python's standard library can't list them. Linux has them in two files. Elsewhere a look-up of the host's name and of
the default routes finds the usual ones.
"""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from adsum.certificates.lookups import look_up

IPV4_FILE: Final = Path("/proc/self/net/fib_trie")
IPV6_FILE: Final = Path("/proc/self/net/if_inet6")
"""Files of this process, since a service may see no other ones of /proc (`ProcSubset=pid` of systemd)."""
MAX_ROUTE_BYTES: Final = 4 * 1024 * 1024
"""Bytes that are read of one of these files. A router has longer ones; what follows is left out."""

_UNUSED_ADDRESSES: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses that no host has (RFC 5737, RFC 3849): the route to them is the default route."""


def find_addresses() -> list[str]:
    """Returns the addresses of this host, each once. May wait for a name server, for a bounded time."""
    found = [*parse_fib_trie(_read(IPV4_FILE)), *parse_if_inet6(_read(IPV6_FILE))]
    found += _default_route_addresses()
    found += look_up(_addresses_of_own_name, [])
    return list(dict.fromkeys(found))


def _addresses_of_own_name() -> list[str]:
    entries = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    return [str(entry[4][0]).partition("%")[0] for entry in entries]


def default_route_address() -> str:
    """Returns the address of this host on its default route, "" if it has none. Never waits."""
    return next(iter(_default_route_addresses()), "")


def _default_route_addresses() -> list[str]:
    found: list[str] = []
    for family, address in _UNUSED_ADDRESSES:
        # Connecting a UDP socket only looks up the route and sends nothing.
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            found.append(str(probe.getsockname()[0]).partition("%")[0])
    return found


def parse_fib_trie(text: str) -> list[str]:
    """Returns the own IPv4 addresses in Linux's /proc/net/fib_trie: the leaves with a local host route."""
    found: list[str] = []
    leaf = ""
    for line in text.splitlines():
        entry = line.strip()
        if entry.startswith("|-- "):
            leaf = entry[4:]
        elif entry == "/32 host LOCAL" and _is_address(leaf):
            found.append(leaf)
    return list(dict.fromkeys(found))


def parse_if_inet6(text: str) -> list[str]:
    """Returns the own IPv6 addresses in Linux's /proc/net/if_inet6: 32 hex digits at the start of each line."""
    found: list[str] = []
    for line in text.splitlines():
        digits = line.partition(" ")[0]
        with suppress(ValueError):
            if len(digits) == 32:
                found.append(str(ipaddress.IPv6Address(bytes.fromhex(digits))))
    return list(dict.fromkeys(found))


def _is_address(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _read(path: Path) -> str:
    try:
        with path.open(errors="replace") as file:
            return file.read(MAX_ROUTE_BYTES)
    except OSError:
        return ""
