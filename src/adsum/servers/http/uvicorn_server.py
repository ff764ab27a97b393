"""uvicorn's server, which accepts connections with code of our own. `uvicorn_parts` lists what it uses of uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

import uvicorn

from adsum.servers.http.acceptor import Acceptor, PlainConnector
from adsum.servers.http.refusals import Refusals
from adsum.servers.http.tls_connector import TlsConnector
from adsum.servers.http.uvicorn_adapter import ResponseHeads


class UvicornServer(uvicorn.Server):
    """uvicorn's server without its signal handlers, and with an `Acceptor` for each socket."""

    def __init__(
        self, config: uvicorn.Config, refusal: Callable[[], bytes | None], tls: Callable[..., TlsConnector] | None
    ) -> None:
        """`refusal`: see `Acceptor`. `tls` creates a `TlsConnector`, given its `protocol` and its `refusals`."""
        super().__init__(config)
        self.up = asyncio.Event()
        """Set when connections are accepted."""
        self._refusal = refusal
        self._tls = tls
        self._acceptors: list[Acceptor] = []

    @property
    def connection_count(self) -> int:
        """The number of open connections."""
        return len(self.server_state.connections)

    @property
    def arriving_count(self) -> int:
        """The number of accepted connections that are not open yet, since their handshake is under way."""
        return sum(acceptor.arriving for acceptor in self._acceptors)

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of every response: the date, and those of the configuration."""
        return self.server_state.default_headers

    def request_stop(self) -> None:
        """Makes `serve` return soon."""
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the daemon."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        protocol = partial(
            cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class),
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            response_heads=ResponseHeads(self.server_state),
        )
        refusals = Refusals()
        connector = self._tls(protocol=protocol, refusals=refusals) if self._tls else PlainConnector(protocol)
        self._acceptors = [Acceptor(sock, connector, self._refusal, refusals) for sock in sockets or ()]
        for acceptor in self._acceptors:
            acceptor.start(self.config.backlog)
        self.servers = cast("list[asyncio.Server]", self._acceptors)
        self.started = True
        self.up.set()
