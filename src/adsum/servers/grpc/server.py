"""The server: grpc.aio with generic methods. Who answers them is handed in by path."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import grpc
import grpc.aio

from adsum.core.errors import AdsumError
from adsum.servers.grpc.bounds import LAST_WORDS, MAX_CALLS, STOP, options

_log = logging.getLogger("adsum.grpc")


class ListenRefused(AdsumError):
    """The address can't be listened on; the sentence is for the operator."""


class Call:
    """One call in progress: bytes in, bytes out."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._task = asyncio.current_task()
        self.is_cut = ""
        """Why it was cut off; "" if it was not."""
        self.peer: str = context.peer().partition(":")[2]

    async def read(self) -> bytes | None:
        """The next message; None once the peer has said its last."""
        message = await self._context.read()
        return message if isinstance(message, bytes) else None  # EOF is an object of its own.

    async def write(self, message: bytes) -> None:
        """Return when the transport has taken the message. Raises `ConnectionError` if the call has ended."""
        try:
            await self._context.write(message)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # grpc has no word for it: several of its internal errors mean that the peer left.
            raise ConnectionError(str(error)) from error

    async def refuse(self, code: str, words: str) -> None:
        """End the call with that status."""
        with contextlib.suppress(grpc.aio.AbortError):
            await self._context.abort(grpc.StatusCode[code], words)

    def cut(self, words: str) -> None:
        """End the call for that reason, although the peer may not read it."""
        self.is_cut = words
        if self._task is not None:
            self._task.cancel()


Speak = Callable[[Call], Awaitable[None]]


class GrpcServer:
    """Serves methods of two streams, by path; anything else is UNIMPLEMENTED."""

    def __init__(self, methods: Mapping[str, Speak], max_message: int) -> None:
        self._methods = methods
        self._max_message = max_message
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str) -> str:
        """Listen on HOST:PORT, and return when calls are accepted: where. Raises `ListenRefused`."""
        _try(address)
        server = grpc.aio.server(
            handlers=[_Paths(self._methods)], options=options(self._max_message), maximum_concurrent_rpcs=MAX_CALLS
        )
        try:
            port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise ListenRefused(f"can't listen on {address}: {error}") from None
        await server.start()
        self._server = server
        return f"{address.rpartition(':')[0]}:{port}"

    async def stop(self) -> None:
        """Accept no more, and end all calls within `STOP`; idempotent."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(STOP)


def _try(address: str) -> None:
    """Bind to HOST:PORT and let go of it: grpc doesn't say what the system says. Raises `ListenRefused`."""
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(
            host.removeprefix("[").removesuffix("]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, where in found:
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(where)
    except OSError as error:
        raise ListenRefused(f"can't listen on {address}: {error.strerror or error}") from None


class _Paths(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    def __init__(self, methods: Mapping[str, Speak]) -> None:
        self._handlers = {
            path: grpc.stream_stream_rpc_method_handler(partial(_spoken, speak)) for path, speak in methods.items()
        }

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._handlers.get(details.method)


async def _spoken(speak: Speak, _: object, context: Any) -> None:
    call = Call(context)
    try:
        await speak(call)
    except asyncio.CancelledError:
        if not call.is_cut:
            raise
        # One that does not read can not be told; grpc keeps the words for when it does.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await context.abort(grpc.StatusCode.UNAVAILABLE, call.is_cut)
    except Exception:
        _log.exception("a call of %s failed", call.peer)
        await context.abort(grpc.StatusCode.INTERNAL, "the registry failed at this")
