"""What peers may take, and the sweeping out of those who take more."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol

BACKLOG: Final = 4_096
"""How many connections wait to be accepted; the system turns away more."""
MAX_HEAD: Final = 64 * 1024
"""Bytes of a request's head; a connection that sends more is answered 431 and closed."""
SWEEP: Final = 1.0
"""How often overdue connections are looked for, in seconds."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one peer, or all of them together, may take. Lengths are seconds."""

    connections: int = 20_000
    """Past it a new connection is answered 503 and closed."""
    head: float = 15.0
    """A request's head must be complete so long after its first byte; else the connection is closed."""
    idle: int = 75
    """A connection on which nothing is asked for so long is closed."""
    stall: float = 30.0
    """A peer that reads nothing of what is waiting for it for so long is cut off."""
    stop: int = 5
    """How long answers may take to finish once the server stops."""


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


class Sweeper:
    """Looks for connections that hold us up: an unfinished head, or a peer that doesn't read."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._heads: dict[Held, float] = {}
        self._stalls: dict[Held, tuple[float, int]] = {}

    def awaits_head(self, connection: Held) -> None:
        self._heads.setdefault(connection, asyncio.get_running_loop().time())

    def has_head(self, connection: Held) -> None:
        self._heads.pop(connection, None)

    def stalls(self, connection: Held) -> None:
        self._stalls[connection] = asyncio.get_running_loop().time(), connection.unsent()

    def moves(self, connection: Held) -> None:
        self._stalls.pop(connection, None)

    def forget(self, connection: Held) -> None:
        self.has_head(connection)
        self.moves(connection)

    def hurry(self) -> None:
        """We stop: nobody who doesn't read is waited for."""
        for connection in list(self._stalls):
            connection.cut()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            self.sweep(asyncio.get_running_loop().time())

    def sweep(self, now: float) -> None:
        for connection, since in list(self._heads.items()):
            if now - since < self.bounds.head:
                break  # Kept in the order of `since`.
            connection.refuse(408, "the request's head did not arrive in time")
        for connection, (since, unsent) in list(self._stalls.items()):
            if now - since < self.bounds.stall:
                continue
            if connection.unsent() < unsent:
                self.stalls(connection)
            else:
                connection.cut()
