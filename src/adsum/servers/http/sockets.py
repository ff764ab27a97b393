"""Addresses to listen on, bound before anything else is done: a taken one is one sentence, and nothing to undo."""

from __future__ import annotations

import socket
from typing import Any

from adsum.core.addresses import format_host_port
from adsum.core.errors import AdsumError


class ListenError(AdsumError):
    """The address can't be listened on; the sentence is for the operator."""


def listen(address: str) -> list[socket.socket]:
    """Sockets bound to HOST:PORT, not yet accepting. Raises `ListenError`."""
    host, port = host_part(address), address.rpartition(":")[2]
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ListenError(f"can't listen on {address!r}: it must be HOST:PORT, such as 127.0.0.1:23786")
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, where in dict.fromkeys((family, where) for family, _, _, _, where in found):
            taken = sockets[0].getsockname()[1] if sockets else where[1]
            sockets.append(_bound(family, (where[0], taken, *where[2:])))
    except OSError as error:
        for each in sockets:
            each.close()
        raise ListenError(f"can't listen on {address}: {error.strerror or error}") from None
    return sockets


def host_part(address: str) -> str:
    """HOST of HOST:PORT, without the brackets of an IPv6 address."""
    return address.rpartition(":")[0].removeprefix("[").removesuffix("]")


def _bound(family: int, where: tuple[Any, ...]) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(where[0] != "::"))
        bound.bind(where)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def socket_url(bound: socket.socket) -> str:
    """Where a bound socket is reached."""
    host, port = bound.getsockname()[:2]
    return f"http://{format_host_port(host, port)}"
