"""Listening sockets of another process that take no new connection, and lose none that they have taken.

A listening socket that is closed resets every connection that the kernel has accepted for it and the program has not:
under load, each end of a gateway would fail a few requests. So the sockets are first bound to a network interface that
does not exist: nothing reaches them there, new connections are refused, and once the program has taken up what is
queued, they can be closed. Linux only; where it is not allowed, nothing happens.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
import struct
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

_PIDFD_GETFD: Final = 438
"""The number of the system call, on every architecture."""
_SO_ACCEPTCONN: Final = 30
_SO_BINDTOIFINDEX: Final = 62
_NOWHERE: Final = 0x7FFF_FFFF
"""The index of no network interface."""
_TCP_INFO: Final = 11
_QUEUED: Final = slice(24, 28)
"""Of a listening socket's TCP_INFO: how many connections wait to be taken up (tcpi_unacked)."""


def refuse_new_connections(pid: int, ports: Collection[int], max_sockets: int) -> list[socket.socket]:
    """Have the sockets at which process `pid` listens on `ports` take nothing new; these sockets, `max_sockets` of them.

    Empty if it could not be done. They are ours, too, until we close them.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except (OSError, AttributeError):  # It has ended; or the system has no such thing.
        return []
    found: list[socket.socket] = []
    try:
        for listener in _listening(pid, pidfd, ports):
            found.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, _NOWHERE)
            if len(found) == max_sockets:
                break
    except OSError:
        close_sockets(found)
        return []
    finally:
        os.close(pidfd)
    return found


def queued_connections(listeners: Sequence[socket.socket]) -> int:
    """How many connections wait to be taken up."""
    known = (each.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _QUEUED.stop) for each in listeners)
    return sum(struct.unpack("=I", each[_QUEUED])[0] for each in known)


def close_sockets(listeners: Sequence[socket.socket]) -> None:
    """Let go of them; the process still has them."""
    for each in listeners:
        each.close()


def _listening(pid: int, pidfd: int, ports: Collection[int]) -> Iterator[socket.socket]:
    """The process's own listening sockets; those were among the first that it opened. Raises `OSError`."""
    for number in sorted(int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()):
        taken = _taken(pidfd, number)
        if taken is None:
            continue
        if taken.getsockopt(socket.SOL_SOCKET, _SO_ACCEPTCONN) and _port(taken) in ports:
            yield taken
        else:
            taken.close()


def _taken(pidfd: int, number: int) -> socket.socket | None:
    """A socket of the process, for us; None if it is something else, or gone."""
    fd = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, pidfd, number, 0)
    if fd < 0:
        code = ctypes.get_errno()
        if code == errno.EBADF:
            return None
        raise OSError(code, os.strerror(code))
    if stat.S_ISSOCK(os.fstat(fd).st_mode):
        return socket.socket(fileno=fd)
    os.close(fd)
    return None


def _port(listener: socket.socket) -> int:
    name = listener.getsockname()
    return int(name[1]) if isinstance(name, tuple) else 0
