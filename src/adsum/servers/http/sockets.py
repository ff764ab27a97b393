"""Listening sockets, bound before the node starts: if the port is in use, there is nothing to stop again."""

from __future__ import annotations

import socket
from typing import Any

from adsum.core.addresses import format_host_port, split_host_port
from adsum.core.errors import AdsumError


class ListenError(AdsumError):
    """The server can't listen on an address. The message is for the operator."""


def listen(address: str) -> list[socket.socket]:
    """Returns sockets that are bound to HOST:PORT and do not accept yet. Raises `ListenError`."""
    host, port = split_host_port(address)
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ListenError(f"can't listen on {address!r}: it must be HOST:PORT, such as 127.0.0.1:23786")
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, target in dict.fromkeys((family, target) for family, _, _, _, target in found):
            bound_port = sockets[0].getsockname()[1] if sockets else target[1]
            sockets.append(_bind(family, (target[0], bound_port, *target[2:])))
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise ListenError(f"can't listen on {address}: {error.strerror or error}") from None
    return sockets


def _bind(family: int, target: tuple[Any, ...]) -> socket.socket:
    """Returns a socket that is bound to an address as `getaddrinfo` returns it. A socket on :: accepts IPv4, too."""
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(target[0] != "::"))
        bound.bind(target)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def socket_url(bound: socket.socket, *, has_tls: bool = False) -> str:
    """Returns the URL of the server on a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"{'https' if has_tls else 'http'}://{format_host_port(host, port)}"
