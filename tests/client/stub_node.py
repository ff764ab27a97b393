"""A registry node that sends exactly the bytes that a test wants."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from adsum import wire

STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def sse_event(name: str, body: wire.ResponseBody, id: str = "") -> bytes:
    """Returns the bytes of one event."""
    return b"event: %s\n%sdata: %s\n\n" % (name.encode(), f"id: {id}\n".encode() if id else b"", wire.encode(body))


def synced_event(revision: int, epoch: str = "e1") -> bytes:
    return sse_event("synced", wire.WatchSynced(revision), f"{epoch}:{revision}")


def http_reply(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body)


async def until(fact: Callable[[], object], within: float = 40.0) -> None:
    """Waits in real time until `fact()` is true."""
    async with asyncio.timeout(within):
        while not fact():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


class StubNode:
    """Answers each watch with the next of `watch_answers`, and every other request with `answer`.

    A watch answer is the bytes, and whether the connection then hangs (True) or ends (False).
    """

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[str] = []
        """The method and target of each request, and the position from which a watch resumes."""
        self.bodies: list[bytes] = []
        self.watch_answers: list[tuple[bytes, bool]] = []
        self.answer = http_reply(204, b"")
        self.delay = 0.0
        """Seconds before it answers a request that is neither a watch nor /healthz."""
        self.request_received = asyncio.Event()
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            self.open -= 1
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        self.bodies.append(await reader.readexactly(int(headers.get("content-length", 0))))
        position = headers.get("last-event-id", "")
        self.requests.append(lines[0].removesuffix(" HTTP/1.1") + (f" since {position}" if position else ""))
        self.request_received.set()
        if "/api/v1/watch?" not in lines[0]:
            if "/healthz" not in lines[0]:
                await asyncio.sleep(self.delay)
            writer.write(self.answer)
            await writer.drain()
            return
        content, hangs = self.watch_answers.pop(0) if self.watch_answers else (http_reply(503, b""), False)
        writer.write(content)
        await writer.drain()
        if hangs:
            await reader.read()


@asynccontextmanager
async def stub_node() -> AsyncIterator[StubNode]:
    """Yields a stub node on a free port."""
    node = StubNode()
    server = await asyncio.start_server(node.serve, "127.0.0.1", 0)
    node.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield node
    finally:
        server.close()
        await until(lambda: not node.open)


@asynccontextmanager
async def hung_node() -> AsyncIterator[str]:
    """Yields the URL of a node that accepts connections and never answers, like a stopped process."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
