"""The statuses, the limits and the end of calls of the gRPC server."""

from __future__ import annotations

import asyncio

import pytest

from adsum.servers.grpc import GrpcListenError, GrpcServer
from adsum.servers.grpc import server as server_module
from adsum.servers.grpc.options import STOP_TIMEOUT
from tests.servers.grpc.serving import METHOD, PAGE, WAIT_TIMEOUT, EchoMethod, GrpcServing
from tests.support.waiting import until


async def test_messages_go_both_ways_until_the_last_one_of_the_peer(serving: GrpcServing) -> None:
    echo = EchoMethod()
    async with serving.server(echo) as (_, address):
        peer = serving.peer(address, b"one", b"two")
        await until(lambda: len(peer.received) == 2)
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
async def test_a_refused_call_has_the_right_status(
    serving: GrpcServing, messages: list[bytes], method: str, code: str, detail: str
) -> None:
    async with serving.server(EchoMethod(), max_message=1_000) as (_, address):
        peer = serving.peer(address, *messages, method=method)
        found, details = await peer.ended()
        assert found == code
        assert detail in details
        peer.close()


async def test_a_port_in_use_is_reported_in_one_sentence(serving: GrpcServing) -> None:
    async with serving.server(EchoMethod()) as (_, address):
        with pytest.raises(GrpcListenError, match=f"can't listen on {address}: Address already in use"):
            await GrpcServer({}, 1_000, 1_000).start(address)


async def test_a_peer_that_does_not_read_blocks_only_its_own_writer_and_can_be_cut(serving: GrpcServing) -> None:
    echo = EchoMethod()
    async with serving.server(echo) as (_, address):
        idle = serving.peer(address, b"flood", reads=False)
        await until(lambda: echo.writes > 0)
        writes = -1
        while writes != echo.writes:
            writes = echo.writes
            await asyncio.sleep(0.2)
        other = serving.peer(address, b"hello")
        await until(lambda: other.received == [b"hello"])
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
    serving: GrpcServing, message: bytes, status: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    echo = EchoMethod()
    async with serving.server(echo) as (_, address):
        peers = [serving.peer(address, message, reads=False) for _ in range(8)]
        await until(lambda: len(echo.calls) == 8)
        await asyncio.wait_for(echo.gone.wait(), WAIT_TIMEOUT)
        assert [await peer.ended() for peer in peers] == [status] * 8
        assert [peer.received for peer in peers] == [[PAGE]] * 8
        for peer in peers:
            peer.close()
    assert caplog.records == []


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0"])
@pytest.mark.parametrize("message", [b"refuse behind all that is taken", b"leave behind all that is taken"])
async def test_only_the_connection_of_a_peer_that_never_reads_is_closed(
    serving: GrpcServing,
    message: bytes,
    address: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "FINAL_READ_TIMEOUT", 0.1)
    echo = EchoMethod()
    async with serving.server(echo, address=address) as (_, address):
        other = serving.peer(address, b"hello")
        idle = serving.peer(address, message, reads=False)
        await until(lambda: any("does not read its messages" in record.getMessage() for record in caplog.records))
        assert (await idle.ended())[0] == "UNAVAILABLE"
        other.over.set()
        assert await other.ended() == ("OK", "")
        idle.close()
        other.close()
    assert [record.levelname for record in caplog.records] == ["WARNING"], "no traceback is logged"


async def test_a_write_to_a_peer_that_left_raises_connection_error(serving: GrpcServing) -> None:
    echo = EchoMethod()
    async with serving.server(echo) as (_, address):
        peer = serving.peer(address, b"flood")
        await until(lambda: echo.writes > 0)
        peer.close()
        await asyncio.wait_for(echo.gone.wait(), WAIT_TIMEOUT)


async def test_a_stop_ends_running_calls_within_its_timeout(serving: GrpcServing) -> None:
    echo = EchoMethod()
    async with serving.server(echo) as (server, address):
        peer = serving.peer(address, b"hello")
        await until(lambda: peer.received == [b"hello"])
        await asyncio.wait_for(server.stop(), STOP_TIMEOUT + WAIT_TIMEOUT)
        assert (await peer.ended())[0] == "UNAVAILABLE"
        peer.close()
        await server.stop()
