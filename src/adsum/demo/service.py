"""A small HTTP service of the demo: `python -m adsum.demo.service NAME`, listening on $PORT.

It answers /health at once and every other path after a short delay. On SIGTERM it finishes its running requests. With
--register it registers itself through the client library; without, it does not use Adsum and is wrapped by `adsum run`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import msgspec

RESPONSE_TIME: Final = (0.004, 0.02)
"""Seconds that a response takes, at least and at most."""
MAX_HEAD_BYTES: Final = 16_384
"""Bytes of the longest request head; the connection of a longer one is closed."""
FINISH_TIMEOUT: Final = 5.0
"""Seconds for running requests to finish at shut-down."""
CHECK: Final = "http:/health?interval=500ms&timeout=2s&rise=1&fall=2"


class DemoService:
    """One instance with its running requests."""

    def __init__(self, name: str, id: str) -> None:
        self._body = {"service": name, "instance": id, "pid": os.getpid()}
        self._running_requests = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        self._writers: set[asyncio.StreamWriter] = set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, one after another."""
        self._writers.add(writer)
        try:
            while not self._stopping:
                head = await reader.readuntil(b"\r\n\r\n")
                self._running_requests += 1
                self._idle.clear()
                try:
                    writer.write(await self._respond(head))
                    await writer.drain()
                finally:
                    self._running_requests -= 1
                    if not self._running_requests:
                        self._idle.set()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # The caller has gone, or did not send an HTTP request.
        finally:
            self._writers.discard(writer)
            writer.close()

    async def finish(self) -> None:
        """Accept no more requests; returns when the running ones are answered, at the latest after `FINISH_TIMEOUT`."""
        self._stopping = True
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_TIMEOUT):
                await self._idle.wait()
        for writer in list(self._writers):
            writer.close()

    async def _respond(self, head: bytes) -> bytes:
        if head.split(b" ", 2)[1] != b"/health":
            await asyncio.sleep(random.uniform(*RESPONSE_TIME))
        body = msgspec.json.encode(self._body)
        end = b"Connection: close\r\n" if self._stopping else b""
        kind = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        return b"HTTP/1.1 200 OK\r\n" + kind + end + b"\r\n" + body


async def serve(name: str, port: int, id: str, *, register: bool) -> None:
    """Serve until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    service = DemoService(name, id)
    server = await asyncio.start_server(service.answer, "127.0.0.1", port, limit=MAX_HEAD_BYTES)
    async with _registered(name, port, id) if register else _unregistered():
        await ended.wait()
    server.close()
    await service.finish()


@asynccontextmanager
async def _registered(name: str, port: int, id: str) -> AsyncIterator[None]:
    from adsum import Client

    async with Client(cache=False) as client, client.register(name, port, id=id, check=CHECK, ttl=5.0, grace=5.0):
        yield


@asynccontextmanager
async def _unregistered() -> AsyncIterator[None]:
    yield


def main() -> None:
    """Serve as the command line describes."""
    parser = argparse.ArgumentParser(description="A small HTTP service of the demo, listening on PORT.")
    parser.add_argument("name")
    parser.add_argument("--id", default=os.environ.get("ADSUM_ID", "demo"))
    parser.add_argument("--register", action="store_true", help="register it through the client library")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.name, int(os.environ["PORT"]), arguments.id, register=arguments.register))


if __name__ == "__main__":
    main()
