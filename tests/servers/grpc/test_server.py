"""The statuses, the limits and the end of calls of the gRPC server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import grpc
import pytest

from adsum.servers.grpc import GrpcListenError, GrpcServer
from adsum.servers.grpc import server as server_module
from adsum.servers.grpc.options import STOP_TIMEOUT
from adsum.servers.grpc.server import GrpcCall

WAIT_TIMEOUT = 30.0
METHOD = "/test.Talk/Talk"
PAGE = b"x" * 100_000


class GrpcPeer:
    """A blocking client in a thread of its own."""

    def __init__(self, address: str, *messages: bytes, method: str = METHOD, reads: bool = True) -> None:
        self.received: list[bytes] = []
        self.end: grpc.RpcError | None = None
        self.over = threading.Event()
        """Set by a test: the peer then sends no more messages."""
        self.may_read = threading.Event()
        if reads:
            self.may_read.set()
        self._channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        self._messages = messages
        self._call = self._channel.stream_stream(method, None, None)(self._requests())
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


@asynccontextmanager
async def _serving(
    echo: EchoMethod, max_message: int = 1_000_000, address: str = "127.0.0.1:0"
) -> AsyncIterator[tuple[GrpcServer, str]]:
    server = GrpcServer({METHOD: echo.serve}, max_message, 1_000)
    address = await server.start(address)
    try:
        yield server, address
    finally:
        await server.stop()


async def _until(condition: threading.Event | object) -> None:
    deadline = time.monotonic() + WAIT_TIMEOUT
    while not (condition() if callable(condition) else condition):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_messages_go_both_ways_until_the_last_one_of_the_peer() -> None:
    echo = EchoMethod()
    async with _serving(echo) as (_, address):
        peer = GrpcPeer(address, b"one", b"two")
        await _until(lambda: len(peer.received) == 2)
        assert echo.calls[0].peer.startswith("127.0.0.1:")
        peer.over.set()
        assert await peer.ended() == ("OK", "")
        assert peer.received == [b"one", b"two"]
        peer.close()


@pytest.mark.parametrize(
    ("messages", "method", "code", "detail"),
    [
        ([b"refuse"], METHOD, "INVALID_ARGUMENT", "no such command"),
        ([b"fail"], METHOD, "INTERNAL", "the registry failed because of a bug"),
        ([b"x"], "/test.Talk/Other", "UNIMPLEMENTED", ""),
        ([b"x" * 2_000], METHOD, "RESOURCE_EXHAUSTED", ""),
    ],
)
async def test_a_refused_call_has_the_right_status(messages: list[bytes], method: str, code: str, detail: str) -> None:
    async with _serving(EchoMethod(), max_message=1_000) as (_, address):
        peer = GrpcPeer(address, *messages, method=method)
        found, details = await peer.ended()
        assert found == code
        assert detail in details
        peer.close()


async def test_a_port_in_use_is_reported_in_one_sentence() -> None:
    async with _serving(EchoMethod()) as (_, address):
        with pytest.raises(GrpcListenError, match=f"can't listen on {address}: Address already in use"):
            await GrpcServer({}, 1_000, 1_000).start(address)


async def test_a_peer_that_does_not_read_blocks_only_its_own_writer_and_can_be_cut() -> None:
    echo = EchoMethod()
    async with _serving(echo) as (_, address):
        idle = GrpcPeer(address, b"flood", reads=False)
        await _until(lambda: echo.writes > 0)
        writes = -1
        while writes != echo.writes:
            writes = echo.writes
            await asyncio.sleep(0.2)
        other = GrpcPeer(address, b"hello")
        await _until(lambda: other.received == [b"hello"])
        echo.gone.clear()
        echo.calls[0].cut("it did not read")
        await asyncio.wait_for(echo.gone.wait(), WAIT_TIMEOUT)
        assert await idle.ended() == ("UNAVAILABLE", "it did not read")
        idle.close()
        other.close()


@pytest.mark.parametrize(
    ("message", "status"),
    [(b"refuse behind a page", ("INVALID_ARGUMENT", "no such command")), (b"leave behind a page", ("OK", ""))],
)
async def test_the_status_follows_the_message_that_is_being_written(
    message: bytes, status: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    echo = EchoMethod()
    async with _serving(echo) as (_, address):
        peers = [GrpcPeer(address, message, reads=False) for _ in range(8)]
        await _until(lambda: len(echo.calls) == 8)
        await asyncio.wait_for(echo.gone.wait(), WAIT_TIMEOUT)
        assert [await peer.ended() for peer in peers] == [status] * 8
        assert [peer.received for peer in peers] == [[PAGE]] * 8
        for peer in peers:
            peer.close()
    assert caplog.records == []


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0"])
@pytest.mark.parametrize("message", [b"refuse behind all that is taken", b"leave behind all that is taken"])
async def test_only_the_connection_of_a_peer_that_never_reads_is_closed(
    message: bytes, address: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "FINAL_READ_TIMEOUT", 0.1)
    echo = EchoMethod()
    async with _serving(echo, address=address) as (_, address):
        other = GrpcPeer(address, b"hello")
        idle = GrpcPeer(address, message, reads=False)
        await _until(lambda: any("does not read its messages" in record.getMessage() for record in caplog.records))
        assert (await idle.ended())[0] == "UNAVAILABLE"
        other.over.set()
        assert await other.ended() == ("OK", "")
        idle.close()
        other.close()
    assert [record.levelname for record in caplog.records] == ["WARNING"], "no traceback is logged"


async def test_a_write_to_a_peer_that_left_raises_connection_error() -> None:
    echo = EchoMethod()
    async with _serving(echo) as (_, address):
        peer = GrpcPeer(address, b"flood")
        await _until(lambda: echo.writes > 0)
        peer.close()
        await asyncio.wait_for(echo.gone.wait(), WAIT_TIMEOUT)


async def test_a_stop_ends_running_calls_within_its_timeout() -> None:
    echo = EchoMethod()
    async with _serving(echo) as (server, address):
        peer = GrpcPeer(address, b"hello")
        await _until(lambda: peer.received == [b"hello"])
        await asyncio.wait_for(server.stop(), STOP_TIMEOUT + WAIT_TIMEOUT)
        assert (await peer.ended())[0] == "UNAVAILABLE"
        peer.close()
        await server.stop()
