"""Programs of a scenario with many services that speak gRPC: grpc settles its registry once a process.

`serve COUNT`: as many servers as that; a line with each one's port, in order. Each answers its number.
`call SERVICE,…`: one call to each in turn, until SIGTERM; a line `SERVICE answer`, or `SERVICE failed: why`, for each.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import grpc
import grpc.aio

from adsum.integrations.grpc import channel

METHOD = "/test.Names/Name"
PAUSE = 0.002
LONG = 20.0


async def _serve(count: int) -> None:
    servers = [_server(str(number)) for number in range(count)]
    for server in servers:
        _say(str(server.add_insecure_port("127.0.0.1:0")))
        await server.start()
    await _told_to_end().wait()


def _server(name: str) -> grpc.aio.Server:
    async def answer(request: bytes, context: Any) -> bytes:
        return name.encode()

    server = grpc.aio.server()
    handlers = {"Name": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Names", handlers),))
    return server


async def _call(services: list[str]) -> None:
    ended = _told_to_end()
    asks: dict[str, Any] = {
        service: channel(service).unary_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)
        for service in services
    }
    while not ended.is_set():
        for service, ask in asks.items():
            try:
                _say(f"{service} {bytes(await ask(b'', timeout=LONG)).decode()}")
            except grpc.aio.AioRpcError as error:
                _say(f"{service} failed: {error.code().name}: {error.details()}")
            await asyncio.sleep(PAUSE)


def _told_to_end() -> asyncio.Event:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    return ended


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the test reads it


if __name__ == "__main__":
    what, argument = sys.argv[1:3]
    asyncio.run(_serve(int(argument)) if what == "serve" else _call(argument.split(",")))
