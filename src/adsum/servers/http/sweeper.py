"""The sweeper ends connections that hold resources for too long."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from adsum.servers.http.limits import HttpLimits, OnShed

SWEEP_INTERVAL: Final = 1.0
"""Seconds between two sweeps."""


class SweptConnection(Protocol):
    """A connection, as the sweeper sees it."""

    def unsent_bytes(self) -> int:
        """Returns how many bytes the peer has not taken yet."""
        ...

    def refuse(self, code: int, detail: str) -> None:
        """Answers with this problem, and closes."""
        ...

    def abort(self) -> None:
        """Closes without a response."""
        ...


class Sweeper:
    """Ends connections whose request stays incomplete, and connections whose peer does not read its response."""

    def __init__(self, limits: HttpLimits, on_shed: OnShed) -> None:
        self.limits = limits
        self.on_shed = on_shed
        self._incomplete: dict[SweptConnection, float] = {}
        """Connection with part of a request → when its first byte arrived. The oldest comes first."""
        self._stalled: dict[SweptConnection, tuple[float, int]] = {}
        """Connection whose peer does not read → since when, and how many bytes waited for the peer then."""

    def request_started(self, connection: SweptConnection) -> None:
        """Notes that part of a request has arrived: its time limit runs from the first part on."""
        self._incomplete.setdefault(connection, asyncio.get_running_loop().time())

    def request_completed(self, connection: SweptConnection) -> None:
        """Notes that no request of the connection is incomplete any more."""
        self._incomplete.pop(connection, None)

    def peer_stalled(self, connection: SweptConnection) -> None:
        """Notes that the peer does not read its response."""
        self._stalled[connection] = asyncio.get_running_loop().time(), connection.unsent_bytes()

    def peer_resumed(self, connection: SweptConnection) -> None:
        """Notes that the peer has taken most of the bytes that waited for it."""
        self._stalled.pop(connection, None)

    def unsent_bytes(self) -> int:
        """Returns how many bytes wait for peers that do not read."""
        return sum(connection.unsent_bytes() for connection in self._stalled)

    @property
    def stalled_connections(self) -> int:
        """The number of peers that do not read."""
        return len(self._stalled)

    def remove(self, connection: SweptConnection) -> None:
        """Forgets a connection that has ended."""
        self.request_completed(connection)
        self.peer_resumed(connection)

    def close_pending(self) -> None:
        """Ends connections that would delay a stop of the server: incomplete requests, and peers that do not read."""
        for connection in list(self._stalled):
            connection.abort()
        for connection in list(self._incomplete):
            connection.refuse(503, "the node is stopping")

    async def run(self) -> None:
        """Sweeps every `SWEEP_INTERVAL` seconds, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            self.sweep(asyncio.get_running_loop().time())

    def sweep(self, now: float) -> None:
        """Ends the connections that exceed the limits. `now` is on the clock of the event loop."""
        for connection, since in list(self._incomplete.items()):
            if now - since < self.limits.request_timeout:
                break  # The rest is younger.
            connection.refuse(408, "the request did not arrive in time")
        total = 0
        for connection, (since, unsent) in sorted(self._stalled.items(), key=lambda item: -item[1][0]):
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
                self._stalled[connection] = now, left
