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
        """Answer with that problem, and close."""
        ...

    def abort(self) -> None:
        """Close without a response."""
        ...


class Sweeper:
    """Ends connections whose request stays incomplete, and connections whose peer does not read its response."""

    def __init__(self, limits: HttpLimits, on_shed: OnShed) -> None:
        self.limits = limits
        self.on_shed = on_shed
        self._incomplete: dict[SweptConnection, float] = {}
        """Since when part of a request is there; the oldest first."""
        self._stalled: dict[SweptConnection, tuple[float, int]] = {}
        """Since when a peer does not read, and how many bytes waited for it then."""

    def request_started(self, connection: SweptConnection) -> None:
        """Part of a request has arrived."""
        self._incomplete.setdefault(connection, asyncio.get_running_loop().time())

    def request_completed(self, connection: SweptConnection) -> None:
        """No request is incomplete any more."""
        self._incomplete.pop(connection, None)

    def peer_stalled(self, connection: SweptConnection) -> None:
        """The peer does not read its response."""
        self._stalled[connection] = asyncio.get_running_loop().time(), connection.unsent_bytes()

    def peer_resumed(self, connection: SweptConnection) -> None:
        """The peer has taken most of what waited for it."""
        self._stalled.pop(connection, None)

    def unsent_bytes(self) -> int:
        """Returns how many bytes wait for peers that do not read."""
        return sum(connection.unsent_bytes() for connection in self._stalled)

    @property
    def stalled_connections(self) -> int:
        """The number of peers that do not read."""
        return len(self._stalled)

    def remove(self, connection: SweptConnection) -> None:
        """The connection has ended."""
        self.request_completed(connection)
        self.peer_resumed(connection)

    def close_pending(self) -> None:
        """End, because the server stops, the connections that it would have to wait for."""
        for connection in list(self._stalled):
            connection.abort()
        for connection in list(self._incomplete):
            connection.refuse(503, "the node is stopping")

    async def run(self) -> None:
        """Sweep every `SWEEP_INTERVAL` seconds, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            self.sweep(asyncio.get_running_loop().time())

    def sweep(self, now: float) -> None:
        """End the connections that exceed the limits. `now` is on the clock of the event loop."""
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
