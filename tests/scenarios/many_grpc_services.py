"""Programs of a scenario with many gRPC services. They are programs because grpc reads its bootstrap once a process.

`serve COUNT` runs COUNT servers, prints their ports in order, one a line, and each server answers with its number.
`call SERVICE,…` calls the services in turn until SIGTERM, and prints `SERVICE answer` or `SERVICE failed: reason`.
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
CALL_TIMEOUT = 20.0


async def _serve(count: int) -> None:
    servers = [_server(str(number)) for number in range(count)]
    for server in servers:
        _print(str(server.add_insecure_port("127.0.0.1:0")))
        await server.start()
    await _on_sigterm().wait()


def _server(name: str) -> grpc.aio.Server:
    async def answer(request: bytes, context: Any) -> bytes:
        return name.encode()

    server = grpc.aio.server()
    handlers = {"Name": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Names", handlers),))
    return server


async def _call(services: list[str]) -> None:
    ended = _on_sigterm()
    methods: dict[str, Any] = {
        service: channel(service).unary_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)
        for service in services
    }
    while not ended.is_set():
        for service, method in methods.items():
            try:
                _print(f"{service} {bytes(await method(b'', timeout=CALL_TIMEOUT)).decode()}")
            except grpc.aio.AioRpcError as error:
                _print(f"{service} failed: {error.code().name}: {error.details()}")
            await asyncio.sleep(PAUSE)


def _on_sigterm() -> asyncio.Event:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    return ended


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the test reads it


if __name__ == "__main__":
    command, argument = sys.argv[1:3]
    asyncio.run(_serve(int(argument)) if command == "serve" else _call(argument.split(",")))
