"""The TCP connections of peers: closing one, which grpc has no word for."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from adsum.core.addresses import format_host_port

_DESCRIPTORS: Final = Path("/dev/fd")
"""Lists the descriptors of this process, on Linux, macOS and the BSDs."""


def close_connection(peer: str) -> bool:
    """Shut down the connection of the peer at IP:PORT, as grpc writes it; whether there was one.

    Looks at every descriptor of the process: call it in a thread.
    """
    found = False
    for each in list(_DESCRIPTORS.iterdir()):
        with suppress(OSError, ValueError):
            number = int(each.name)
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                found = _shut_if(number, unquote(peer)) or found
    return found


def _shut_if(descriptor: int, peer: str) -> bool:
    # A descriptor of our own: the other one may be closed, and its number given to another connection, meanwhile.
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        if connection.family not in (socket.AF_INET, socket.AF_INET6) or _name(connection.getpeername()) != peer:
            return False
        connection.shutdown(socket.SHUT_RDWR)
        return True


def _name(address: tuple[str, int]) -> str:
    """As grpc writes it: IPv4 addresses of a dual-stack socket as IPv4."""
    return format_host_port(address[0].removeprefix("::ffff:"), address[1])
