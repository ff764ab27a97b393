"""An acceptor accepts the connections of one listening socket, and answers those that exceed the limits.

The servers of asyncio accept every waiting connection before other code can refuse one. A burst of connections then
takes the last file descriptor, and the rest end without a response.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

MAX_ACCEPTS_PER_TURN: Final = 64
"""Connections that are accepted before other tasks of the event loop run."""
ACCEPT_RETRY_DELAY: Final = 0.5
"""Seconds until the next try after the system had no descriptor or memory for a connection. Connections wait."""
DISCARD_READ_BYTES: Final = 64 * 1024
"""Bytes that are read at a time from a refused connection, and discarded. A close with unread bytes resets the
connection, and the peer may not see the response."""
LINGER_TIMEOUT: Final = 1.0
"""Seconds for which a refused connection is read: its request may arrive after the refusal."""
MAX_LINGERING_CONNECTIONS: Final = 32
"""Refused connections that are read at a time. Further ones are closed at once."""
RESOURCE_ERRNOS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors with which the system refuses a connection because descriptors or memory are used up."""

_log = logging.getLogger("adsum.http")


class Acceptor:
    """Accepts the connections of a bound socket. It has the methods that uvicorn expects of an asyncio server."""

    def __init__(
        self, sock: socket.socket, protocol: Callable[[], asyncio.Protocol], refusal: Callable[[int], bytes | None]
    ) -> None:
        """`refusal` gets the number of accepted connections that have no protocol yet. It returns the response to a
        connection that exceeds the limits, or None if the connection may come in.
        """
        self._sock = sock
        self._protocol = protocol
        self._refusal = refusal
        self._loop = asyncio.get_running_loop()
        self._arriving: set[asyncio.Task[None]] = set()
        """Accepted connections that have no protocol yet."""
        self._lingering: set[asyncio.Task[None]] = set()
        """Refused connections that are still read."""
        self._retry: asyncio.TimerHandle | None = None
        self._lacks_resources = False
        """True if the system had no descriptor or memory for the latest connection."""

    def start(self, backlog: int) -> None:
        """Accepts connections. `backlog`: how many may wait in the system's queue."""
        self._sock.setblocking(False)
        self._sock.listen(backlog)
        self._loop.add_reader(self._sock, self._accept)

    def close(self) -> None:
        """Stops accepting."""
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._sock)
        for task in self._lingering:
            task.cancel()

    async def wait_closed(self) -> None:
        """Returns when every accepted connection has its protocol."""
        await asyncio.gather(*self._arriving, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(MAX_ACCEPTS_PER_TURN):
            try:
                connection, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in RESOURCE_ERRNOS:
                    raise
                if not self._lacks_resources:
                    _log.error("can't accept connections now, so they wait: %s", error.strerror)
                self._lacks_resources = True
                self._loop.remove_reader(self._sock)
                self._retry = self._loop.call_later(ACCEPT_RETRY_DELAY, self._loop.add_reader, self._sock, self._accept)
                return
            self._lacks_resources = False
            refusal = self._refusal(len(self._arriving))
            if refusal is None:
                task = self._loop.create_task(self._connect(connection))
                self._arriving.add(task)
                task.add_done_callback(self._arriving.discard)
            else:
                self._refuse(connection, refusal)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:  # The peer has left.
            connection.close()

    def _refuse(self, connection: socket.socket, response: bytes) -> None:
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
        task = self._loop.create_task(self._linger(connection))
        self._lingering.add(task)
        task.add_done_callback(self._lingering.discard)

    async def _linger(self, connection: socket.socket) -> None:
        """Reads and discards until the peer has read its refusal and closes."""
        with connection, suppress(OSError, TimeoutError):
            async with asyncio.timeout(LINGER_TIMEOUT):
                while await self._loop.sock_recv(connection, DISCARD_READ_BYTES):
                    pass
