"""The HTTP server: uvicorn on sockets that are already bound, with limits."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final, cast

import uvicorn

from adsum import wire
from adsum.mounts import AsgiApp, FastPath
from adsum.ports import ServerCertificates
from adsum.servers.http.connection import HttpConnection, closing_response
from adsum.servers.http.cross_origin import AllowedHosts
from adsum.servers.http.limits import BACKLOG, HttpLimits, OnShed, ignore_shed
from adsum.servers.http.sweeper import Sweeper
from adsum.servers.http.tls_connector import TLS_CROWDED, TlsConnector
from adsum.servers.http.uvicorn_server import UvicornServer

RETRY_AFTER_HEADER: Final = (b"retry-after", b"5")
"""Sent to a connection past the limit: the seconds after which it may try again."""
NO_TLS: Final = (400, "this port speaks TLS, and the request came in plain text: use a URL that begins with https://")
"""Status and detail of the response to a peer that does not begin with TLS. It is sent in plain text."""


class HttpServer:
    """Serves one ASGI application on sockets that are already bound."""

    def __init__(
        self,
        app: AsgiApp,
        sockets: Sequence[socket.socket],
        limits: HttpLimits | None = None,
        fast_path: FastPath | None = None,
        allowed_hosts: AllowedHosts | None = None,
        on_shed: OnShed = ignore_shed,
        certificates: ServerCertificates | None = None,
    ) -> None:
        """`fast_path` gets brief requests before the application does. `allowed_hosts` None allows every Host.

        With `certificates` the server speaks TLS.
        """
        limits = limits or HttpLimits()
        self._sockets = list(sockets)
        self._sweeper = Sweeper(limits, on_shed)
        config = uvicorn.Config(
            app,
            http=cast("type[asyncio.Protocol]", partial(HttpConnection, self._sweeper, allowed_hosts, fast_path)),
            interface="asgi3",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            headers=[(wire.PROTOCOL_HEADER.lower(), wire.PROTOCOL)],
            backlog=BACKLOG,
            timeout_keep_alive=limits.idle_timeout,
            timeout_graceful_shutdown=limits.stop_timeout,
        )
        tls = None
        if certificates is not None:
            tls = partial(
                TlsConnector,
                certificates=certificates,
                max_connections=lambda: self.max_connections,
                no_tls_response=lambda: closing_response(*NO_TLS, self._server.default_headers),
                on_shed=on_shed,
            )
        self._has_tls = tls is not None
        self._server: UvicornServer = UvicornServer(config, self._refusal, tls)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Starts the server. Returns when it accepts connections."""
        serving = asyncio.create_task(self._server.serve(self._sockets), name="adsum-http")
        self._tasks = [serving, asyncio.create_task(self._sweeper.run(), name="adsum-sweep")]
        await asyncio.wait([serving, asyncio.ensure_future(self._server.up.wait())], return_when="FIRST_COMPLETED")

    async def stop(self) -> None:
        """Stops accepting, lets responses finish within `HttpLimits.stop_timeout`, and closes the rest. Idempotent."""
        if not self._tasks:
            return
        self._server.request_stop()
        serving, sweeping = self._tasks
        self._tasks = []
        self._sweeper.close_pending()
        await serving
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)

    def _refusal(self) -> bytes | None:
        """Returns the response to a connection past the limit, None if there is room. Over TLS it is empty: nothing can
        be sent before the handshake.
        """
        if self.connections + self._server.arriving_count < self.max_connections:
            return None
        self._sweeper.on_shed(TLS_CROWDED if self._has_tls else "503")
        if self._has_tls:
            return b""
        headers = (*self._server.default_headers, RETRY_AFTER_HEADER)
        return closing_response(503, "too many connections", headers)

    def set_max_connections(self, connections: int) -> None:
        """Changes the limit for new connections. Open ones stay."""
        self._sweeper.limits = replace(self._sweeper.limits, max_connections=connections)

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return self._server.connection_count

    @property
    def handshakes(self) -> int:
        """The number of TLS handshakes under way."""
        return self._server.arriving_count if self._has_tls else 0

    @property
    def max_connections(self) -> int:
        """The limit of open connections."""
        return self._sweeper.limits.max_connections

    @property
    def stalled_connections(self) -> int:
        """The number of peers that do not read their response."""
        return self._sweeper.stalled_connections

    def unsent_bytes(self) -> int:
        """Returns how many bytes wait for peers that do not read their response."""
        return self._sweeper.unsent_bytes()
