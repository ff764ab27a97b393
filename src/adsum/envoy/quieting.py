"""Listening sockets of another process that take no new connection, and lose none that they have taken.

A listening socket that is closed resets every connection that the kernel has accepted for it and the program has not:
under load, each end of a gateway would fail a few requests. So the sockets first get a filter that drops SYNs; once the
program has taken up what is queued, they can be closed. Whoever asked meanwhile asks again a second later, and is
refused. Linux only, and newer kernels want CAP_NET_ADMIN for it; where it is not allowed, nothing happens.
"""

from __future__ import annotations

import ctypes
import os
import re
import socket
import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

_PIDFD_GETFD: Final = 438
"""The number of the system call, on every architecture."""
_SO_ATTACH_FILTER: Final = 26
_LISTENING: Final = "0A"

_FLAGS, _SYN, _SYN_ACK = 13, 0x02, 0x12
"""Of a TCP header: the byte of flags, and some of them."""
_NO_SYN: Final = b"".join(
    struct.pack("=HBBI", *each)
    for each in (
        (0x30, 0, 0, _FLAGS),  # load the flags
        (0x54, 0, 0, _SYN_ACK),  # and of them SYN and ACK
        (0x15, 0, 1, _SYN),  # if that is SYN alone,
        (0x06, 0, 0, 0),  # drop it,
        (0x06, 0, 0, 0xFFFF_FFFF),  # else take it
    )
)
"""A program of the classic BPF (linux/filter.h); a socket's filter sees packets from their TCP header on."""


class Listening(NamedTuple):
    """A listening socket as /proc tells it."""

    inode: int
    port: int
    queued: int
    """Connections that the program has not taken up yet."""


def quiet(pid: int, ports: Collection[int]) -> bool:
    """Have the sockets at which process `pid` listens on `ports` take nothing new; whether that could be done."""
    try:
        wanted = {each.inode for each in listening(ports)}
        held = list(_sockets(pid, wanted))
        if not held:
            return False
        pidfd = os.pidfd_open(pid)
        try:
            for number in held:
                _filter(_taken(pidfd, number))
        finally:
            os.close(pidfd)
    except (OSError, AttributeError):  # No /proc, no such call, or not allowed.
        return False
    return True


def queued(ports: Collection[int]) -> int:
    """How many connections wait to be taken up."""
    try:
        return sum(each.queued for each in listening(ports))
    except OSError:
        return 0


def listening(ports: Collection[int]) -> Iterator[Listening]:
    """Everybody's listening sockets at `ports`. Raises `OSError`."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(FileNotFoundError):
            for line in Path(table).read_text().splitlines()[1:]:
                parts = line.split()
                port = int(parts[1].rpartition(":")[2], 16)
                if parts[3] == _LISTENING and port in ports:
                    yield Listening(int(parts[9]), port, int(parts[4].partition(":")[2], 16))


def _sockets(pid: int, inodes: Collection[int]) -> Iterator[int]:
    """The process's file descriptors of them."""
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            named = re.fullmatch(r"socket:\[(\d+)\]", str(each.readlink()))
            if named is not None and int(named[1]) in inodes:
                yield int(each.name)


def _taken(pidfd: int, number: int) -> socket.socket:
    """The same socket, for us."""
    fd = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, pidfd, number, 0)
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return socket.socket(fileno=fd)


def _filter(listener: socket.socket) -> None:
    program = ctypes.create_string_buffer(_NO_SYN)
    with listener:
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_NO_SYN) // 8, ctypes.addressof(program))
        )
