"""The gRPC transport: what it refuses, what it bounds, and how it ends."""

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

LONG = 30.0
METHOD = "/test.Talk/Talk"
PAGE = b"x" * 100_000


class GrpcPeer:
    """A client that blocks, in a thread of its own."""

    def __init__(self, place: str, *messages: bytes, method: str = METHOD, reads: bool = True) -> None:
        self.heard: list[bytes] = []
        self.end: grpc.RpcError | None = None
        self.over = threading.Event()
        """Set to say no more."""
        self.may_read = threading.Event()
        if reads:
            self.may_read.set()
        self._channel = grpc.insecure_channel(place, [("grpc.use_local_subchannel_pool", 1)])
        self._said = messages
        self._call = self._channel.stream_stream(method, None, None)(self._requests())
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _requests(self) -> Iterator[bytes]:
        yield from self._said
        self.over.wait(LONG)

    def _listen(self) -> None:
        self.may_read.wait(LONG)
        try:
            for message in self._call:
                self.heard.append(message)
        except grpc.RpcError as error:
            self.end = error

    async def ended(self) -> tuple[str, str]:
        """Its status, by name, and the details."""
        self.may_read.set()
        await asyncio.to_thread(self._thread.join, LONG)
        assert not self._thread.is_alive()
        return ("OK", "") if self.end is None else (self.end.code().name, self.end.details() or "")

    def close(self) -> None:
        self.over.set()
        self.may_read.set()
        self._channel.close()
        self._thread.join(LONG)


class EchoMethod:
    """Echoes, and does what else it is told."""

    def __init__(self) -> None:
        self.calls: list[GrpcCall] = []
        self.gone = asyncio.Event()
        self.writes = 0

    async def answer(self, call: GrpcCall) -> None:
        self.calls.append(call)
        try:
            while (message := await call.read()) is not None:
                if message == b"refuse":
                    call.refuse("INVALID_ARGUMENT", "no such word")
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
                    raise ValueError("our own mistake")
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
            call.refuse("INVALID_ARGUMENT", "no such word")
        writing.cancel()


@asynccontextmanager
async def _serving(
    talk: EchoMethod, max_message: int = 1_000_000, address: str = "127.0.0.1:0"
) -> AsyncIterator[tuple[GrpcServer, str]]:
    server = GrpcServer({METHOD: talk.answer}, max_message, 1_000)
    place = await server.start(address)
    try:
        yield server, place
    finally:
        await server.stop()


async def _until(true: threading.Event | object) -> None:
    deadline = time.monotonic() + LONG
    while not (true() if callable(true) else true):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_bytes_go_in_and_out_until_the_peer_has_said_its_last() -> None:
    talk = EchoMethod()
    async with _serving(talk) as (_, place):
        peer = GrpcPeer(place, b"one", b"two")
        await _until(lambda: len(peer.heard) == 2)
        assert talk.calls[0].peer.startswith("127.0.0.1:")
        peer.over.set()
        assert await peer.ended() == ("OK", "")
        assert peer.heard == [b"one", b"two"]
        peer.close()


@pytest.mark.parametrize(
    ("messages", "method", "code", "words"),
    [
        ([b"refuse"], METHOD, "INVALID_ARGUMENT", "no such word"),
        ([b"fail"], METHOD, "INTERNAL", "the registry failed at this"),
        ([b"x"], "/test.Talk/Other", "UNIMPLEMENTED", ""),
        ([b"x" * 2_000], METHOD, "RESOURCE_EXHAUSTED", ""),
    ],
)
async def test_what_can_not_be_is_refused_with_the_right_status(
    messages: list[bytes], method: str, code: str, words: str
) -> None:
    async with _serving(EchoMethod(), max_message=1_000) as (_, place):
        peer = GrpcPeer(place, *messages, method=method)
        found, details = await peer.ended()
        assert found == code
        assert words in details
        peer.close()


async def test_a_taken_port_is_one_sentence() -> None:
    async with _serving(EchoMethod()) as (_, place):
        with pytest.raises(GrpcListenError, match=f"can't listen on {place}: Address already in use"):
            await GrpcServer({}, 1_000, 1_000).start(place)


async def test_a_peer_that_does_not_read_holds_up_its_own_writer_only_and_can_be_cut_off() -> None:
    talk = EchoMethod()
    async with _serving(talk) as (_, place):
        idle = GrpcPeer(place, b"flood", reads=False)
        await _until(lambda: talk.writes > 0)
        writes = -1
        while writes != talk.writes:
            writes = talk.writes
            await asyncio.sleep(0.2)
        other = GrpcPeer(place, b"hello")
        await _until(lambda: other.heard == [b"hello"])
        talk.gone.clear()
        talk.calls[0].cut("it did not read")
        await asyncio.wait_for(talk.gone.wait(), LONG)
        assert await idle.ended() == ("UNAVAILABLE", "it did not read")
        idle.close()
        other.close()


@pytest.mark.parametrize(
    ("said", "status"),
    [(b"refuse behind a page", ("INVALID_ARGUMENT", "no such word")), (b"leave behind a page", ("OK", ""))],
)
async def test_the_status_follows_the_message_that_is_being_written(
    said: bytes, status: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    talk = EchoMethod()
    async with _serving(talk) as (_, place):
        peers = [GrpcPeer(place, said, reads=False) for _ in range(8)]
        await _until(lambda: len(talk.calls) == 8)
        await asyncio.wait_for(talk.gone.wait(), LONG)
        assert [await peer.ended() for peer in peers] == [status] * 8
        assert [peer.heard for peer in peers] == [[PAGE]] * 8
        for peer in peers:
            peer.close()
    assert caplog.records == []


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0"])
@pytest.mark.parametrize("said", [b"refuse behind all that is taken", b"leave behind all that is taken"])
async def test_the_connection_of_a_peer_that_never_reads_is_closed_and_no_other(
    said: bytes, address: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "FINAL_READ_TIMEOUT", 0.1)
    talk = EchoMethod()
    async with _serving(talk, address=address) as (_, place):
        other = GrpcPeer(place, b"hello")
        idle = GrpcPeer(place, said, reads=False)
        await _until(lambda: any("does not read what was sent" in each.getMessage() for each in caplog.records))
        assert (await idle.ended())[0] == "UNAVAILABLE"
        other.over.set()
        assert await other.ended() == ("OK", "")
        idle.close()
        other.close()
    assert [each.levelname for each in caplog.records] == ["WARNING"], "and no traceback"


async def test_writing_to_a_peer_that_left_is_a_connection_error_and_no_more() -> None:
    talk = EchoMethod()
    async with _serving(talk) as (_, place):
        peer = GrpcPeer(place, b"flood")
        await _until(lambda: talk.writes > 0)
        peer.close()
        await asyncio.wait_for(talk.gone.wait(), LONG)


async def test_stopping_ends_what_still_runs_within_its_bound() -> None:
    talk = EchoMethod()
    async with _serving(talk) as (server, place):
        peer = GrpcPeer(place, b"hello")
        await _until(lambda: peer.heard == [b"hello"])
        await asyncio.wait_for(server.stop(), STOP_TIMEOUT + LONG)
        assert (await peer.ended())[0] == "UNAVAILABLE"
        peer.close()
        await server.stop()
