"""Makes the listening sockets of another process refuse new connections without losing queued ones.

Closing a listening socket resets every connection that the kernel has completed and the program has not accepted yet:
under load, each end of a gateway would fail a few requests. So the sockets are first bound to a network interface that
does not exist. No new connection reaches them there, and once the program has accepted what is queued, they can be
closed. Linux only; where it is not permitted, nothing changes. See docs/envoy.md.
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
"""The number of the system call, which is the same on every architecture."""
_SO_ACCEPTCONN: Final = 30
_SO_BINDTOIFINDEX: Final = 62
_NO_INTERFACE: Final = 0x7FFF_FFFF
"""An interface index that no network interface has."""
_TCP_INFO: Final = 11
_QUEUE_LENGTH: Final = slice(24, 28)
"""The bytes of a listening socket's TCP_INFO that hold the length of its accept queue (tcpi_unacked)."""


def refuse_new_connections(pid: int, ports: Collection[int], max_sockets: int) -> list[socket.socket]:
    """Makes the listening sockets of process `pid` on `ports` refuse new connections, at most `max_sockets` of them.

    Returns duplicates of the sockets, which the caller must close; none if the system does not permit it.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except (OSError, AttributeError):  # The process has exited, or the system lacks pidfds.
        return []
    listeners: list[socket.socket] = []
    try:
        for listener in _listening_sockets(pid, pidfd, ports):
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, _NO_INTERFACE)
            if len(listeners) == max_sockets:
                break
    except OSError:
        close_sockets(listeners)
        return []
    finally:
        os.close(pidfd)
    return listeners


def queued_connections(listeners: Sequence[socket.socket]) -> int:
    """Returns how many connections wait to be accepted."""
    infos = (listener.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _QUEUE_LENGTH.stop) for listener in listeners)
    return sum(struct.unpack("=I", info[_QUEUE_LENGTH])[0] for info in infos)


def close_sockets(listeners: Sequence[socket.socket]) -> None:
    """Closes our duplicates. The other process keeps its own."""
    for listener in listeners:
        listener.close()


def _listening_sockets(pid: int, pidfd: int, ports: Collection[int]) -> Iterator[socket.socket]:
    """Yields the process's listening sockets, which are among the first files that it opened. Raises `OSError`."""
    for number in sorted(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()):
        duplicate = _duplicate(pidfd, number)
        if duplicate is None:
            continue
        if duplicate.getsockopt(socket.SOL_SOCKET, _SO_ACCEPTCONN) and _port(duplicate) in ports:
            yield duplicate
        else:
            duplicate.close()


def _duplicate(pidfd: int, number: int) -> socket.socket | None:
    """Returns a duplicate of a socket of the process; None if the file is no socket or is closed."""
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
