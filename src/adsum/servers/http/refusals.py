"""Refusals: responses to connections that get no protocol, because a limit or their first byte forbids it."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Final

DISCARD_READ_BYTES: Final = 64 * 1024
"""Bytes that are read at a time from a refused connection, and discarded. A close with unread bytes resets the
connection, and the peer may not see the response."""
LINGER_TIMEOUT: Final = 1.0
"""Seconds for which a refused connection is read: its request may arrive after the refusal."""
MAX_LINGERING_CONNECTIONS: Final = 32
"""Refused connections that are read at a time. Further ones are closed at once."""


class Refusals:
    """Answers accepted connections and closes them, so that the peers can read the answer."""

    def __init__(self) -> None:
        self._lingering: set[asyncio.Task[None]] = set()
        """Refused connections that are still read."""

    def send(self, connection: socket.socket, response: bytes) -> None:
        """Sends the response, and closes soon. An empty response: closes at once."""
        if not response:
            connection.close()
            return
        try:
            connection.setblocking(False)
            connection.send(response)
            connection.shutdown(socket.SHUT_WR)
        except OSError:  # The peer has left.
            connection.close()
            return
        if len(self._lingering) >= MAX_LINGERING_CONNECTIONS:
            with connection, suppress(OSError):
                connection.recv(DISCARD_READ_BYTES)
            return
        task = asyncio.get_running_loop().create_task(self._linger(connection))
        self._lingering.add(task)
        task.add_done_callback(self._lingering.discard)

    def close(self) -> None:
        """Closes the connections that are still read."""
        for task in self._lingering:
            task.cancel()

    async def _linger(self, connection: socket.socket) -> None:
        """Reads and discards until the peer has read its refusal and closes."""
        loop = asyncio.get_running_loop()
        with connection, suppress(OSError, TimeoutError):
            async with asyncio.timeout(LINGER_TIMEOUT):
                while await loop.sock_recv(connection, DISCARD_READ_BYTES):
                    pass
