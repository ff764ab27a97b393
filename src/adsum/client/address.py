"""Under which address and id this host's instances are listed, unless somebody says."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Any, Final

from adsum.core.rules import ID_LENGTH

LOOPBACK: Final = "127.0.0.1"

_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9._-]+")


def facing(peer: tuple[Any, ...]) -> str:
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


def default_id(port: int, host: str | None = None) -> str:
    """`<host>-<port>`: the same after a restart, so that an instance that comes back takes its own place again."""
    name = _NOT_IN_AN_ID.sub("-", host if host is not None else socket.gethostname()).strip("-._")
    ending = f"-{port}"
    return f"{name[: ID_LENGTH - len(ending)] or 'host'}{ending}"
