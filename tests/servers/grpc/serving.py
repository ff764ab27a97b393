"""A gRPC server of a test and its peers, with and without TLS."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import trustme

from adsum.servers.grpc import GrpcServer
from adsum.servers.grpc.server import GrpcCall
from tests.support.server_certificates import FakeServerCertificates

WAIT_TIMEOUT = 30.0
METHOD = "/test.Talk/Talk"
PAGE = b"x" * 100_000


class GrpcPeer:
    """A blocking client in a thread of its own."""

    def __init__(
        self,
        address: str,
        *messages: bytes,
        method: str = METHOD,
        reads: bool = True,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Sequence[tuple[str, str | bytes]] = (),
    ) -> None:
        self.received: list[bytes] = []
        self.end: grpc.RpcError | None = None
        self.over = threading.Event()
        """Set by a test: the peer then sends no more messages."""
        self.may_read = threading.Event()
        if reads:
            self.may_read.set()
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = (
            grpc.insecure_channel(address, options)
            if credentials is None
            else grpc.secure_channel(address, credentials, options)
        )
        self._messages = messages
        self._call = self._channel.stream_stream(method, None, None)(self._requests(), metadata=tuple(metadata))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _requests(self) -> Iterator[bytes]:
        yield from self._messages
        self.over.wait(WAIT_TIMEOUT)

    def _listen(self) -> None:
        self.may_read.wait(WAIT_TIMEOUT)
        try:
            for message in self._call:
                self.received.append(message)
        except grpc.RpcError as error:
            self.end = error

    async def ended(self) -> tuple[str, str]:
        """Returns the status of the call, by name, and its details."""
        self.may_read.set()
        await asyncio.to_thread(self._thread.join, WAIT_TIMEOUT)
        assert not self._thread.is_alive()
        return ("OK", "") if self.end is None else (self.end.code().name, self.end.details() or "")

    def close(self) -> None:
        self.over.set()
        self.may_read.set()
        self._channel.close()
        self._thread.join(WAIT_TIMEOUT)


class EchoMethod:
    """Echoes messages. Some messages are commands."""

    def __init__(self) -> None:
        self.calls: list[GrpcCall] = []
        self.gone = asyncio.Event()
        self.writes = 0

    async def serve(self, call: GrpcCall) -> None:
        self.calls.append(call)
        try:
            while (message := await call.read()) is not None:
                if message == b"refuse":
                    call.refuse("INVALID_ARGUMENT", "no such command")
                    return
                if message.endswith(b"behind a page"):
                    writing = asyncio.create_task(call.write(PAGE))
                    await asyncio.sleep(0)
                    self._end(call, writing, refused=message.startswith(b"refuse"))
                    return
                if message.endswith(b"behind all that is taken"):
                    writing = asyncio.create_task(call.write(PAGE))
                    while (await asyncio.wait([writing], timeout=0.3))[0]:
                        writing = asyncio.create_task(call.write(PAGE))
                    self._end(call, writing, refused=message.startswith(b"refuse"))
                    return
                if message == b"fail":
                    raise ValueError("a bug")
                while message == b"flood":
                    await call.write(b"x" * 100_000)
                    self.writes += 1
                await call.write(message)
        except ConnectionError:
            pass
        finally:
            self.gone.set()

    def _end(self, call: GrpcCall, writing: asyncio.Task[None], *, refused: bool) -> None:
        if refused:
            call.refuse("INVALID_ARGUMENT", "no such command")
        writing.cancel()


@dataclass
class GrpcServing:
    """How a test serves and calls: over TLS, with a client certificate, if it has certificates."""

    certificates: FakeServerCertificates | None = None

    @asynccontextmanager
    async def server(
        self,
        echo: EchoMethod,
        max_message: int = 1_000_000,
        address: str = "127.0.0.1:0",
        connections: int = 1_000,
    ) -> AsyncIterator[tuple[GrpcServer, str]]:
        """Yields a server and its address."""
        server = GrpcServer({METHOD: echo.serve}, max_message, connections, self.certificates)
        address = await server.start(address)
        try:
            yield server, address
        finally:
            await server.stop()

    def peer(self, address: str, *messages: bytes, method: str = METHOD, reads: bool = True) -> GrpcPeer:
        """Returns a peer that calls the method."""
        certificates = self.certificates
        credentials = None if certificates is None else client_credentials(certificates, certificates.issue_client())
        return GrpcPeer(address, *messages, method=method, reads=reads, credentials=credentials)


def client_credentials(
    certificates: FakeServerCertificates, client: trustme.LeafCert | None
) -> grpc.ChannelCredentials:
    """Returns the credentials of a client that trusts the server, with a certificate of its own if it has one."""
    authorities = certificates.authority.cert_pem.bytes()
    if client is None:
        return grpc.ssl_channel_credentials(authorities)
    chain = b"".join(pem.bytes() for pem in client.cert_chain_pems)
    return grpc.ssl_channel_credentials(authorities, client.private_key_pem.bytes(), chain)
