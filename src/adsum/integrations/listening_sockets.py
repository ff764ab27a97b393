"""Finds the ports on which this process listens, because servers do not tell their apps."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from adsum.client.local_address import LOOPBACK
from adsum.client.registration.reachability import is_reachable
from adsum.core.errors import Invalid

FIRST_POLL_DELAY, MAX_POLL_DELAY = 0.02, 0.5
"""Seconds between two polls, growing from the first to the second."""
PROXY_ACCEPTED_AFTER: Final = 5.0
"""Seconds after which an answer on the port from another process counts, too: it may be a proxy in front of this
one."""
PORT_VARIABLES: Final = ("PORT", "UVICORN_PORT")
"""Environment variables that name the port."""
_LISTEN: Final = "0A"
"""The state of a listening socket in /proc/net/tcp."""
_TABLES: Final = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_PROCESSES: Final = Path("/proc")
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


def own_ports() -> set[int] | None:
    """Returns the TCP ports on which this process listens; None if the system does not tell.

    Inherited sockets count, too.
    """
    sockets = _sockets_of("self")
    return None if sockets is None else set(sockets.values())


def own_socket_name(port: int) -> str:
    """Returns a name of the socket on which this process listens on the port; "" if the system does not tell.

    All processes that inherited the socket get the same name. Another socket has another name, also after a reboot of
    the host.
    """
    inodes = sorted(inode for inode, number in (_sockets_of("self") or {}).items() if number == port)
    try:
        return f"{_BOOT.read_text().strip()}:{','.join(inodes)}" if inodes else ""
    except OSError:
        return ""


def parent_listens(port: int) -> bool:
    """Returns whether the parent process listens on the port, as a server does that starts workers.

    Returns False if the system does not tell, as for another user's process.
    """
    return port in (_sockets_of(str(os.getppid())) or {}).values()


def _sockets_of(process: str) -> dict[str, int] | None:
    """Returns the listening sockets of a process, inode → port; None if the system does not tell."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        descriptors = list((_PROCESSES / process / "fd").iterdir())
    except OSError:
        return None
    sockets = set()
    for descriptor in descriptors:
        with suppress(OSError):  # It was closed in the meantime.
            sockets.add(str(descriptor.readlink()))
    return {inode: port for port, inode in _all_listening() if f"socket:[{inode}]" in sockets}


async def wait_until_listening(port: int | None) -> int:
    """Waits until this process listens on `port`, or on any port if that is None; returns the port.

    Raises `Invalid` if the process listens on several ports and nothing says which one to take.
    """
    if port is None and own_ports() is None:
        port = _from_environment()
    delay, waited = FIRST_POLL_DELAY, 0.0
    while True:
        listening_port = await _listening_port(port, waited)
        if listening_port is not None:
            return listening_port
        await asyncio.sleep(delay)
        waited += delay
        delay = min(MAX_POLL_DELAY, delay * 1.5)


async def _listening_port(port: int | None, waited: float) -> int | None:
    ports = own_ports()
    if port is None:
        return _choose_port(ports) if ports else None
    if ports is not None and port in ports:
        return port
    return port if (ports is None or waited >= PROXY_ACCEPTED_AFTER) and await is_reachable(LOOPBACK, port) else None


def _choose_port(ports: set[int]) -> int:
    """Returns the only port, or the one that the environment names. Raises `Invalid`."""
    if len(ports) == 1:
        return min(ports)
    named = {os.environ[name] for name in PORT_VARIABLES if name in os.environ} & {str(port) for port in ports}
    if len(named) == 1:
        return int(named.pop())
    raise Invalid("port", f"must be given: this process listens on {', '.join(map(str, sorted(ports)))}")


def _from_environment() -> int:
    for name in PORT_VARIABLES:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    raise Invalid(
        "port", f"must be given, here or in the variable {PORT_VARIABLES[0]}: it can't be detected on this system"
    )


def _all_listening() -> Iterator[tuple[int, str]]:
    """Yields the port and the inode of every listening socket in this network namespace."""
    for table in _TABLES:
        with suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == _LISTEN:
                    yield int(columns[1].rpartition(":")[2], 16), columns[9]
