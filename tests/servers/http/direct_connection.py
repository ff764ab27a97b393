"""A connection of the HTTP server without a socket: a test writes the reads of the server, and sees what it writes."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from adsum.mounts import AsgiApp, FastPath
from adsum.servers.http import AllowedHosts, HttpLimits
from adsum.servers.http.connection import HttpConnection
from adsum.servers.http.sweeper import Sweeper
from adsum.servers.http.uvicorn_adapter import ResponseHeads
from tests.support.fakes import run_until_idle


class RecordingTransport(asyncio.Transport):
    """Keeps what is written. A close ends the connection in the next turn of the event loop."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_reading_paused = False
        self.protocol: asyncio.Protocol | None = None
        self.closed = asyncio.Event()

    def write(self, data: Any) -> None:
        if not self.is_closing():
            self.written += data

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def close(self) -> None:
        if not self.closed.is_set():
            self.closed.set()
            assert self.protocol is not None
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def pause_reading(self) -> None:
        self.is_reading_paused = True

    def resume_reading(self) -> None:
        self.is_reading_paused = False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 5555) if name == "peername" else default


class DirectConnection:
    """An open connection. Date and default headers are left out of its responses."""

    def __init__(
        self,
        app: AsgiApp,
        fast_path: FastPath | None,
        allowed_hosts: AllowedHosts | None = None,
        *,
        idle_timeout: float = 60.0,
    ) -> None:
        self.shed: list[str] = []
        self.sweeper = Sweeper(HttpLimits(), self.shed.append)
        self.transport = RecordingTransport()
        state = ServerState()
        config = uvicorn.Config(app, interface="asgi3", ws="none", lifespan="off", log_config=None, access_log=False)
        config.timeout_keep_alive = idle_timeout  # type: ignore[assignment]
        self.protocol = HttpConnection(
            self.sweeper,
            allowed_hosts,
            fast_path,
            config=config,
            server_state=state,
            app_state={},
            response_heads=ResponseHeads(state),
        )
        self.transport.protocol = self.protocol
        self.protocol.connection_made(self.transport)

    async def receive(self, *reads: bytes) -> bytes:
        """Lets the server read these pieces. Returns what it writes until it has nothing more to do."""
        for data in reads:
            self.protocol.data_received(data)
        return await self.responses()

    async def responses(self) -> bytes:
        """Returns what the server has written since the last call."""
        await run_until_idle()
        written, self.transport.written = self.transport.written, b""
        return written

    async def close(self) -> None:
        """Ends the connection."""
        self.transport.close()
        await run_until_idle()
