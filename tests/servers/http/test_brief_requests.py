"""Brief requests: which of them go past the parser, and how they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from adsum.ports import SEND_RESPONSE
from adsum.servers.http import AllowedHosts
from adsum.servers.http.request_heads import MAX_REMEMBERED_BLOCKS
from tests.servers.http.direct_connection import DirectConnection
from tests.servers.http.echo import BLOCK, KNOWN, NOW, echo_app, whole
from tests.servers.http.fake_fast_path import FakeFastPath
from tests.servers.http.serving import WAIT_TIMEOUT, HttpServing
from tests.support.waiting import until

LATER = b"PUT /later HTTP/1.1\r\n" + BLOCK + b"abc"
OTHER = b"PUT /other HTTP/1.1\r\n" + BLOCK + b"abc"
BRIEF = b"HTTP/1.1 200 OK\r\nvia: fast\r\ncontent-length: 5\r\n\r\nhello"
LATE = b"content-length: 4\r\n\r\nlate"


@pytest.fixture
def fast_path() -> FakeFastPath:
    return FakeFastPath()


@pytest.fixture
async def fresh(fast_path: FakeFastPath) -> AsyncIterator[DirectConnection]:
    """A connection without requests before."""
    connection = DirectConnection(echo_app, fast_path)
    yield connection
    await connection.close()


@pytest.fixture
async def connection(fresh: DirectConnection) -> DirectConnection:
    """A connection that remembers `BLOCK`."""
    for _ in range(2):
        assert await fresh.receive(KNOWN) == whole(b"/known")
    return fresh


async def test_the_third_request_with_the_same_headers_is_brief(
    fresh: DirectConnection, fast_path: FakeFastPath
) -> None:
    assert [await fresh.receive(NOW) for _ in range(4)] == [whole(b"/now")] * 2 + [BRIEF] * 2
    request = fast_path.requests[0]
    assert (request.method, request.target, request.body, request.peer) == (b"PUT", b"/now", b"abc", "127.0.0.1")
    assert dict(request.headers) == {b"host": b"localhost", b"content-length": b"3"}
    assert fast_path.prepared == 1


async def test_what_the_fast_path_does_not_answer_is_answered_by_theecho_application(
    connection: DirectConnection,
) -> None:
    responses = [await connection.receive(request) for request in (OTHER, NOW, OTHER)]
    assert responses == [whole(b"/other"), BRIEF, whole(b"/other")]


async def test_headers_that_the_fast_path_refuses_go_to_theecho_application(
    fresh: DirectConnection, fast_path: FakeFastPath
) -> None:
    slow = NOW.replace(b"host:", b"x-slow: 1\r\nhost:")
    assert [await fresh.receive(slow) for _ in range(4)] == [whole(b"/now")] * 4
    assert fast_path.prepared == 1


async def test_a_get_is_brief_from_the_first_request_on(fresh: DirectConnection) -> None:
    get = b"GET /now HTTP/1.1\r\nhost: localhost\r\n\r\n"
    assert [await fresh.receive(get) for _ in range(4)] == [BRIEF] * 4
    assert await fresh.receive(get.replace(b"/now", b"/other")) == whole(b"/other", b"")


@pytest.mark.parametrize(
    "request_text",
    [
        NOW.replace(b"host: localhost", b"host: localhost\r\nhost: localhost"),
        NOW.replace(b"content-length: 3\r\n\r\nabc", b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        NOW.replace(b"host: localhost", b"expect: 100-continue\r\nhost: localhost"),
        NOW.replace(b"host: localhost", b"host: localhost\r\nte: trailers"),
        NOW.replace(b"host: localhost", b"host:  localhost"),
        NOW.replace(b"PUT", b"PATCH"),
        NOW.replace(b"/now ", b"/now#x "),
        b"\r\n" + NOW,
    ],
)
async def test_unusual_requests_are_never_brief(
    connection: DirectConnection, fast_path: FakeFastPath, request_text: bytes
) -> None:
    for _ in range(4):
        assert (await connection.receive(request_text)).endswith(whole(b"/now"))
    assert fast_path.requests == []
    assert await connection.receive(NOW) == BRIEF


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (NOW.replace(b"host: localhost", b"host: localhost\r\norigin: http://elsewhere.example"), b"403"),
        (NOW.replace(b"host: localhost", b"host: localhost\r\nsec-fetch-site: cross-site"), b"403"),
        (NOW.replace(b"localhost", b"evil.example"), b"421"),
        (NOW.replace(b"content-length: 3", b"content-length: 3\r\ncontent-length: 3"), b"400"),
        (NOW.replace(b"content-length: 3", b"content-length : 3"), b"400"),
        (NOW.replace(b"\r\n\r\n", b"\r\nx: a\x00b\r\n\r\n"), b"400"),
    ],
)
async def test_a_request_that_is_refused_is_refused_each_time(
    fast_path: FakeFastPath, request_text: bytes, status: bytes
) -> None:
    for known in (KNOWN, request_text):
        connection = DirectConnection(echo_app, fast_path, AllowedHosts(["localhost"]))
        await connection.receive(known)
        if not connection.transport.is_closing():
            await connection.receive(known)
        if not connection.transport.is_closing():
            assert await connection.receive(NOW) == BRIEF
            assert (await connection.receive(request_text)).startswith(b"HTTP/1.1 %b " % status)
        assert connection.transport.is_closing()
    assert len(fast_path.requests) == 1


async def test_a_page_of_another_site_may_read_but_is_not_remembered(
    fresh: DirectConnection, fast_path: FakeFastPath
) -> None:
    """The headers of a GET would otherwise let the page write."""
    block = b"host: localhost\r\nsec-fetch-site: cross-site\r\n\r\n"
    assert [await fresh.receive(b"GET /now HTTP/1.1\r\n" + block) for _ in range(3)] == [BRIEF] * 3
    assert (await fresh.receive(b"PUT /now HTTP/1.1\r\n" + block)).startswith(b"HTTP/1.1 403 ")
    assert [request.method for request in fast_path.requests] == [b"GET"] * 3


async def test_no_request_goes_past_the_parser_behind_one_of_another_kind(connection: DirectConnection) -> None:
    upgrade = b"GET /x HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    assert await connection.receive(upgrade) == whole(b"/x", b"")
    assert await connection.receive(NOW) == whole(b"/now")


async def test_a_request_in_two_reads_is_brief_if_the_first_has_the_whole_head(
    connection: DirectConnection, fast_path: FakeFastPath
) -> None:
    for at in range(1, len(NOW)):
        is_brief = at >= len(NOW) - len(b"abc")
        assert await connection.receive(NOW[:at], NOW[at:]) == (BRIEF if is_brief else whole(b"/now")), at
    assert [request.body for request in fast_path.requests] == [b"abc"] * 3


async def test_a_body_in_many_reads_is_for_the_parser(connection: DirectConnection) -> None:
    assert await connection.receive(NOW[:-3], b"a", b"b", b"c") == whole(b"/now")
    assert await connection.receive(NOW) == BRIEF


async def test_several_requests_in_one_read_are_answered_in_order(connection: DirectConnection) -> None:
    assert await connection.receive(NOW + OTHER + NOW) == whole(b"/now") + whole(b"/other") + whole(b"/now")
    assert await connection.receive(NOW) == BRIEF


async def test_nothing_is_brief_while_a_response_is_under_way(fast_path: FakeFastPath) -> None:
    may_answer = asyncio.Event()

    async def slow(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["raw_path"] == b"/slow":
            await may_answer.wait()
        await echo_app(scope, receive, send)

    connection = DirectConnection(slow, fast_path)
    await connection.receive(KNOWN)
    await connection.receive(KNOWN)
    assert await connection.receive(KNOWN.replace(b"/known", b"/slow"), NOW) == b""
    may_answer.set()
    assert await connection.responses() == whole(b"/slow") + whole(b"/now")
    assert await connection.receive(NOW) == BRIEF
    await connection.close()


async def test_the_body_of_a_request_that_was_answered_early_is_no_request(fast_path: FakeFastPath) -> None:
    async def early(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["raw_path"] == b"/early":
            scope["state"][SEND_RESPONSE](200, LATE)
        else:
            await echo_app(scope, receive, send)

    connection = DirectConnection(early, fast_path)
    await connection.receive(KNOWN)
    await connection.receive(KNOWN)
    head = b"PUT /early HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % (2 * len(NOW))
    assert await connection.receive(head) == b"HTTP/1.1 200 OK\r\n" + LATE
    assert [await connection.receive(NOW) for _ in range(3)] == [b"", b"", BRIEF]
    await connection.close()


async def test_a_read_behind_part_of_a_head_belongs_to_it(connection: DirectConnection) -> None:
    assert await connection.receive(b"GET /x HTTP/1.1\r\nhost: localhost\r\nx: ") == b""
    assert await connection.receive(NOW) == whole(b"/x")


async def test_nothing_is_brief_while_the_peer_does_not_read(connection: DirectConnection) -> None:
    connection.protocol.pause_writing()
    responses = [await connection.receive(NOW)]
    connection.protocol.resume_writing()
    responses += [await connection.responses(), await connection.receive(NOW)]
    assert responses == [b"", whole(b"/now"), BRIEF]


async def test_requests_behind_one_that_waits_are_answered_after_it(
    connection: DirectConnection, fast_path: FakeFastPath
) -> None:
    assert await connection.receive(LATER, NOW) == b""
    paused = [connection.transport.is_reading_paused]
    fast_path.waiting.pop()(200, LATE)
    assert await connection.responses() == b"HTTP/1.1 200 OK\r\n" + LATE + BRIEF
    paused.append(connection.transport.is_reading_paused)
    assert paused == [True, False]
    assert await connection.receive(LATER, OTHER + NOW[:9]) == b""
    fast_path.waiting.pop()(200, LATE)
    assert await connection.responses() == b"HTTP/1.1 200 OK\r\n" + LATE + whole(b"/other")
    assert await connection.receive(NOW[9:]) == whole(b"/now")


async def test_a_request_that_was_taken_can_still_go_to_theecho_application(
    connection: DirectConnection, fast_path: FakeFastPath
) -> None:
    assert await connection.receive(LATER, NOW) == b""
    fast_path.waiting.pop()(None, b"")
    assert await connection.responses() == whole(b"/later") + whole(b"/now")
    assert await connection.receive(NOW) == BRIEF


async def test_a_second_reply_is_ignored(connection: DirectConnection, fast_path: FakeFastPath) -> None:
    await connection.receive(LATER)
    reply = fast_path.waiting.pop()
    reply(200, LATE)
    reply(200, LATE)
    reply(None, b"")
    assert await connection.responses() == b"HTTP/1.1 200 OK\r\n" + LATE


@pytest.mark.parametrize("kind", [b"PUT", b"GET"])
async def test_a_bug_of_the_fast_path_is_logged_and_theecho_application_answers(
    connection: DirectConnection, caplog: pytest.LogCaptureFixture, kind: bytes
) -> None:
    request = NOW.replace(b"PUT /now", kind + b" /broken")
    assert await connection.receive(request) == whole(b"/broken")
    assert [record.message for record in caplog.records] == ["the fast path failed, so the application answers"]
    assert await connection.receive(NOW) == BRIEF


async def test_a_connection_remembers_few_header_blocks(fresh: DirectConnection) -> None:
    blocks = [BLOCK.replace(b"localhost", b"localhost:%d" % port) for port in range(1, MAX_REMEMBERED_BLOCKS + 2)]
    for block in blocks:
        await fresh.receive(KNOWN.replace(BLOCK, block))
        await fresh.receive(KNOWN.replace(BLOCK, block))
    answers = [await fresh.receive(NOW.replace(BLOCK, block)) for block in blocks]
    assert answers == [whole(b"/now")] + [BRIEF] * MAX_REMEMBERED_BLOCKS


async def test_headers_that_come_once_are_not_judged(fresh: DirectConnection, fast_path: FakeFastPath) -> None:
    for number in range(2 * MAX_REMEMBERED_BLOCKS):
        await fresh.receive(NOW.replace(b"\r\n\r\n", b"\r\ntraceparent: %d\r\n\r\n" % number))
    assert fast_path.prepared == 0


@pytest.mark.parametrize("end", ["lost", "eof"])
async def test_a_reply_to_a_peer_that_has_left_is_dropped(
    connection: DirectConnection, fast_path: FakeFastPath, end: str
) -> None:
    await connection.receive(LATER, NOW)
    if end == "lost":
        await connection.close()
    else:
        connection.protocol.eof_received()
    fast_path.waiting.pop()(200, LATE)
    assert await connection.responses() == b""
    assert len(fast_path.requests) == 1


async def test_an_idle_connection_with_brief_requests_is_closed(fast_path: FakeFastPath) -> None:
    connection = DirectConnection(echo_app, fast_path, idle_timeout=0.05)
    await connection.receive(KNOWN)
    await connection.receive(KNOWN)
    assert await connection.receive(NOW) == BRIEF
    async with asyncio.timeout(WAIT_TIMEOUT):
        await connection.transport.closed.wait()


@pytest.mark.parametrize("waiting", [LATER, NOW[:-1]])
async def test_a_connection_whose_request_waits_is_not_closed_as_idle(fast_path: FakeFastPath, waiting: bytes) -> None:
    connection, idle = (DirectConnection(echo_app, fast_path, idle_timeout=0.05) for _ in range(2))
    await connection.receive(KNOWN)
    await connection.receive(KNOWN)
    await connection.receive(waiting)
    await idle.receive(KNOWN)
    async with asyncio.timeout(WAIT_TIMEOUT):
        await idle.transport.closed.wait()
    assert not connection.transport.is_closing()
    if fast_path.waiting:
        fast_path.waiting.pop()(200, LATE)
    else:
        assert await connection.receive(NOW[-1:]) == BRIEF
    async with asyncio.timeout(WAIT_TIMEOUT):
        await connection.transport.closed.wait()


async def test_a_body_that_never_ends_is_refused(connection: DirectConnection) -> None:
    await connection.receive(NOW[:-2])
    began = asyncio.get_running_loop().time()
    await connection.receive(NOW[-2:-1])
    connection.sweeper.sweep(began + connection.sweeper.limits.request_timeout)
    assert (await connection.responses()).startswith(b"HTTP/1.1 408 ")
    assert connection.shed == ["408"]


async def test_a_stop_does_not_wait_for_the_rest_of_a_body(connection: DirectConnection) -> None:
    await connection.receive(NOW[:-1])
    connection.sweeper.close_pending()
    assert (await connection.responses()).startswith(b"HTTP/1.1 503 ")
    assert connection.transport.is_closing()


@pytest.mark.parametrize(
    ("status", "end"), [(200, b"connection: close\r\n" + LATE), (None, b"connection: close\r\n\r\n/later abc")]
)
async def test_a_stop_waits_for_the_response_and_closes_the_connection(
    serving: HttpServing, fast_path: FakeFastPath, status: int | None, end: bytes
) -> None:
    async with serving.server(echo_app, fast_path, stop_timeout=600) as (server, port):
        reader, writer = await serving.connect(port)
        for _ in range(2):
            writer.write(KNOWN)
            assert (await reader.readuntil(b"/known abc")).startswith(b"HTTP/1.1 200 OK\r\ndate: ")
        writer.write(LATER)
        await until(lambda: fast_path.waiting)
        other_reader, other_writer = await serving.connect(port)
        stopping = asyncio.create_task(server.stop())
        async with asyncio.timeout(WAIT_TIMEOUT):
            assert await other_reader.read() == b"", "an idle connection is closed"
            assert not stopping.done()
            fast_path.waiting.pop()(status, LATE if status else b"")
            received = await reader.read()
            await stopping
        assert received.startswith(b"HTTP/1.1 200 OK\r\ndate: ")
        assert received.endswith(end)
        writer.close()
        other_writer.close()


async def test_brief_requests_are_answered_over_every_transport(serving: HttpServing, fast_path: FakeFastPath) -> None:
    async with serving.server(echo_app, fast_path) as (_, port):
        reader, writer = await serving.connect(port)
        for request in (KNOWN, KNOWN, NOW, NOW):
            writer.write(request)
            received = await reader.readuntil(b"hello" if request is NOW else b"/known abc")
            assert received.startswith(b"HTTP/1.1 200 OK\r\ndate: ")
        writer.write(NOW[:-3])
        await writer.drain()
        writer.write(b"xyz")
        await reader.readuntil(b"hello")
        assert [request.body for request in fast_path.requests] == [b"abc", b"abc", b"xyz"]
        writer.close()
