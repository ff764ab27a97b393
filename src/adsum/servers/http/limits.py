"""What peers may take, and the sweeping out of those who take more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

BACKLOG: Final = 4_096
"""How many connections wait to be accepted; the system turns away more."""
MAX_HEAD_BYTES: Final = 64 * 1024
"""Bytes of a request's head; a connection that sends more is answered 431 and closed."""
MAX_PIPELINED_REQUESTS: Final = 16
"""How many requests of a connection wait behind the one that is being answered; past it nothing more is read, and so
its end goes unnoticed, until that one is answered."""
SWEEP_INTERVAL: Final = 1.0
"""How often overdue connections are looked for, in seconds."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one peer, or all of them together, may take. Lengths are seconds."""

    max_connections: int = 20_000
    """Past it a new connection is answered 503 and closed."""
    request_timeout: float = 30.0
    """A request must be complete so long after its first byte; else it is answered 408, and the connection closed."""
    idle_timeout: int = 75
    """A connection on which nothing is asked for so long is closed."""
    stall_timeout: float = 30.0
    """A peer that takes fewer than `min_read_bytes` bytes of what is waiting for it in so long is cut off."""
    min_read_bytes: int = 32 * 1024
    max_unsent_bytes: int = 256 * 1024 * 1024
    """Bytes that wait for all peers together; past it those that have not read for the longest are cut off."""
    stop_timeout: int = 5
    """How long answers may take to finish once the server stops."""


OnShed = Callable[[str], None]
"""Hears of each connection that was ended by a bound or a rule: the status that it was told, or "aborted" if none."""


class SweptConnection(Protocol):
    """A connection, as the sweeper sees it."""

    def unsent_bytes(self) -> int:
        """Bytes that the peer has not taken yet."""
        ...

    def refuse(self, code: int, detail: str) -> None:
        """Say why, and close."""
        ...

    def abort(self) -> None:
        """Close without a word."""
        ...


def ignore_shed(_: str) -> None:
    """Count nothing."""


class Sweeper:
    """Looks for connections that hold us up: an unfinished request, or a peer that doesn't read."""

    def __init__(self, limits: HttpLimits, on_shed: OnShed) -> None:
        self.limits = limits
        self.on_shed = on_shed
        self._unfinished: dict[SweptConnection, float] = {}
        self._stalls: dict[SweptConnection, tuple[float, int]] = {}

    def request_started(self, connection: SweptConnection) -> None:
        """Part of a request is there."""
        self._unfinished.setdefault(connection, asyncio.get_running_loop().time())

    def request_completed(self, connection: SweptConnection) -> None:
        """Nothing is awaited any more."""
        self._unfinished.pop(connection, None)

    def write_paused(self, connection: SweptConnection) -> None:
        """The peer doesn't take what it asked for."""
        self._stalls[connection] = asyncio.get_running_loop().time(), connection.unsent_bytes()

    def write_resumed(self, connection: SweptConnection) -> None:
        """It has taken most of it."""
        self._stalls.pop(connection, None)

    def unsent_bytes(self) -> int:
        """Bytes that wait for peers that don't take what they asked for."""
        return sum(connection.unsent_bytes() for connection in self._stalls)

    @property
    def stalled_connections(self) -> int:
        """How many peers don't take what they asked for."""
        return len(self._stalls)

    def remove(self, connection: SweptConnection) -> None:
        self.request_completed(connection)
        self.write_resumed(connection)

    def close_pending(self) -> None:
        """We stop: nobody is waited for who doesn't read, or hasn't asked all yet."""
        for connection in list(self._stalls):
            connection.abort()
        for connection in list(self._unfinished):
            connection.refuse(503, "the node is stopping")

    async def run(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            self.sweep(asyncio.get_running_loop().time())

    def sweep(self, now: float) -> None:
        for connection, since in list(self._unfinished.items()):
            if now - since < self.limits.request_timeout:
                break  # Kept in the order of `since`.
            connection.refuse(408, "the request did not arrive in time")
        total = 0
        for connection, (since, unsent) in sorted(self._stalls.items(), key=lambda each: -each[1][0]):
            left = connection.unsent_bytes()
            total += left
            if total > self.limits.max_unsent_bytes:
                total -= left
                connection.abort()
            elif now - since < self.limits.stall_timeout:
                continue
            elif unsent - left < self.limits.min_read_bytes:
                connection.abort()
            else:
                self._stalls[connection] = now, left
