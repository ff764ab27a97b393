"""TLS for accepted connections: the handshake, and bounds on the half-open ones."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, Protocol, cast

from adsum.ports import ServerCertificates
from adsum.servers.http.handshake_alerts import HandshakeAlerts
from adsum.servers.http.handshake_log import HandshakeLog, peer_name
from adsum.servers.http.limits import OnShed
from adsum.servers.http.refusals import Refusals

HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds from the accept of a connection to the end of its handshake. A slower one is closed: `TLS_TIMEOUT`."""
MAX_HANDSHAKES: Final = 1_000
"""Handshakes that are under way in a server. Past it, the one that began the longest ago is closed: `TLS_CROWDED`.
So half-open handshakes never keep others waiting. A handshake takes about 40 KB."""
HANDSHAKE_SHARE: Final = 4
"""Handshakes under way may be this part of the connections that a server allows, if that is fewer, so that half-open
ones leave room. What happens past it is the same."""
MIN_HANDSHAKES: Final = 16
"""Handshakes that may be under way however few connections a server allows."""
SHUTDOWN_TIMEOUT: Final = 5.0
"""Seconds for the peer of a closing connection to take the last bytes and to confirm the end (close_notify). Then it is
closed without."""
HANDSHAKE_RECORD: Final = b"\x16"
"""The first byte of every TLS connection (RFC 8446 § 5.1). No request of HTTP begins with it."""

TLS_FAILED: Final = "tls_failed"
"""The word for a connection whose handshake failed: no common version, an untrusted or expired client certificate, or
bytes that are not TLS."""
TLS_TIMEOUT: Final = "tls_timeout"
"""The word for a connection whose handshake took longer than `HANDSHAKE_TIMEOUT`."""
TLS_CROWDED: Final = "tls_crowded"
"""The word for a connection that was closed because of too many connections, or too many handshakes."""


class TlsProtocol(Protocol):
    """A protocol that runs over TLS."""

    def tls_connection_made(self, transport: asyncio.Transport, tcp: asyncio.Transport) -> None:
        """Is called instead of `connection_made`, with the transport below TLS in addition."""
        ...

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool | None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...


class TlsConnector:
    """Does the handshakes of accepted connections, and gives those that succeed their protocol.

    Each handshake uses the newest certificate. Connections that are open keep theirs.
    """

    def __init__(
        self,
        protocol: Callable[[], TlsProtocol],
        certificates: ServerCertificates,
        max_connections: Callable[[], int],
        no_tls_response: Callable[[], bytes],
        refusals: Refusals,
        on_shed: OnShed,
    ) -> None:
        """`no_tls_response` returns the response to a peer that does not begin with TLS; `refusals` sends it."""
        self._protocol = protocol
        self._certificates = certificates
        self._max_connections = max_connections
        self._no_tls_response = no_tls_response
        self._refusals = refusals
        self._on_shed = on_shed
        self._log = HandshakeLog()
        self._under_way: dict[asyncio.Task[object], None] = {}
        """The handshakes under way. The oldest comes first."""

    @property
    def max_handshakes(self) -> int:
        """The bound of handshakes under way."""
        return max(MIN_HANDSHAKES, min(MAX_HANDSHAKES, self._max_connections() // HANDSHAKE_SHARE))

    @property
    def handshakes(self) -> int:
        """The number of handshakes under way."""
        return len(self._under_way)

    async def connect(self, connection: socket.socket) -> None:
        """Implements `acceptor.Connector`. Must be called in a task of its own."""
        task = cast("asyncio.Task[object]", asyncio.current_task())
        self._under_way[task] = None
        while len(self._under_way) > self.max_handshakes:
            self._close_oldest()
        peer = peer_name(connection)
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                if await self._begins_with_tls(connection):
                    await self._shake_hands(connection)
        except (TimeoutError, ConnectionAbortedError):  # The latter is how event loops report their own timeout.
            self._on_shed(TLS_TIMEOUT)
        except OSError as error:  # `ssl.SSLError` is one.
            self._on_shed(TLS_FAILED)
            self._log.failed(peer, error, asyncio.get_running_loop().time())
        finally:
            self._under_way.pop(task, None)
            del task  # A cancelled task keeps this frame, and so itself: the cycle collector seldom frees old objects.

    def close(self) -> None:
        """Closes the connections in their handshake."""
        for task in list(self._under_way):
            task.cancel()

    def _close_oldest(self) -> None:
        oldest = next(iter(self._under_way))
        del self._under_way[oldest]
        oldest.cancel()
        self._on_shed(TLS_CROWDED)

    async def _begins_with_tls(self, connection: socket.socket) -> bool:
        """Waits for the first byte. Answers and closes a connection that does not begin with TLS.

        Until then a connection costs nothing but its descriptor.
        """
        try:
            connection.setblocking(False)
            first = await _peek(connection)
        except BaseException:
            connection.close()
            raise
        if first == HANDSHAKE_RECORD:
            return True
        if first:
            self._on_shed("400")
            self._refusals.send(connection, self._no_tls_response())
        else:  # The peer has left, as the probes of load balancers do.
            connection.close()
        return False

    async def _shake_hands(self, connection: socket.socket) -> None:
        """Does the handshake, and hands the connection over to its protocol. Raises `OSError` if it fails."""
        loop = asyncio.get_running_loop()
        context = self._certificates.ssl_context()
        alerts = HandshakeAlerts(context)
        try:
            tcp, before = await loop.connect_accepted_socket(_BytesBeforeTls, connection)
        except OSError:
            connection.close()
            raise
        alerts.attach(tcp)
        early = _BytesAfterHandshake()
        try:
            if tcp.is_closing():
                raise ConnectionResetError("the connection was lost before the handshake")
            loop.call_soon(before.feed, tcp)  # Runs when `start_tls` has set its protocol.
            transport = await loop.start_tls(
                tcp,
                early,
                context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
            )
            if transport is None or tcp.is_closing():  # Event loops also return when the connection is lost.
                raise ConnectionResetError("the connection was lost during the handshake")
        except OSError as error:
            tcp.abort()
            raise alerts.error or error from None
        except BaseException:
            tcp.abort()
            raise
        finally:
            alerts.close()
        early.hand_over(self._protocol(), transport, tcp)


class _BytesBeforeTls(asyncio.Protocol):
    """The protocol of a connection until TLS begins: keeps what arrives.

    asyncio does not read after `pause_reading`. uvloop reads once before `start_tls` pauses it.
    """

    def __init__(self) -> None:
        self._received: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).pause_reading()

    def data_received(self, data: bytes) -> None:
        self._received.append(data)

    def feed(self, tcp: asyncio.Transport) -> None:
        """Passes what arrived to the protocol that the transport has now."""
        protocol = tcp.get_protocol()
        for data in self._received:
            if isinstance(protocol, asyncio.Protocol):
                protocol.data_received(data)
            else:  # The interface of `asyncio.BufferedProtocol`, whose subclass uvloop's is not.
                _fill(cast("asyncio.BufferedProtocol", protocol), data)
        self._received.clear()


class _BytesAfterHandshake(asyncio.Protocol):
    """The protocol of a connection at the end of its handshake: keeps what arrives until the real protocol is there."""

    def __init__(self) -> None:
        self._received: list[bytes] = []
        self._has_ended = False
        self._is_lost = False
        self._successor: TlsProtocol | None = None

    def data_received(self, data: bytes) -> None:
        self._received.append(data)

    def eof_received(self) -> None:
        self._has_ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        if self._successor is not None:  # The event loop had scheduled this call before the connection changed hands.
            self._successor.connection_lost(exc)

    def hand_over(self, successor: TlsProtocol, transport: asyncio.Transport, tcp: asyncio.Transport) -> None:
        """Gives the connection to `successor`, unless it is lost by now."""
        if self._is_lost:
            return
        self._successor = successor
        transport.set_protocol(successor)  # type: ignore[arg-type]  # a protocol by its methods
        successor.tls_connection_made(transport, tcp)
        for data in self._received:
            successor.data_received(data)
        if self._has_ended:
            successor.eof_received()


async def _peek(connection: socket.socket) -> bytes:
    """Returns the first byte of a connection, and leaves it there. Returns none if the peer closed its side."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return connection.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            pass
        readable = loop.create_future()
        loop.add_reader(connection, _set_done, readable)
        try:
            await readable
        finally:
            loop.remove_reader(connection)


def _fill(protocol: asyncio.BufferedProtocol, data: bytes) -> None:
    """Passes data to a protocol that has a buffer of its own."""
    rest = memoryview(data)
    while rest:
        buffer = memoryview(protocol.get_buffer(len(rest)))
        size = min(len(buffer), len(rest))
        buffer[:size] = rest[:size]
        protocol.buffer_updated(size)
        rest = rest[size:]


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
