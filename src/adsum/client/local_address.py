"""Under which address and id this host's instances are listed, unless somebody says."""

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
"""Characters of an address that a default id holds; a longer one is cut."""

_ELSEWHERE: Final = ("192.0.2.1", "2001:db8::1")
"""Addresses of nobody (RFC 5737, RFC 3849): the way to them is the way to the rest of the world."""

_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9._-]+")


def outbound_address(peer: tuple[Any, ...]) -> str:
    """The address of this host that packets to `peer` (a socket address with an IP) leave from.

    Connecting a UDP socket only looks the route up, it sends nothing. A peer on this host is met over 127.0.0.1: who is
    reached there, is listed there. Raises `OSError` if there is no way.
    """
    ip = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    if ip.is_loopback:
        return LOOPBACK
    family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(peer)
        return str(probe.getsockname()[0]).partition("%")[0]


async def outbound_address_to_any(hosts: Iterable[tuple[str, int]], lookup_timeout: float) -> str:
    """As `outbound_address`, of several hosts by name and port: the first that is not on this host decides, if there is one.

    Looking up a name takes at most `lookup_timeout` seconds. Raises `OSError` if there is no way to any.
    """
    found, troubles = "", []
    for host, port in hosts:
        try:
            async with asyncio.timeout(lookup_timeout):
                addresses = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
            found = outbound_address(addresses[0][4])
        except (OSError, TimeoutError) as error:
            troubles.append(f"there is no way to {host}: {error or 'its name was not looked up in time'}")
        else:
            if found != LOOPBACK:
                break
    if not found:
        raise OSError("; ".join(troubles))
    return found


def is_local(address: str) -> bool:
    """Whether this host has that IP address now; a name is none."""
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except (OSError, ValueError):
        return False
    return True


def default_address() -> str:
    """The address of this host that packets to the rest of the world leave from; 127.0.0.1 if there is no way.

    `ADSUM_ADDRESS`, where it is set, is the operator's word for it.
    """
    set_by_hand = os.environ.get(ADDRESS_VARIABLE)
    if set_by_hand:
        return set_by_hand
    for elsewhere in _ELSEWHERE:
        with suppress(OSError):
            return outbound_address((elsewhere, 9))
    return LOOPBACK


def default_id(port: int, address: str = "", host: str | None = None) -> str:
    """`<host>-<address>-<port>`: the same after a restart, so that an instance that comes back takes its own entry
    again, and another one on another host of the same name. `address` "": the one of `default_address`.
    """
    name = _NOT_IN_AN_ID.sub("-", host if host is not None else socket.gethostname()).strip("-._")
    place = _NOT_IN_AN_ID.sub("-", address or default_address()).strip("-._")[:MAX_ADDRESS_IN_ID]
    ending = f"-{place}-{port}"
    return f"{name[: MAX_ID_LENGTH - len(ending)] or 'host'}{ending}"
