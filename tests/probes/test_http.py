from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adsum.core.address_policy import AddressPolicy
from adsum.core.model import CheckKind, Outcome, Result
from adsum.core.validation import MAX_VALUE_LENGTH
from adsum.probes.http import MAX_EXCERPT_CHARS, MAX_RESPONSE_BYTES, HttpProbe
from adsum.version import __version__
from tests.probes.servers import HERE, ProbeConnection, RawServer, Talk, check, instance, respond_with, serving, silent

PASS, WARN, FAIL = Result.PASS, Result.WARN, Result.FAIL


async def probed(server: RawServer, scheme: str = "http", **more: Any) -> Outcome:
    probe = HttpProbe(AddressPolicy(), excerpts=True)
    return await probe.probe(instance(server.port, scheme=scheme), check(CheckKind.HTTP, **more))


async def outcome_of(talk: Talk, **more: Any) -> Outcome:
    async with serving(talk) as server:
        return await probed(server, **more)


def response(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", "")
    return "\r\n".join(lines).encode() + body


@pytest.mark.parametrize("status", [200, 204, 299])
async def test_an_expected_status_passes(status: int) -> None:
    outcome = await outcome_of(respond_with(response(f"{status} Fine")))
    assert (outcome.result, outcome.note) == (PASS, f"answered {status}")


async def test_the_expected_statuses_are_those_of_the_check() -> None:
    expect = ((200, 204), (401, 401))
    assert (await outcome_of(respond_with(response("401 No")), expect=expect)).result is PASS
    assert (await outcome_of(respond_with(response("205 No")), expect=expect)).result is FAIL


async def test_an_unexpected_status_fails_with_the_beginning_of_the_body() -> None:
    outcome = await outcome_of(respond_with(response("503 No", b"no database\r\n\tat all\x00\x1b[31m")))
    assert (outcome.result, outcome.note) == (FAIL, "answered 503: no database at all [31m")


async def test_the_note_quotes_nothing_unless_excerpts_are_on() -> None:
    async with serving(respond_with(response("200 OK", b"secret"))) as server:
        outcome = await HttpProbe(AddressPolicy()).probe(
            instance(server.port), check(CheckKind.HTTP, expect=((599, 599),))
        )
    assert (outcome.result, outcome.note) == (FAIL, "answered 200")


async def test_the_note_keeps_only_the_beginning_of_a_long_body() -> None:
    outcome = await outcome_of(respond_with(response("500 No", "ö".encode() * 5000)))
    assert outcome.result is FAIL
    assert len(outcome.note) <= MAX_EXCERPT_CHARS + len("answered 500: ")


async def test_too_many_requests_is_a_warning_unless_it_is_expected() -> None:
    outcome = await outcome_of(respond_with(response("429 Slow down", b"busy")))
    assert (outcome.result, outcome.note) == (WARN, "answered 429: busy")
    assert (await outcome_of(respond_with(response("429 Slow down")), expect=((429, 429),))).result is PASS


async def test_a_redirect_is_an_unexpected_status_and_is_not_followed() -> None:
    async with serving(silent) as elsewhere, serving(silent) as server:
        location = f"Location: http://{HERE}:{elsewhere.port}/"
        server.talk = respond_with(response("302 Found", b"", location))
        outcome = await probed(server)
        assert (outcome.result, outcome.note) == (FAIL, "answered 302 (redirects are not followed)")
        assert (await probed(server, expect=((200, 399),))).result is PASS
        assert not elsewhere.connections


async def test_the_request_has_the_method_path_and_headers_of_the_check() -> None:
    async with serving(respond_with(response("200 OK"))) as server:
        await probed(server, path="/deep?full=1", headers={"X-Check": "yes", "Authorization": "Basic abc"})
        assert server.request == (
            f"GET /deep?full=1 HTTP/1.1\r\nHost: {HERE}:{server.port}\r\nUser-Agent: adsum-check/{__version__}\r\n"
            "Accept: */*\r\nX-Check: yes\r\nAuthorization: Basic abc\r\nConnection: close\r\n\r\n"
        )


async def test_headers_of_the_check_replace_the_default_headers() -> None:
    async with serving(respond_with(response("200 OK"))) as server:
        await probed(server, headers={"host": "orders.test", "USER-AGENT": "me"})
        assert "host: orders.test\r\n" in server.request
        assert "USER-AGENT: me\r\n" in server.request
        assert server.request.lower().count("host:") == server.request.lower().count("user-agent:") == 1


async def test_a_post_declares_an_empty_body() -> None:
    async with serving(respond_with(response("200 OK"))) as server:
        await probed(server, method="POST")
        assert server.request.startswith("POST / HTTP/1.1\r\n")
        assert "Content-Length: 0\r\n" in server.request


async def test_the_answer_to_head_has_no_body_whatever_its_headers_declare() -> None:
    async def talk(connection: ProbeConnection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        await connection.wait_closed()

    assert (await outcome_of(talk, method="HEAD")).result is PASS


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more than declared",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nx",
    ],
)
async def test_an_answer_ends_with_its_framing_on_an_open_connection(answer: bytes) -> None:
    async def talk(connection: ProbeConnection) -> None:
        await connection.read_request()
        await connection.send(answer)
        await connection.wait_closed()

    assert (await outcome_of(talk, expect=((100, 399),))).result is PASS


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\nuntil I hang up", b"HTTP/1.0 200 OK\r\n\r\n"])
async def test_an_answer_without_a_length_ends_with_the_connection(answer: bytes) -> None:
    assert (await outcome_of(respond_with(answer))).result is PASS


async def test_interim_answers_are_skipped() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    assert (await outcome_of(respond_with(interim, interim, response("200 OK")))).note == "answered 200"
    assert (await outcome_of(respond_with(interim))).result is FAIL


async def test_an_answer_in_single_bytes_is_parsed() -> None:
    answer = response("200 OK", b"fine")
    assert (await outcome_of(respond_with(*(answer[n : n + 1] for n in range(len(answer)))))).result is PASS


@pytest.mark.parametrize(
    "broken",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a length\r\n",
    ],
)
async def test_an_incomplete_answer_fails_with_its_status(broken: bytes) -> None:
    outcome = await outcome_of(respond_with(broken))
    assert outcome.result is FAIL
    assert outcome.note.startswith("answered 200, but ")


async def test_a_server_that_closes_without_an_answer_fails() -> None:
    async with serving(respond_with()) as server:
        outcome = await probed(server)
        assert (outcome.result, outcome.note) == (FAIL, f"connection closed by {HERE}:{server.port}")


@pytest.mark.parametrize(
    "garbage", [b"\x00\xff" * 100, b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/2.0 \r\n\r\n", b"200 OK\r\n"]
)
async def test_a_server_of_another_protocol_fails(garbage: bytes) -> None:
    async with serving(respond_with(garbage)) as server:
        outcome = await probed(server)
        assert outcome.result is FAIL
        assert outcome.note.startswith(f"{HERE}:{server.port} doesn't speak HTTP: ")


async def test_an_endless_body_is_read_up_to_the_bound_and_the_status_decides() -> None:
    sent = 0

    async def talk(connection: ProbeConnection) -> None:
        nonlocal sent
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await connection.send(b"x" * 65_536)
            sent += 65_536

    assert (await outcome_of(talk)).note == "answered 200"
    assert sent < 100 * MAX_RESPONSE_BYTES


@pytest.mark.parametrize("endless", [b"X-More: and more\r\n", b"x" * 1000])
async def test_endless_headers_fail_at_the_bound(endless: bytes) -> None:
    async def talk(connection: ProbeConnection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nX-First: ")
        while True:
            await connection.send(endless * 100)

    async with serving(talk) as server:
        outcome = await probed(server)
        assert outcome.result is FAIL
        assert outcome.note == f"{HERE}:{server.port} sent {MAX_RESPONSE_BYTES} bytes without an answer"


async def test_endless_interim_answers_fail_at_the_bound() -> None:
    async def talk(connection: ProbeConnection) -> None:
        await connection.read_request()
        while True:
            await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)

    assert (await outcome_of(talk)).result is FAIL


@pytest.mark.parametrize(
    ("begin", "note"),
    [
        (b"", "no answer within 0.3 s"),
        (b"HTTP/1.1 200 OK\r\n", "no answer within 0.3 s"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "answered 200, but the answer did not end within 0.3 s"),
    ],
)
async def test_a_slow_drip_fails_in_time(begin: bytes, note: str) -> None:
    async def talk(connection: ProbeConnection) -> None:
        await connection.read_request()
        await connection.send(begin)
        while True:
            await connection.send(b"H")
            await asyncio.sleep(10.0 if not begin else 0.01)

    async def talk_until_closed(connection: ProbeConnection) -> None:
        drip = asyncio.create_task(talk(connection))
        await asyncio.wait([drip, asyncio.create_task(connection.wait_closed())], return_when=asyncio.FIRST_COMPLETED)
        drip.cancel()
        await asyncio.wait([drip])

    outcome = await outcome_of(talk_until_closed, timeout=0.3)
    assert (outcome.result, outcome.note) == (FAIL, note)


async def test_tls_is_used_if_the_instance_or_the_check_declares_it() -> None:
    async with serving(respond_with(response("200 OK")), tls=True) as server:
        assert (await probed(server, scheme="https")).result is PASS
        assert (await probed(server, tls=True)).result is PASS
        assert (await probed(server)).result is FAIL
        assert set(server.server_names) == {None}


async def test_the_scheme_does_not_apply_to_another_port() -> None:
    async with serving(respond_with(response("200 OK"))) as server:
        target = instance(1, scheme="https")
        outcome = await HttpProbe(AddressPolicy()).probe(target, check(CheckKind.HTTP, port=server.port))
        assert outcome.result is PASS


async def test_host_and_server_name_are_the_name_while_the_connection_goes_to_its_address() -> None:
    async with serving(respond_with(response("200 OK")), tls=True) as server:
        target = instance(server.port, "localhost.", "https")
        assert (await HttpProbe(AddressPolicy(denied=("::1",))).probe(target, check(CheckKind.HTTP))).result is PASS
        assert server.server_names == ["localhost"]
        assert f"Host: localhost:{server.port}\r\n" in server.request


async def test_a_server_without_tls_fails_with_a_description() -> None:
    async def talk(connection: ProbeConnection) -> None:
        await connection.send(response("400 Bad Request"))
        await connection.wait_closed()

    async with serving(talk) as server:
        outcome = await probed(server, tls=True)
        assert outcome.result is FAIL
        assert outcome.note.startswith(f"TLS failed with {HERE}:{server.port}: ")


async def test_a_server_that_hangs_in_the_tls_handshake_fails_in_time() -> None:
    outcome = await outcome_of(silent, tls=True, timeout=0.3)
    assert (outcome.result, outcome.note) == (FAIL, "no answer within 0.3 s")


PIECES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 503 No\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            b"HTTP/1.0 999 \r\n",
            b"HTTP/9.9 000 \r\n",
            b"Content-Length: 5\r\n",
            b"Content-Length: 99999999999999999999999\r\n",
            b"Content-Length: -1\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: close\r\n",
            b" folded\r\n",
            b"\r\n",
            b"hello",
            b"5\r\nhello\r\n",
            b"0\r\n\r\n",
            b"ffffffffffffffffffff\r\n",
            b"x" * 70_000,
            "ä\u2028ö\ud83d".encode(errors="replace"),
        ]
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, max_size=12), st.sampled_from(["GET", "HEAD", "POST"]))
def test_any_answer_of_a_server_has_an_outcome(pieces: list[bytes], method: str) -> None:
    outcome = asyncio.run(outcome_of(respond_with(*pieces), method=method))
    assert isinstance(outcome, Outcome)
    assert outcome.note.isprintable()
    assert 0 < len(outcome.note) <= MAX_VALUE_LENGTH
    assert "the probe itself failed" not in outcome.note
