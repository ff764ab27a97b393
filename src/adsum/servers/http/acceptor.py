"""Accepts connections on one socket, and turns those away with a word for which there is no room.

An event loop's own server accepts all that wait before it asks anybody: a rush of connections takes the last
descriptor, and the rest ends without a word.
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
"""Connections that are accepted before whoever else has something to do has a turn."""
ACCEPT_RETRY_DELAY: Final = 0.5
"""Seconds without accepting after the system had no descriptor or no memory for a connection; those that come wait."""
DISCARD_READ_BYTES: Final = 64 * 1024
"""Bytes that are read at a time of what a connection that is turned away sends: closing it unread would reset it, and
the peer might never see why."""
LINGER_TIMEOUT: Final = 1.0
"""Seconds for which such a connection is read, since its request may come later than it was turned away."""
MAX_LINGERING_CONNECTIONS: Final = 32
"""How many of them are read at a time; further ones are closed at once."""
RESOURCE_ERRNOS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_log = logging.getLogger("adsum.http")


class Acceptor:
    """Listens on a bound socket from `start` to `close`, as uvicorn expects of a server."""

    def __init__(
        self, sock: socket.socket, protocol: Callable[[], asyncio.Protocol], refusal: Callable[[int], bytes | None]
    ) -> None:
        """`refusal` is what a connection is told for which there is no room, beside so many that are not known yet to
        `protocol`'s owner; None: there is room.
        """
        self._sock = sock
        self._protocol = protocol
        self._refusal = refusal
        self._loop = asyncio.get_running_loop()
        self._arriving: set[asyncio.Task[None]] = set()
        """Connections that are accepted and have no protocol yet."""
        self._lingering: set[asyncio.Task[None]] = set()
        """Connections that were turned away and are still read."""
        self._pause: asyncio.TimerHandle | None = None
        self._scarce = False
        """Whether the system had nothing for the latest connection."""

    def start(self, backlog: int) -> None:
        """Accept connections; the system lets so many wait."""
        self._sock.setblocking(False)
        self._sock.listen(backlog)
        self._loop.add_reader(self._sock, self._accept)

    def close(self) -> None:
        """Accept no more."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._sock)
        for task in self._lingering:
            task.cancel()

    async def wait_closed(self) -> None:
        """Return when every accepted connection has its protocol."""
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
                if not self._scarce:
                    _log.error("connections wait to be accepted: %s", error.strerror)
                self._scarce = True
                self._loop.remove_reader(self._sock)
                self._pause = self._loop.call_later(ACCEPT_RETRY_DELAY, self._loop.add_reader, self._sock, self._accept)
                return
            self._scarce = False
            refusal = self._refusal(len(self._arriving))
            if refusal is None:
                task = self._loop.create_task(self._arrive(connection))
                self._arriving.add(task)
                task.add_done_callback(self._arriving.discard)
            else:
                self._turn_away(connection, refusal)

    async def _arrive(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:  # The peer is gone already.
            connection.close()

    def _turn_away(self, connection: socket.socket, words: bytes) -> None:
        try:
            connection.setblocking(False)
            connection.send(words)
            connection.shutdown(socket.SHUT_WR)
        except OSError:  # The peer is gone already.
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
        """Read until the peer has read its refusal, and closes."""
        with connection, suppress(OSError, TimeoutError):
            async with asyncio.timeout(LINGER_TIMEOUT):
                while await self._loop.sock_recv(connection, DISCARD_READ_BYTES):
                    pass
