"""Checks against foreign web pages: a page of another site may make a browser on this machine send requests here.

A page may point a host name of its own site at this server (DNS rebinding), and then read and write as if the page were
from this server. Its requests have that name in Host. A page may also send across origins whatever a form can send.
Browsers report that in Sec-Fetch-Site or Origin. Programs other than browsers send neither header, and pass.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from socket import socket
from typing import Final

from adsum.core.addresses import split_host_port

MAX_CACHED_HOSTS: Final = 1_024
"""Host headers that are remembered as allowed. Further ones are checked each time."""

_SAFE_METHODS: Final = (b"GET", b"HEAD", b"OPTIONS")
_SAME_ORIGIN: Final = (b"same-origin", b"none")


class AllowedHosts:
    """The host names of this server: `names`, localhost, and every IP address, since an address can't be rebound."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {name.lower().removesuffix(".") for name in names} | {"localhost"}
        self.cached: set[bytes] = {b""}
        """Values of Host that are allowed, as they were sent. Callers look here before they call `allows`."""

    @classmethod
    def for_sockets(cls, listen: str, sockets: Sequence[socket], names: Sequence[str]) -> AllowedHosts | None:
        """Returns the host names of a server with these sockets, None for all names.

        All names are allowed if other machines can reach the server and `names` is empty.
        """
        local = all(ipaddress.ip_address(sock.getsockname()[0]).is_loopback for sock in sockets)
        return cls((*names, split_host_port(listen)[0])) if names or local else None

    def allows(self, host: bytes) -> bool:
        """Returns whether the value of Host names this server."""
        name = _name(host.decode("latin-1"))
        is_allowed = name in self._names or name.endswith(".localhost") or _is_address(name)
        if is_allowed and len(self.cached) < MAX_CACHED_HOSTS:
            self.cached.add(host)
        return is_allowed


def is_cross_origin(method: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Returns whether a browser sends this request for a page of another site, with a method that may change something.

    Follows Go's `net/http.CrossOriginProtection`: Sec-Fetch-Site decides; in older browsers, an Origin other than Host.
    """
    if method in _SAFE_METHODS:
        return False
    values = dict(headers)
    site, origin = values.get(b"sec-fetch-site"), values.get(b"origin")
    if site is not None:
        return site not in _SAME_ORIGIN
    return origin is not None and origin.partition(b"://")[2] != values.get(b"host", b"")


def _name(host: str) -> str:
    """Returns the host in a Host header, without port, brackets and final dot."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
