"""What other people's web pages can make a browser on our machine do, and how such requests are known.

A page may name this server by a name of its own that it points here (DNS rebinding), and so read and write like one of
our own pages: its requests say that name in Host. Or it may send across origins what a form can send: browsers say so
in Sec-Fetch-Site or Origin. Programs that are no browsers say neither, and are not kept out by this.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from socket import socket
from typing import Final

from adsum.servers.http.sockets import host_part

MAX_CACHED_HOSTS: Final = 1_024
"""How many admitted Host headers are remembered as they came; further ones are judged anew each time."""

_SAFE: Final = (b"GET", b"HEAD", b"OPTIONS")
_OWN: Final = (b"same-origin", b"none")


class AllowedHosts:
    """The names that this server is called by: `names`, localhost, and any address, for an address can't be rebound."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {name.lower().removesuffix(".") for name in names} | {"localhost"}
        self.cached: set[bytes] = {b""}
        """Host headers that are admitted, as they came: looked up before `allows` is asked."""

    @classmethod
    def for_sockets(cls, listen: str, sockets: Sequence[socket], names: Sequence[str]) -> AllowedHosts | None:
        """Those of a server that listens there; None, all of them, if others may reach it and no names are given."""
        local = all(ipaddress.ip_address(each.getsockname()[0]).is_loopback for each in sockets)
        return cls((*names, host_part(listen))) if names or local else None

    def allows(self, host: bytes) -> bool:
        """Whether a request with that Host header is meant for us."""
        name = _name(host.decode("latin-1"))
        admitted = name in self._names or name.endswith(".localhost") or _is_address(name)
        if admitted and len(self.cached) < MAX_CACHED_HOSTS:
            self.cached.add(host)
        return admitted


def is_cross_origin(method: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a browser sends this for another site's page, to have it change something.

    After Go's `net/http.CrossOriginProtection`: Sec-Fetch-Site says it; older browsers say an Origin that isn't Host.
    """
    if method in _SAFE:
        return False
    told = dict(headers)
    site, origin = told.get(b"sec-fetch-site"), told.get(b"origin")
    if site is not None:
        return site not in _OWN
    return origin is not None and origin.partition(b"://")[2] != told.get(b"host", b"")


def _name(host: str) -> str:
    """A Host header without its port, brackets, and final dot."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
