"""On which ports does this process listen, and since when? Servers say neither to the programs they run."""

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

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5
"""Seconds between two looks."""
PROXY_ACCEPTED_AFTER: Final = 5.0
"""Seconds after which it counts, too, that another process answers on the port: a proxy in front of us."""
PORT_VARIABLES: Final = ("PORT", "UVICORN_PORT")
"""Where the environment names the port."""
_LISTEN: Final = "0A"
"""The state of a listening socket in /proc/net/tcp."""
_TABLES: Final = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_PROCESSES: Final = Path("/proc")
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


def own_ports() -> set[int] | None:
    """The TCP ports on which this process listens, be the sockets its own or inherited; None: the system won't say."""
    sockets = _sockets_of("self")
    return None if sockets is None else set(sockets.values())


def own_socket_name(port: int) -> str:
    """The name of the socket on which this process listens on the port, the same for all that inherited it.

    Another socket has another name, after a restart of the host too. "": the system won't say.
    """
    inodes = sorted(inode for inode, number in (_sockets_of("self") or {}).items() if number == port)
    try:
        return f"{_BOOT.read_text().strip()}:{','.join(inodes)}" if inodes else ""
    except OSError:
        return ""


def parent_listens(port: int) -> bool:
    """Whether the process that started this one listens on the port, as a server does that starts workers.

    False if the system won't say, as of another user's process.
    """
    return port in (_sockets_of(str(os.getppid())) or {}).values()


def _sockets_of(process: str) -> dict[str, int] | None:
    """The listening sockets of a process: inode → port; None: the system won't say."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        held = list((_PROCESSES / process / "fd").iterdir())
    except OSError:
        return None
    sockets = set()
    for each in held:
        with suppress(OSError):  # It was closed meanwhile.
            sockets.add(str(each.readlink()))
    return {inode: port for port, inode in _listening() if f"socket:[{inode}]" in sockets}


async def wait_until_listening(port: int | None) -> int:
    """Wait until this process listens on `port`, or on one at all; which. Raises `Invalid` if that is not clear."""
    if port is None and own_ports() is None:
        port = _from_environment()
    pause, waited = FIRST_PAUSE, 0.0
    while True:
        found = await _found(port, waited)
        if found is not None:
            return found
        await asyncio.sleep(pause)
        waited += pause
        pause = min(LONGEST_PAUSE, pause * 1.5)


async def _found(port: int | None, waited: float) -> int | None:
    ours = own_ports()
    if port is None:
        return _the_one(ours) if ours else None
    if ours is not None and port in ours:
        return port
    return port if (ours is None or waited >= PROXY_ACCEPTED_AFTER) and await is_reachable(LOOPBACK, port) else None


def _the_one(ports: set[int]) -> int:
    """The only one, or the one that the environment names."""
    if len(ports) == 1:
        return min(ports)
    named = {os.environ[name] for name in PORT_VARIABLES if name in os.environ} & {str(port) for port in ports}
    if len(named) == 1:
        return int(named.pop())
    raise Invalid("port", f"must be said: this process listens on {', '.join(map(str, sorted(ports)))}")


def _from_environment() -> int:
    for name in PORT_VARIABLES:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    raise Invalid("port", f"must be said, here or by the variable {PORT_VARIABLES[0]}: this system does not tell it")


def _listening() -> Iterator[tuple[int, str]]:
    """Every listening socket of this network: its port and its inode."""
    for table in _TABLES:
        with suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == _LISTEN:
                    yield int(columns[1].rpartition(":")[2], 16), columns[9]
