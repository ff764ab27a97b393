"""What peers may take, and the sweeping out of those who take more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

BACKLOG: Final = 4_096
"""How many connections wait to be accepted; the system turns away more."""
MAX_HEAD: Final = 64 * 1024
"""Bytes of a request's head; a connection that sends more is answered 431 and closed."""
MAX_BEHIND: Final = 16
"""How many requests of a connection wait behind the one that is being answered; past it nothing more is read, and so
its end goes unnoticed, until that one is answered."""
SWEEP: Final = 1.0
"""How often overdue connections are looked for, in seconds."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one peer, or all of them together, may take. Lengths are seconds."""

    connections: int = 20_000
    """Past it a new connection is answered 503 and closed."""
    request: float = 30.0
    """A request must be complete so long after its first byte; else it is answered 408, and the connection closed."""
    idle: int = 75
    """A connection on which nothing is asked for so long is closed."""
    stall: float = 30.0
    """A peer that takes fewer than `least` bytes of what is waiting for it in so long is cut off."""
    least: int = 32 * 1024
    unsent: int = 256 * 1024 * 1024
    """Bytes that wait for all peers together; past it those that have not read for the longest are cut off."""
    stop: int = 5
    """How long answers may take to finish once the server stops."""


Shed = Callable[[str], None]
"""Hears of each connection that was ended by a bound or a rule: the status that it was told, or "cut" if none."""


class Held(Protocol):
    """A connection, as the sweeper sees it."""

    def unsent(self) -> int:
        """Bytes that the peer has not taken yet."""
        ...

    def refuse(self, code: int, detail: str) -> None:
        """Say why, and close."""
        ...

    def cut(self) -> None:
        """Close without a word."""
        ...


def untold(_: str) -> None:
    """Count nothing."""


class Sweeper:
    """Looks for connections that hold us up: an unfinished request, or a peer that doesn't read."""

    def __init__(self, bounds: Bounds, shed: Shed) -> None:
        self.bounds = bounds
        self.shed = shed
        self._unfinished: dict[Held, float] = {}
        self._stalls: dict[Held, tuple[float, int]] = {}

    def awaits(self, connection: Held) -> None:
        """Part of a request is there."""
        self._unfinished.setdefault(connection, asyncio.get_running_loop().time())

    def has_all(self, connection: Held) -> None:
        """Nothing is awaited any more."""
        self._unfinished.pop(connection, None)

    def stalls(self, connection: Held) -> None:
        """The peer doesn't take what it asked for."""
        self._stalls[connection] = asyncio.get_running_loop().time(), connection.unsent()

    def moves(self, connection: Held) -> None:
        """It has taken most of it."""
        self._stalls.pop(connection, None)

    def unsent(self) -> int:
        """Bytes that wait for peers that don't take what they asked for."""
        return sum(connection.unsent() for connection in self._stalls)

    @property
    def stalled(self) -> int:
        """How many peers don't take what they asked for."""
        return len(self._stalls)

    def forget(self, connection: Held) -> None:
        self.has_all(connection)
        self.moves(connection)

    def hurry(self) -> None:
        """We stop: nobody is waited for who doesn't read, or hasn't asked all yet."""
        for connection in list(self._stalls):
            connection.cut()
        for connection in list(self._unfinished):
            connection.refuse(503, "the node is stopping")

    async def run(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            self.sweep(asyncio.get_running_loop().time())

    def sweep(self, now: float) -> None:
        for connection, since in list(self._unfinished.items()):
            if now - since < self.bounds.request:
                break  # Kept in the order of `since`.
            connection.refuse(408, "the request did not arrive in time")
        total = 0
        for connection, (since, unsent) in sorted(self._stalls.items(), key=lambda each: -each[1][0]):
            left = connection.unsent()
            total += left
            if total > self.bounds.unsent:
                total -= left
                connection.cut()
            elif now - since < self.bounds.stall:
                continue
            elif unsent - left < self.bounds.least:
                connection.cut()
            else:
                self._stalls[connection] = now, left
