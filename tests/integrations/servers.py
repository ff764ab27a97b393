"""Instances for tests, working and faulty, in a thread of their own, for blocking and asynchronous callers."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum

from tests.probes.servers import CERTIFICATE

HERE = "127.0.0.1"
BODY = 40_000
"""Bytes of the bodies that arrive slowly or break off."""


class ServerBehaviour(StrEnum):
    """The way in which an instance treats a request."""

    ANSWER = "answer"
    RESET = "reset"
    """Reads the request and resets the connection."""
    VANISH = "vanish"
    """Reads the request and closes the connection."""
    UNAVAILABLE = "unavailable"
    """503, with Retry-After."""
    HANG = "hang"
    DRIP = "drip"
    """Sends a head at once, then a byte now and then."""
    STALL = "stall"
    """Sends a head and half of the body, then nothing."""
    DIE = "die"
    """Sends a head and half of the body, then closes the connection."""
    SLOWLY = "slowly"
    """Sends a head, half of the body, and the rest once `continue_body` is set."""
    REDIRECT = "redirect"
    """Redirects to /there, relative."""
    GARBAGE = "garbage"


@dataclass(frozen=True)
class FleetRequest:
    """A request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class FleetServer:
    """An instance that responds with its `name`."""

    name: str
    behaviour: ServerBehaviour = ServerBehaviour.ANSWER
    tls: ssl.SSLContext | None = None
    port: int = 0
    open: int = 0
    requests: list[FleetRequest] = field(default_factory=list)
    server_names: list[str | None] = field(default_factory=list)

    async def start(self) -> None:
        self.continue_body = asyncio.Event()
        self._ended = asyncio.Event()
        if self.tls is not None:
            self.tls.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
        self._server = await asyncio.start_server(self._serve, HERE, 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._ended.set()
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while (request := await _read(reader)) is not None:
                self.requests.append(request)
                if not await self._answer(request, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _answer(self, request: FleetRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Returns whether to keep the connection."""
        behaviour = ServerBehaviour.ANSWER if request.target == "/there" else self.behaviour
        if behaviour is ServerBehaviour.ANSWER:
            writer.write(_head(200, len(self.name)) + (b"" if request.method == "HEAD" else self.name.encode()))
        elif behaviour is ServerBehaviour.UNAVAILABLE:
            writer.write(_head(503, 4, "Retry-After: 7\r\n") + b"away")
        elif behaviour is ServerBehaviour.REDIRECT:
            writer.write(_head(307, 0, "Location: /there\r\n"))
        elif behaviour is ServerBehaviour.GARBAGE:
            writer.write(b"\x00\x01 this is no HTTP\r\n\r\n")
            return False
        elif behaviour is ServerBehaviour.RESET:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        elif behaviour is ServerBehaviour.HANG:
            await self._wait_for_hang_up(reader)
            return False
        elif behaviour in (ServerBehaviour.DRIP, ServerBehaviour.STALL, ServerBehaviour.DIE, ServerBehaviour.SLOWLY):
            return await self._send_slowly(behaviour, reader, writer)
        return behaviour is not ServerBehaviour.VANISH

    async def _send_slowly(
        self, behaviour: ServerBehaviour, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        writer.write(_head(200, BODY))
        if behaviour is ServerBehaviour.DRIP:
            while not reader.at_eof() and not self._ended.is_set():
                writer.write(b".")
                await writer.drain()
                await asyncio.sleep(0.02)
            return False
        writer.write(b"." * (BODY // 2))
        await writer.drain()
        if behaviour is ServerBehaviour.SLOWLY:
            await self.continue_body.wait()
            writer.write(b"." * (BODY // 2))
            return True
        if behaviour is ServerBehaviour.STALL:
            await self._wait_for_hang_up(reader)
        return False

    async def _wait_for_hang_up(self, reader: asyncio.StreamReader) -> None:
        """Returns when the caller has closed the connection."""
        ended = asyncio.create_task(self._ended.wait())
        hung_up = asyncio.create_task(reader.read(1))
        await asyncio.wait([ended, hung_up], return_when=asyncio.FIRST_COMPLETED)
        for task in (ended, hung_up):
            task.cancel()
        with suppress(ConnectionError):
            await asyncio.gather(ended, hung_up, return_exceptions=True)


class Fleet:
    """Servers on one loop in one thread."""

    def __init__(self) -> None:
        self.servers: list[FleetServer] = []
        self._bound: list[socket.socket] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fleet", daemon=True)
        self._thread.start()

    def add(
        self, name: str, behaviour: ServerBehaviour = ServerBehaviour.ANSWER, tls: ssl.SSLContext | None = None
    ) -> FleetServer:
        server = FleetServer(name, behaviour, tls)
        self.run(server.start())
        self.servers.append(server)
        return server

    def refuse(self) -> int:
        """Returns a port that is bound, and on which nothing listens."""
        bound = socket.socket()
        bound.bind((HERE, 0))
        self._bound.append(bound)
        return int(bound.getsockname()[1])

    def continue_body(self, server: FleetServer) -> None:
        self._loop.call_soon_threadsafe(server.continue_body.set)

    def run(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20.0)  # type: ignore[arg-type]

    def stop(self) -> None:
        for bound in self._bound:
            bound.close()
        for server in self.servers:
            self.run(server.stop())
        self.until(lambda: not any(server.open for server in self.servers), "every connection is closed")
        self.run(asyncio.sleep(0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)
        self._loop.close()

    @staticmethod
    def until(condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 20.0
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.002)

    @property
    def request_count(self) -> int:
        return sum(len(server.requests) for server in self.servers)


def server_tls_context() -> ssl.SSLContext:
    """The TLS context of a server whose certificate is for instance.test."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def _head(status: int, length: int, more: str = "") -> bytes:
    return f"HTTP/1.1 {status} As It Is\r\nContent-Length: {length}\r\nContent-Type: text/plain\r\n{more}\r\n".encode()


async def _read(reader: asyncio.StreamReader) -> FleetRequest | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    line, *rest = head.rstrip("\r\n").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    method, target, _ = line.split(" ", 2)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    while headers.get("transfer-encoding") == "chunked":
        size = int(await reader.readline(), 16)
        body += await reader.readexactly(size)
        await reader.readexactly(2)
        if not size:
            break
    return FleetRequest(method, target, headers, body)
