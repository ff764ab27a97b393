"""The TCP transport: one coroutine for each connection, with a bound on their number."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from adsum.core.addresses import format_host_port, split_host_port
from adsum.core.errors import AdsumError
from adsum.mounts import TcpHandler

READ_BUFFER_BYTES: Final = 64 * 1024
"""Bytes of a line that `readline` returns, at most. Past twice as many unread bytes the peer waits."""

_log = logging.getLogger("adsum.tcp")


class TcpListenError(AdsumError):
    """The server can't listen on an address. The message is for the operator."""


class TcpServer:
    """Runs `handler` for each connection. Past `max_connections` a new connection is closed at once."""

    def __init__(self, handler: TcpHandler, max_connections: int) -> None:
        self._handler = handler
        self._max_connections = max_connections
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, address: str) -> str:
        """Listens on HOST:PORT. Returns the address with its port. Raises `TcpListenError`."""
        host, port = split_host_port(address)
        try:
            self._server = await asyncio.start_server(self._serve, host, int(port), limit=READ_BUFFER_BYTES)
        except OSError as error:
            raise TcpListenError(f"can't listen on {address}: {error.strerror or error}") from None
        return format_host_port(host, self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stops listening, and cancels the handlers of open connections. Idempotent."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= self._max_connections:
            writer.close()
            return
        task = asyncio.ensure_future(self._handle(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._handler(reader, writer)
        except ConnectionError:
            pass  # The peer has left.
        except Exception:
            _log.exception("a connection of %s failed", writer.get_extra_info("peername"))
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
