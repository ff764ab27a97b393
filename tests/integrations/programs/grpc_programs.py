"""Programs of their own for the gRPC integration: grpc settles its registry once a process.

`serve NAME`: a server of names, listed until SIGTERM. `call SERVICE`: calls until SIGTERM; a line for each answer.
With `sync-` in front, the same without asyncio.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio

from adsum import Client, SyncClient
from adsum.integrations.grpc import channel, serving, sync_channel, sync_serving

METHOD = "/test.Names/Name"
PAUSE = 0.01


def _names(answer: Any) -> Any:
    handlers = {"Name": grpc.unary_unary_rpc_method_handler(answer)}
    return grpc.method_handlers_generic_handler("test.Names", handlers)


async def serve(name: str) -> None:
    async def answer(request: bytes, context: Any) -> bytes:
        await asyncio.sleep(0.02)
        return name.encode()

    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_names(answer),))
    port = server.add_insecure_port(f"127.0.0.1:{os.environ.get('PORT', '0')}")
    async with Client(cache=False) as client, serving(client, server, "names", port, id=name):
        _say("serving")
        await ended.wait()
    _say("ended")


async def call(service: str) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with channel(service) as calling:
        ask: Any = calling.unary_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)
        while not ended.is_set():
            _say(await _outcome(ask))
            await asyncio.sleep(PAUSE)


async def _outcome(ask: Any) -> str:
    began = time.monotonic()
    try:
        return bytes(await ask(b"", timeout=20.0)).decode()
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name} after {time.monotonic() - began:.1f} s: {error.details()}"


def sync_serve(name: str) -> None:
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((_names(lambda request, context: name.encode()),))
    port = server.add_insecure_port("127.0.0.1:0")
    with SyncClient(cache=False) as client, sync_serving(client, server, "names", port, id=name):
        _say("serving")
        ended.wait()
    _say("ended")


def sync_call(service: str) -> None:
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with sync_channel(service) as calling:
        ask: Any = calling.unary_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)
        while not ended.wait(PAUSE):
            try:
                _say(ask(b"", timeout=20.0).decode())
            except grpc.RpcError as error:
                _say(f"{error.code().name}: {error.details()}")


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the test reads it


if __name__ == "__main__":
    what, name = sys.argv[1:3]
    if what.startswith("sync-"):
        {"sync-serve": sync_serve, "sync-call": sync_call}[what](name)
    else:
        asyncio.run({"serve": serve, "call": call}[what](name))
