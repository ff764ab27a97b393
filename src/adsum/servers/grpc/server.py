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
from adsum.servers.grpc import connections
from adsum.servers.grpc.options import FINAL_READ_TIMEOUT, MAX_CALLS, STOP_TIMEOUT, server_options

_log = logging.getLogger("adsum.grpc")


class GrpcListenError(AdsumError):
    """The address can't be listened on; the sentence is for the operator."""


class GrpcCall:
    """One call in progress: bytes in, bytes out.

    grpc can't end a call while it writes a message: `refuse` and `cut` only settle the status with which `end` ends it.
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        self._task = asyncio.current_task()
        self._writing: asyncio.Future[None] | None = None
        self._status: tuple[grpc.StatusCode, str] | None = None
        self.peer: str = context.peer().partition(":")[2]

    @property
    def is_refused(self) -> bool:
        """Whether it is to end with a status other than OK."""
        return self._status is not None

    async def read(self) -> bytes | None:
        """The next message; None once the peer has said its last."""
        message = await self._context.read()
        return message if isinstance(message, bytes) else None  # EOF is an object of its own.

    async def write(self, message: bytes) -> None:
        """Return when the transport has taken the message. Raises `ConnectionError` if the call has ended."""
        if self._status is not None:
            raise ConnectionError(self._status[1])
        # A task of its own: a writer that is cancelled leaves the message on its way, and `end` has to wait for it.
        self._writing = writing = asyncio.ensure_future(self._context.write(message))
        writing.add_done_callback(_take_note)
        await asyncio.wait([writing])
        error = asyncio.CancelledError("the call has ended") if writing.cancelled() else writing.exception()
        if error is not None:  # grpc has no word for it: several of its internal errors mean that the peer left.
            raise ConnectionError(str(error)) from error

    def refuse(self, code: str, message: str) -> None:
        """Have the call end with that status; nothing more is written. The first status counts."""
        self._status = self._status or (grpc.StatusCode[code], message)

    def cut(self, reason: str) -> None:
        """End the call now for that reason, although the peer may not read it."""
        self.refuse("UNAVAILABLE", reason)
        if self._task is not None:
            self._task.cancel()

    async def end(self) -> None:
        """Return when the call can end: the message that is being written is taken, and the status, if any, is sent.

        The connection of a peer that takes neither within `LAST_WORDS` is closed: it would hold the message for ever.
        """
        if not await self._written():
            _log.warning("the connection of %s is closed: it does not read what was sent to it", self.peer)
            await asyncio.to_thread(connections.close_connection, self.peer)
            if not await self._written():
                raise asyncio.CancelledError  # There is nothing that could still be said over this call.
        if self._status is not None:
            code, words = self._status
            # An `AbortError` is how grpc ends the call; anything else means that the peer has left.
            with contextlib.suppress(Exception):
                await self._context.abort(code, words)

    async def _written(self) -> bool:
        """Whether no message is being written any more; waits for `LAST_WORDS`."""
        if self._writing is None or self._writing.done():
            return True
        done, _ = await asyncio.wait([self._writing], timeout=FINAL_READ_TIMEOUT)
        return bool(done)


def _take_note(writing: asyncio.Future[None]) -> None:
    """Look at how a write ended: asyncio logs failures of tasks that nobody has looked at."""
    if not writing.cancelled():
        writing.exception()


StreamMethod = Callable[[GrpcCall], Awaitable[None]]


class GrpcServer:
    """Serves methods of two streams, by path; anything else is UNIMPLEMENTED."""

    def __init__(self, methods: Mapping[str, StreamMethod], max_message: int, connections: int) -> None:
        """`max_message`: bytes of a message. `connections`: how many there may be; past it new ones are closed."""
        self._methods = methods
        self._options = server_options(max_message, connections)
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str) -> str:
        """Listen on HOST:PORT, and return when calls are accepted: where. Raises `GrpcListenError`."""
        _try(address)
        server = grpc.aio.server(
            handlers=[_Paths(self._methods)], options=self._options, maximum_concurrent_rpcs=MAX_CALLS
        )
        try:
            port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise GrpcListenError(f"can't listen on {address}: {error}") from None
        await server.start()
        self._server = server
        return f"{address.rpartition(':')[0]}:{port}"

    async def stop(self) -> None:
        """Accept no more, and end all calls within `STOP_TIMEOUT`; idempotent."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(STOP_TIMEOUT)


def _try(address: str) -> None:
    """Bind to HOST:PORT and let go of it: grpc doesn't say what the system says. Raises `GrpcListenError`."""
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
        raise GrpcListenError(f"can't listen on {address}: {error.strerror or error}") from None


class _Paths(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    def __init__(self, methods: Mapping[str, StreamMethod]) -> None:
        self._handlers = {
            path: grpc.stream_stream_rpc_method_handler(partial(_spoken, speak)) for path, speak in methods.items()
        }

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._handlers.get(details.method)


async def _spoken(speak: StreamMethod, _: object, context: Any) -> None:
    call = GrpcCall(context)
    try:
        await speak(call)
    except asyncio.CancelledError:
        if not call.is_refused:
            raise
    except Exception:
        _log.exception("a call of %s failed", call.peer)
        call.refuse("INTERNAL", "the registry failed at this")
    await call.end()
