"""The address and the default id under which this host's instances are listed."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from adsum.core.validation import MAX_ID_LENGTH

ADDRESS_VARIABLE: Final = "ADSUM_ADDRESS"
LOOPBACK: Final = "127.0.0.1"
MAX_ADDRESS_IN_ID: Final = 64
"""Characters of the address in a default id; a longer address is cut."""

_UNUSED_ADDRESSES: Final = ("192.0.2.1", "2001:db8::1")
"""Addresses that no host has (RFC 5737, RFC 3849): the route to them is the default route."""

_INVALID_IN_ID = re.compile(r"[^A-Za-z0-9._-]+")


def outbound_address(peer: tuple[Any, ...]) -> str:
    """Returns the address of this host from which packets to `peer` leave; `peer` is a socket address with an IP.

    Connecting a UDP socket only looks up the route and sends nothing. For a peer on this host it is 127.0.0.1: an
    instance on the registry's own host is listed under loopback. Raises `OSError` if there is no route.
    """
    ip = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    if ip.is_loopback:
        return LOOPBACK
    family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(peer)
        return str(probe.getsockname()[0]).partition("%")[0]


async def outbound_address_to_any(hosts: Iterable[tuple[str, int]], lookup_timeout: float) -> str:
    """Like `outbound_address`, for several hosts given by name and port: the first that is not this host decides.

    A name look-up takes at most `lookup_timeout` seconds. Raises `OSError` if there is no route to any host.
    """
    found, problems = "", []
    for host, port in hosts:
        try:
            async with asyncio.timeout(lookup_timeout):
                addresses = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
            found = outbound_address(addresses[0][4])
        except (OSError, TimeoutError) as error:
            problems.append(f"no route to {host}: {error or 'its name was not resolved in time'}")
        else:
            if found != LOOPBACK:
                break
    if not found:
        raise OSError("; ".join(problems))
    return found


def is_local(address: str) -> bool:
    """Returns whether this host has that IP address now; False for a host name."""
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except (OSError, ValueError):
        return False
    return True


def default_address() -> str:
    """Returns the value of `ADSUM_ADDRESS`, else the address from which packets to the outside leave.

    127.0.0.1 if there is no route.
    """
    configured = os.environ.get(ADDRESS_VARIABLE)
    if configured:
        return configured
    for address in _UNUSED_ADDRESSES:
        with suppress(OSError):
            return outbound_address((address, 9))
    return LOOPBACK


def default_id(port: int, address: str = "", host: str | None = None) -> str:
    """Returns `<host>-<address>-<port>`; `address` "" stands for `default_address()`.

    It is the same after a restart, so that the instance takes its own entry again, and differs on another host of the
    same name.
    """
    host_part = _INVALID_IN_ID.sub("-", host if host is not None else socket.gethostname()).strip("-._")
    address_part = _INVALID_IN_ID.sub("-", address or default_address()).strip("-._")[:MAX_ADDRESS_IN_ID]
    suffix = f"-{address_part}-{port}"
    return f"{host_part[: MAX_ID_LENGTH - len(suffix)] or 'host'}{suffix}"
