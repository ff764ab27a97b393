"""Programs for the gRPC integration; each is a process, because grpc sets its registry once per process.

`serve NAME`: a server that answers with names, registered until SIGTERM. `call SERVICE`: calls until SIGTERM and prints
one line per response. The prefix `sync-` selects the variant without asyncio.
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


def _names_handler(answer: Any) -> Any:
    handlers = {"Name": grpc.unary_unary_rpc_method_handler(answer)}
    return grpc.method_handlers_generic_handler("test.Names", handlers)


async def serve(name: str) -> None:
    async def answer(request: bytes, context: Any) -> bytes:
        await asyncio.sleep(0.02)
        return name.encode()

    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_names_handler(answer),))
    port = server.add_insecure_port(f"127.0.0.1:{os.environ.get('PORT', '0')}")
    async with Client(cache=False) as client, serving(client, server, "names", port, id=name):
        _print("serving")
        await ended.wait()
    _print("ended")


async def call(service: str) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with channel(service) as calling:
        call_name: Any = calling.unary_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)
        while not ended.is_set():
            _print(await _outcome(call_name))
            await asyncio.sleep(PAUSE)


async def _outcome(call_name: Any) -> str:
    began = time.monotonic()
    try:
        return bytes(await call_name(b"", timeout=20.0)).decode()
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name} after {time.monotonic() - began:.1f} s: {error.details()}"


def sync_serve(name: str) -> None:
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((_names_handler(lambda request, context: name.encode()),))
    port = server.add_insecure_port("127.0.0.1:0")
    with SyncClient(cache=False) as client, sync_serving(client, server, "names", port, id=name):
        _print("serving")
        ended.wait()
    _print("ended")


def sync_call(service: str) -> None:
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with sync_channel(service) as calling:
        call_name: Any = calling.unary_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)
        while not ended.wait(PAUSE):
            try:
                _print(call_name(b"", timeout=20.0).decode())
            except grpc.RpcError as error:
                _print(f"{error.code().name}: {error.details()}")


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the test reads it


if __name__ == "__main__":
    program, name = sys.argv[1:3]
    if program.startswith("sync-"):
        {"sync-serve": sync_serve, "sync-call": sync_call}[program](name)
    else:
        asyncio.run({"serve": serve, "call": call}[program](name))
