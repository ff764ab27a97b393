"""The server: uvicorn without its own signals, sockets and logs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, cast

import uvicorn

from adsum import wire
from adsum.servers.http.acceptor import Acceptor
from adsum.servers.http.connection import FastPathFunction, HttpConnection, closing_response
from adsum.servers.http.cross_origin import AllowedHosts
from adsum.servers.http.limits import BACKLOG, HttpLimits, OnShed, Sweeper, ignore_shed

RETRY_AFTER_HEADER: Final = (b"retry-after", b"5")
"""What a connection is told for which there is no room: after how many seconds to try again."""

AsgiApplication = Callable[..., Awaitable[None]]


class HttpServer:
    """Serves one ASGI callable on sockets that are already bound."""

    def __init__(
        self,
        app: AsgiApplication,
        sockets: Sequence[socket.socket],
        limits: HttpLimits | None = None,
        fast_path: FastPathFunction | None = None,
        allowed_hosts: AllowedHosts | None = None,
        on_shed: OnShed = ignore_shed,
    ) -> None:
        """`fast_path` is asked first; `allowed_hosts`, if given, are the names that it may be called by; see `OnShed`."""
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
        self._server = _Server(config, self._refusal)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Return when connections are accepted."""
        serving = asyncio.create_task(self._server.serve(self._sockets), name="adsum-http")
        self._tasks = [serving, asyncio.create_task(self._sweeper.run(), name="adsum-sweep")]
        await asyncio.wait([serving, asyncio.ensure_future(self._server.up.wait())], return_when="FIRST_COMPLETED")

    async def stop(self) -> None:
        """Accept no more, let what is being answered finish within `Bounds.stop`, and cut off the rest; idempotent."""
        if not self._tasks:
            return
        self._server.should_exit = True
        serving, sweeping = self._tasks
        self._tasks = []
        self._sweeper.close_pending()
        await serving
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)

    def _refusal(self, arriving: int) -> bytes | None:
        """What a connection is told for which there is no room, beside those that arrive; None: there is."""
        if self.connections + arriving < self._sweeper.limits.max_connections:
            return None
        self._sweeper.on_shed("503")
        headers = (*self._server.server_state.default_headers, RETRY_AFTER_HEADER)
        return closing_response(503, "too many connections", headers)

    def set_max_connections(self, connections: int) -> None:
        """Turn new connections away past so many from now on; those that are open stay."""
        self._sweeper.limits = replace(self._sweeper.limits, max_connections=connections)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._server.server_state.connections)

    @property
    def max_connections(self) -> int:
        """How many there may be."""
        return self._sweeper.limits.max_connections

    @property
    def stalled_connections(self) -> int:
        """How many peers don't take what they asked for."""
        return self._sweeper.stalled_connections

    def unsent_bytes(self) -> int:
        """Bytes that wait for those."""
        return self._sweeper.unsent_bytes()


class _Server(uvicorn.Server):
    """Signals are the daemon's business, and accepting connections is the `Acceptor`'s."""

    def __init__(self, config: uvicorn.Config, refusal: Callable[[int], bytes | None]) -> None:
        super().__init__(config)
        self.up = asyncio.Event()
        self._refusal = refusal

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        protocol = partial(
            cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class),
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        acceptors = [Acceptor(each, protocol, self._refusal) for each in sockets or ()]
        for each in acceptors:
            each.start(self.config.backlog)
        self.servers = cast("list[asyncio.Server]", acceptors)
        self.started = True
        self.up.set()
