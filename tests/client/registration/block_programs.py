"""Programs that register in a block, each with its own body. Run one by

    python -m tests.client.registration.block_programs KIND PORT

Every body answers HTTP at PORT, or waits. The program prints a line when its body runs and when it has cleaned up.
"""

from __future__ import annotations

import asyncio
import functools
import http.server
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import adsum

# Each program imports what only it needs, so that the others start sooner.

DRAIN: dict[str, Any] = {"drain_wait": 2.0}


def report(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the test reads it


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"here"})


def own_server(port: int) -> Any:
    import uvicorn

    return uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="off"))


class QuietHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"here")

    def log_message(self, *_: object) -> None: ...


async def asynchronous(body: Callable[[int], Awaitable[object]], port: int, **options: Any) -> None:
    async with adsum.Client(cache=False) as client:
        try:
            async with client.register("orders", port, id="o1", **DRAIN, **options):
                report("in the body")
                await body(port)
            report("after the block")
        finally:
            report("cleaned up")


def synchronous(body: Callable[[int], object], port: int, **options: Any) -> None:
    with adsum.SyncClient(cache=False) as client:
        try:
            with client.register("orders", port, id="o1", **DRAIN, **options):
                report("in the body")
                body(port)
            report("after the block")
        finally:
            report("cleaned up")


async def sleeps(_: int) -> None:
    await asyncio.sleep(3600)


async def serves(port: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nhere")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", port) as server:
        await server.serve_forever()


async def uvicorn_serves(port: int) -> None:
    await own_server(port).serve()


async def in_a_group(port: int) -> None:
    async with asyncio.TaskGroup() as group, asyncio.timeout(600):
        group.create_task(serves(port))
        await asyncio.sleep(3600)


async def waits_for_its_own(_: int) -> None:
    """A program that handles SIGTERM by the event loop, as many do."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()


async def in_another_task(port: int) -> None:
    async def register_and_serve() -> None:
        await asynchronous(serves, port)

    await asyncio.gather(register_and_serve(), asyncio.sleep(3600))


async def several(port: int) -> None:
    async with adsum.Client(cache=False) as client:
        try:
            async with (
                client.register("orders", port, id="o1", **DRAIN),
                client.register("orders", port, id="o2", **DRAIN),
            ):
                report("in the body")
                await serves(port)
        finally:
            report("cleaned up")


async def grpc_serves(port: int) -> None:
    import grpc.aio

    from adsum.integrations.grpc import serving

    server = grpc.aio.server()
    server.add_insecure_port(f"127.0.0.1:{port}")
    async with adsum.Client(cache=False) as client, serving(client, server, "orders", port, id="o1", **DRAIN):
        report("in the body")
        try:
            await server.wait_for_termination()
        finally:
            report("cleaned up")


def sync_grpc_serves(port: int) -> None:
    import grpc

    from adsum.integrations.grpc import sync_serving

    server = grpc.server(ThreadPoolExecutor(4))
    server.add_insecure_port(f"127.0.0.1:{port}")
    with adsum.SyncClient(cache=False) as client, sync_serving(client, server, "orders", port, id="o1", **DRAIN):
        report("in the body")
        try:
            server.wait_for_termination()
        finally:
            report("cleaned up")


def serves_forever(port: int) -> None:
    http.server.ThreadingHTTPServer(("127.0.0.1", port), QuietHandler).serve_forever()


def pauses(_: int) -> None:
    signal.pause()


def sleeps_on(_: int) -> None:
    while True:
        time.sleep(3600)


def waits(_: int) -> None:
    threading.Event().wait()


def has_a_handler(port: int) -> None:
    """A program with a SIGTERM handler of its own, installed before the block."""
    ended = threading.Event()

    def handle(*_: object) -> None:
        report("handled")
        ended.set()

    signal.signal(signal.SIGTERM, handle)
    before = signal.getsignal(signal.SIGTERM)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), QuietHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    synchronous(lambda _: ended.wait(), port)
    report(f"restored: {signal.getsignal(signal.SIGTERM) is before}")


ASYNCHRONOUS: dict[str, Callable[[int], Any]] = {
    "sleep": functools.partial(asynchronous, sleeps),
    "server": functools.partial(asynchronous, serves),
    "uvicorn": functools.partial(asynchronous, uvicorn_serves),
    "group": functools.partial(asynchronous, in_a_group),
    "own-loop-handler": functools.partial(asynchronous, waits_for_its_own),
    "signals-off": functools.partial(asynchronous, sleeps, signals=False),
    "another-task": in_another_task,
    "several": several,
    "grpc": grpc_serves,
}
SYNCHRONOUS: dict[str, Callable[[int], None]] = {
    "sync-server": functools.partial(synchronous, serves_forever),
    "sync-pause": functools.partial(synchronous, pauses),
    "sync-sleep": functools.partial(synchronous, sleeps_on),
    "sync-wait": functools.partial(synchronous, waits),
    "sync-signals-off": functools.partial(synchronous, waits, signals=False),
    "sync-uvicorn": functools.partial(synchronous, lambda port: own_server(port).run()),
    "sync-own-handler": has_a_handler,
    "sync-grpc": sync_grpc_serves,
}

if __name__ == "__main__":
    kind, port = sys.argv[1], int(sys.argv[2])
    if kind.startswith("uvloop-"):
        import uvloop

        uvloop.run(ASYNCHRONOUS[kind.removeprefix("uvloop-")](port))
    elif kind in ASYNCHRONOUS:
        asyncio.run(ASYNCHRONOUS[kind](port))
    else:
        SYNCHRONOUS[kind](port)
