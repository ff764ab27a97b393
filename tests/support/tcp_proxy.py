"""A TCP proxy that simulates a network partition: it then forwards nothing and refuses no connection."""

from __future__ import annotations

import asyncio

CHUNK_BYTES = 65_536


class TcpProxy:
    """Forwards connections from a port of its own to `port`, on loopback."""

    def __init__(self, port: int) -> None:
        self._target_port = port
        self._connected = asyncio.Event()
        self._connected.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def open(self) -> TcpProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def partition(self) -> None:
        """Forwards nothing from now on; data on its way waits."""
        self._connected.clear()

    def heal(self) -> None:
        """Forwards again."""
        self._connected.set()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)  # The connections close in the next iterations of the loop.

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        await self._connected.wait()
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            self._abort(writer)
            return
        self._writers.add(to_writer)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forward(reader, to_writer))
                both.create_task(self._forward(to_reader, writer))
        except* OSError:
            pass
        finally:
            self._abort(writer)
            self._abort(to_writer)

    def _abort(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await self._connected.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("the peer closed the connection")
