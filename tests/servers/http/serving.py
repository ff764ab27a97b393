"""An HTTP server of a test and its peers, with and without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from adsum.mounts import AsgiApp, FastPath
from adsum.servers import http
from adsum.servers.http import HttpLimits, HttpServer
from adsum.servers.http.limits import OnShed, ignore_shed
from tests.support.server_certificates import FakeServerCertificates

WAIT_TIMEOUT = 20.0


@dataclass
class HttpServing:
    """How a test serves and connects: over TLS if it has certificates."""

    certificates: FakeServerCertificates | None = None
    _sockets: list[socket.socket] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def server(
        self, app: AsgiApp, fast_path: FastPath | None = None, on_shed: OnShed = ignore_shed, **limits: float
    ) -> AsyncIterator[tuple[HttpServer, int]]:
        """Yields a server and its port."""
        sockets = http.listen("127.0.0.1:0")
        bounds = HttpLimits(**limits)  # type: ignore[arg-type]
        server = HttpServer(app, sockets, bounds, fast_path, on_shed=on_shed, certificates=self.certificates)
        port: int = sockets[0].getsockname()[1]
        await server.start()
        try:
            yield server, port
        finally:
            await server.stop()

    async def connect(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Returns an open connection."""
        if self.certificates is None:
            return await asyncio.open_connection("127.0.0.1", port)
        return await asyncio.open_connection(
            "127.0.0.1", port, ssl=self.certificates.client_context(), server_hostname="localhost"
        )

    async def connect_with(self, port: int, context: ssl.SSLContext) -> bytes:
        """Connects with this context, and returns what the server sends until it closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        try:
            async with asyncio.timeout(WAIT_TIMEOUT):
                return await reader.read()
        finally:
            writer.transport.abort()

    async def unread_socket(self, port: int, request: bytes, buffer: int = 0) -> socket.socket:
        """Returns a socket that has sent a request, and that nobody reads. `buffer`: bytes that its system keeps."""
        return await asyncio.to_thread(self._send_unread, port, request, buffer)

    def _send_unread(self, port: int, request: bytes, buffer: int) -> socket.socket:
        peer = socket.create_connection(("127.0.0.1", port), WAIT_TIMEOUT)
        if buffer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        if self.certificates is not None:
            peer = self.certificates.client_context().wrap_socket(peer, server_hostname="localhost")
        peer.sendall(request)
        return peer
