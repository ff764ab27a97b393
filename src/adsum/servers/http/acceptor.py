"""An acceptor accepts the connections of one listening socket, and refuses those that exceed the limits.

The servers of asyncio accept every waiting connection before other code can refuse one. A burst of connections then
takes the last file descriptor, and the rest end without a response.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from adsum.servers.http.refusals import Refusals

MAX_ACCEPTS_PER_TURN: Final = 64
"""Connections that are accepted before other tasks of the event loop run."""
ACCEPT_RETRY_DELAY: Final = 0.5
"""Seconds until the next try after the system had no descriptor or memory for a connection. Connections wait."""
RESOURCE_ERRNOS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors with which the system refuses a connection because descriptors or memory are used up."""

_log = logging.getLogger("adsum.http")


class Connector(Protocol):
    """Gives accepted connections their protocol."""

    def connect(self, connection: socket.socket) -> Coroutine[Any, Any, None]:
        """Takes the connection over. Raises nothing if the peer has left."""
        ...

    def close(self) -> None:
        """Closes the connections that have no protocol yet and would keep a stop waiting."""
        ...


class Acceptor:
    """Accepts the connections of a bound socket. It has the methods that uvicorn expects of an asyncio server."""

    def __init__(
        self, sock: socket.socket, connector: Connector, refusal: Callable[[], bytes | None], refusals: Refusals
    ) -> None:
        """`refusal` returns the response to a connection that exceeds the limits, empty if there is none, or None if
        the connection may come in. `refusals` sends it.
        """
        self._sock = sock
        self._connector = connector
        self._refusal = refusal
        self._refusals = refusals
        self._loop = asyncio.get_running_loop()
        self._arriving: set[asyncio.Task[None]] = set()
        """Accepted connections that have no protocol yet."""
        self._retry: asyncio.TimerHandle | None = None
        self._lacks_resources = False
        """True if the system had no descriptor or memory for the latest connection."""

    @property
    def arriving(self) -> int:
        """The number of accepted connections that have no protocol yet."""
        return len(self._arriving)

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
        self._connector.close()
        self._refusals.close()

    async def wait_closed(self) -> None:
        """Returns when every accepted connection has its protocol, or is closed."""
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
            refusal = self._refusal()
            if refusal is None:
                task = self._loop.create_task(self._connector.connect(connection))
                self._arriving.add(task)
                task.add_done_callback(self._arriving.discard)
            else:
                self._refusals.send(connection, refusal)


class PlainConnector:
    """Gives connections without TLS their protocol."""

    def __init__(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        self._protocol = protocol

    async def connect(self, connection: socket.socket) -> None:
        """Implements `Connector`."""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        except OSError:  # The peer has left.
            connection.close()

    def close(self) -> None:
        """Does nothing: connections get their protocol soon."""
