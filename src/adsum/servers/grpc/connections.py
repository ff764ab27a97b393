"""Closing the TCP connection of a peer, for which grpc has no API."""

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
"""Has an entry for each descriptor of this process, on Linux, macOS and the BSDs."""


def close_connection(peer: str) -> bool:
    """Shuts down the connections of a peer, IP:PORT as grpc writes it. Returns whether there was one.

    Reads every descriptor of the process, so call it in a thread.
    """
    found = False
    for entry in list(_DESCRIPTORS.iterdir()):
        with suppress(OSError, ValueError):
            descriptor = int(entry.name)
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                found = _shut_down_if(descriptor, unquote(peer)) or found
    return found


def _shut_down_if(descriptor: int, peer: str) -> bool:
    # A duplicate: grpc may close the descriptor meanwhile, and the system may reuse its number for another connection.
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        if connection.family not in (socket.AF_INET, socket.AF_INET6) or _name(connection.getpeername()) != peer:
            return False
        connection.shutdown(socket.SHUT_RDWR)
        return True


def _name(address: tuple[str, int]) -> str:
    """Returns the address as grpc writes it: an IPv4 address of a dual-stack socket as IPv4."""
    return format_host_port(address[0].removeprefix("::ffff:"), address[1])
