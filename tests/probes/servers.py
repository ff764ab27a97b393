"""Real servers on loopback for probes: plain ones, hostile ones, and a gRPC server."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from socket import AF_INET, SOCK_STREAM, socket
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse

from adsum.core.model import Check, CheckKind, Instance

HERE = "127.0.0.1"
CERTIFICATE = Path(__file__).with_name("certificate.pem")
"""A self-signed certificate for localhost, instance.test and 127.0.0.1, with its key."""

Talk = Callable[["ProbeConnection"], Awaitable[None]]
"""The server's side of one connection."""


class ProbeConnection:
    """One connection of a probe, as the server sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.request = b""

    async def read_request(self) -> None:
        """Waits for the complete head of the request."""
        self.request = await self._reader.readuntil(b"\r\n\r\n")

    async def send(self, data: bytes) -> None:
        """Sends bytes. Raises `ConnectionError` once the probe closed the connection."""
        self._writer.write(data)
        await self._writer.drain()

    async def wait_closed(self) -> None:
        """Waits until the probe closed or aborted the connection."""
        try:
            while await self._reader.read(1000):
                pass
        except ConnectionError:
            pass


class RawServer:
    """A raw server that runs `talk` for every connection."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.port = 0
        self.connections: list[ProbeConnection] = []
        self.open = 0
        self.server_names: list[str | None] = []

    @property
    def request(self) -> str:
        return self.connections[-1].request.decode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = ProbeConnection(reader, writer)
        self.connections.append(connection)
        self.open += 1
        try:
            await self.talk(connection)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self.open -= 1

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        context.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
        return context


@asynccontextmanager
async def serving(talk: Talk, *, tls: bool = False) -> AsyncIterator[RawServer]:
    """A raw server that runs during the block. At the end of the block all connections must have ended."""
    raw = RawServer(talk)
    server = await asyncio.start_server(raw.serve, HERE, 0, ssl=raw.context() if tls else None)
    raw.port = server.sockets[0].getsockname()[1]
    try:
        yield raw
        await until(lambda: raw.open == 0)
    finally:
        server.close()


def respond_with(*parts: bytes) -> Talk:
    """Returns a talk that reads the request, sends the parts and closes the connection."""

    async def talk(connection: ProbeConnection) -> None:
        await connection.read_request()
        for part in parts:
            await connection.send(part)

    return talk


async def silent(connection: ProbeConnection) -> None:
    """Accepts the connection and never answers."""
    await connection.wait_closed()


@asynccontextmanager
async def grpc_serving(
    statuses: dict[str, HealthCheckResponse.ServingStatus] | None, *, tls: bool = False
) -> AsyncIterator[int]:
    """A gRPC server with these health statuses ("" is the server's), or without a health service. Yields its port."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    if statuses is not None:
        servicer = HealthServicer()
        for service, status in statuses.items():
            await servicer.set(service, status)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    if tls:
        pem = CERTIFICATE.read_bytes()
        port = server.add_secure_port(f"{HERE}:0", grpc.ssl_server_credentials([(pem, pem)]))
    else:
        port = server.add_insecure_port(f"{HERE}:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


def closed_port() -> int:
    """Returns a port without a listener."""
    with socket(AF_INET, SOCK_STREAM) as free:
        free.bind((HERE, 0))
        return int(free.getsockname()[1])


def instance(port: int, address: str = HERE, scheme: str = "http") -> Instance:
    return Instance("orders", "a", address, port, scheme)


def check(kind: CheckKind, timeout: float = 20.0, **more: Any) -> Check:
    """Returns a check with a timeout that only a hanging probe reaches."""
    return Check("up", kind, timeout=timeout, **more)


async def until(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    """Polls until the condition holds. Fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition does not hold in time"
        await asyncio.sleep(0.01)
