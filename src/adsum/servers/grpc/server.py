"""The gRPC server: grpc.aio with one generic handler for all methods."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

import grpc
import grpc.aio

from adsum.core.addresses import split_host_port
from adsum.core.errors import AdsumError
from adsum.ports import ServerCertificates
from adsum.servers.grpc import connections
from adsum.servers.grpc.credentials import peer_certificate, server_credentials
from adsum.servers.grpc.failed_handshakes import FailedHandshakes, ignore
from adsum.servers.grpc.options import FINAL_READ_TIMEOUT, MAX_CALLS, STOP_TIMEOUT, server_options

_log = logging.getLogger("adsum.grpc")


class GrpcListenError(AdsumError):
    """The server can't listen on an address. The message is for the operator."""


class GrpcCall:
    """A call in progress, which reads and writes messages as bytes.

    grpc can't end a call while it writes a message. So `refuse` and `cut` only set the status, and `end` ends the call.
    """

    def __init__(self, context: Any) -> None:
        """`context` is grpc's `ServicerContext`."""
        self._context = context
        self._task = asyncio.current_task()
        self._writing: asyncio.Future[None] | None = None
        self._status: tuple[grpc.StatusCode, str] | None = None
        self.peer: str = context.peer().partition(":")[2]
        # Read now: grpc crashes when these are read after the end of the call.
        self.metadata: Mapping[str, str] = text_metadata(context.invocation_metadata() or ())
        """The metadata of the call, without binary values; names are in lower case."""
        self.certificate = peer_certificate(context.auth_context())
        """The verified client certificate of the connection (DER), empty if it has none."""

    @property
    def is_refused(self) -> bool:
        """Returns whether the call ends with a status other than OK."""
        return self._status is not None

    async def read(self) -> bytes | None:
        """Returns the next message, None after the last one."""
        message = await self._context.read()
        return message if isinstance(message, bytes) else None  # grpc has an object for EOF.

    async def write(self, message: bytes) -> None:
        """Writes a message. Returns when the transport has taken it. Raises `ConnectionError` if the call has ended."""
        if self._status is not None:
            raise ConnectionError(self._status[1])
        # A task of its own: if the writer is cancelled, the message is still being written, and `end` waits for it.
        self._writing = writing = asyncio.ensure_future(self._context.write(message))
        writing.add_done_callback(_retrieve_exception)
        await asyncio.wait([writing])
        error = asyncio.CancelledError("the call has ended") if writing.cancelled() else writing.exception()
        if error is not None:  # Several internal errors of grpc mean that the peer left.
            raise ConnectionError(str(error)) from error

    def refuse(self, code: str, message: str) -> None:
        """Has the call end with this status, without further messages. The first status counts."""
        self._status = self._status or (grpc.StatusCode[code], message)

    def cut(self, reason: str) -> None:
        """Ends the call now with UNAVAILABLE and this reason, even if the peer does not read."""
        self.refuse("UNAVAILABLE", reason)
        if self._task is not None:
            self._task.cancel()

    async def end(self) -> None:
        """Ends the call. Returns when the last message is written and the status, if any, is sent.

        If the peer does not read the message within `FINAL_READ_TIMEOUT`, its connection is closed: otherwise the
        message would take memory for ever.
        """
        if not await self._written():
            _log.warning("the connection of %s is closed: the peer does not read its messages", self.peer)
            await asyncio.to_thread(connections.close_connection, self.peer)
            if not await self._written():
                raise asyncio.CancelledError  # The call can't send anything more.
        if self._status is not None:
            code, message = self._status
            # grpc ends the call with an `AbortError`; any other error means that the peer has left.
            with contextlib.suppress(Exception):
                await self._context.abort(code, message)

    async def _written(self) -> bool:
        """Waits until no message is being written. Returns False after `FINAL_READ_TIMEOUT`."""
        if self._writing is None or self._writing.done():
            return True
        done, _ = await asyncio.wait([self._writing], timeout=FINAL_READ_TIMEOUT)
        return bool(done)


def text_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> Mapping[str, str]:
    """Returns metadata without binary values. The values of a name that was sent several times are joined with ", "."""
    found: dict[str, str] = {}
    for name, value in metadata:
        if isinstance(value, str):
            found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _retrieve_exception(writing: asyncio.Future[None]) -> None:
    """Retrieves the exception of a write, so that asyncio does not log it: `write` reports it."""
    if not writing.cancelled():
        writing.exception()


StreamMethod = Callable[[GrpcCall], Awaitable[None]]
"""Serves a call until it ends."""


class GrpcServer:
    """Serves bidirectional streaming methods by path. Other paths are UNIMPLEMENTED."""

    def __init__(
        self,
        methods: Mapping[str, StreamMethod],
        max_message: int,
        connections: int,
        certificates: ServerCertificates | None = None,
        on_failed_handshakes: Callable[[int], None] = ignore,
    ) -> None:
        """`max_message`: bytes of a message. Past `connections` a new connection is closed.

        With `certificates` the server speaks TLS, and requires client certificates: grpc can't request them and accept
        connections without one. `on_failed_handshakes` is called with the number of connections that made no call.
        """
        self._methods = methods
        self._certificates = certificates
        self._handshakes = FailedHandshakes(on_failed_handshakes)
        self._looks: asyncio.Task[None] | None = None
        self._options = server_options(max_message, connections)
        self._server: grpc.aio.Server | None = None

    async def start(self, address: str) -> str:
        """Listens on HOST:PORT. Returns the address with its port when calls are accepted. Raises `GrpcListenError`."""
        _check_bind(address)
        methods = _MethodsByPath(self._methods, self._handshakes)
        server = grpc.aio.server(handlers=[methods], options=self._options, maximum_concurrent_rpcs=MAX_CALLS)
        try:
            if self._certificates is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, server_credentials(self._certificates, self._handshakes.begin))
        except RuntimeError as error:
            raise GrpcListenError(f"can't listen on {address}: {error}") from None
        await server.start()
        self._server = server
        if self._certificates is not None:
            self._looks = asyncio.create_task(self._handshakes.run(), name="adsum-grpc-handshakes")
        return f"{address.rpartition(':')[0]}:{port}"

    async def stop(self) -> None:
        """Stops accepting calls, and ends all calls within `STOP_TIMEOUT`. Idempotent."""
        looks, self._looks = self._looks, None
        if looks is not None:
            looks.cancel()
            await asyncio.gather(looks, return_exceptions=True)
        server, self._server = self._server, None
        if server is not None:
            await server.stop(STOP_TIMEOUT)


def _check_bind(address: str) -> None:
    """Binds to HOST:PORT and closes the socket: grpc does not report the system's error. Raises `GrpcListenError`."""
    host, port = split_host_port(address)
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, target in found:
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(target)
    except OSError as error:
        raise GrpcListenError(f"can't listen on {address}: {error.strerror or error}") from None


class _MethodsByPath(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Finds the handler of a call by the path of its method."""

    def __init__(self, methods: Mapping[str, StreamMethod], handshakes: FailedHandshakes) -> None:
        self._handlers = {
            path: grpc.stream_stream_rpc_method_handler(partial(_serve, method, handshakes))
            for path, method in methods.items()
        }

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._handlers.get(details.method)


async def _serve(method: StreamMethod, handshakes: FailedHandshakes, _: object, context: Any) -> None:
    """Serves one call. An exception of the method ends it with INTERNAL."""
    call = GrpcCall(context)
    handshakes.admit(call.peer)
    try:
        await method(call)
    except asyncio.CancelledError:
        if not call.is_refused:
            raise
    except Exception:
        _log.exception("a call of %s failed", call.peer)
        call.refuse("INTERNAL", "the registry failed because of a bug")
    await call.end()
