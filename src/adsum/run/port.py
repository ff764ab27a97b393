"""Free ports for wrapped programs, and the programs that listen on a port."""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final

from adsum.core.errors import AdsumError

MIN_PORT: Final = 20_000
"""The lowest port that is picked; well-known services use ports below it."""
DEFAULT_EPHEMERAL_START: Final = 32_768
"""The first ephemeral port if the system does not state it. Ephemeral ports are not picked: an outgoing connection
could take one before the program starts."""
MAX_PORTS_TRIED: Final = 200
"""The most ports that are tried; after that `NoFreePort` is raised."""

CONNECT_TIMEOUT: Final = 1.0
"""Seconds within which a port must accept a connection; otherwise no program answers there."""

_TABLES: Final = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_LISTEN: Final = "0A"
"""The state of a listening socket in these tables."""
_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


class NoFreePort(AdsumError):
    """No free port was found."""


class PortClaim:
    """A port that is reserved until `release`: no other wrapper on this host picks it meanwhile."""

    def __init__(self, port: int, lock: socket.socket | None) -> None:
        self.port = port
        self._lock = lock

    def release(self) -> None:
        """Release the port, so that others may pick it; idempotent."""
        if self._lock is not None:
            self._lock.close()


def claim_free_port(rng: Random) -> PortClaim:
    """Reserves a port on which no program listens, below the ephemeral ports. Raises `NoFreePort`."""
    end = _first_ephemeral()
    start = MIN_PORT if end > MIN_PORT + MAX_PORTS_TRIED else 1_024
    for _ in range(MAX_PORTS_TRIED):
        port = rng.randrange(start, max(end, start + 1))
        lock = _reserve(port)
        if lock is not None or sys.platform != "linux":
            if _is_free(port):
                return PortClaim(port, lock)
            PortClaim(port, lock).release()
    raise NoFreePort(f"none of {MAX_PORTS_TRIED} ports between {start} and {end} is free; choose one with --port")


def first_answering_host(port: int, hosts: Sequence[str]) -> str:
    """Returns the first of `hosts` on which a program accepts connections on the port; "" if none does."""
    for host in hosts:
        with suppress(OSError), socket.create_connection((host, port), timeout=CONNECT_TIMEOUT):
            return host
    return ""


def listening_addresses(port: int) -> list[str]:
    """Returns the addresses on which programs of this host listen on the port, as far as /proc shows them."""
    addresses = []
    for table in _TABLES:
        with suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                address, _, number = local.partition(":")
                if state == _LISTEN and int(number, 16) == port:
                    addresses.append(_parse_proc_address(address))
    return addresses


def _parse_proc_address(address: str) -> str:
    """Parses an address of /proc/net/tcp: words of 32 bits, each in the byte order of the machine."""
    words = [int(address[start : start + 8], 16).to_bytes(4, sys.byteorder) for start in range(0, len(address), 8)]
    return str(ipaddress.ip_address(b"".join(words)))


def _first_ephemeral() -> int:
    try:
        return int(_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return DEFAULT_EPHEMERAL_START


def _reserve(port: int) -> socket.socket | None:
    """Binds an abstract socket that reserves the port while this process lives; None if another wrapper has it."""
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        lock.bind(f"\0adsum-port-{port}")
    except OSError:
        lock.close()
        return None
    return lock


def _is_free(port: int) -> bool:
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104 - to look, not to listen
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((host, port))
        except OSError as error:
            if family == socket.AF_INET or error.errno == errno.EADDRINUSE:
                return False
    return True
