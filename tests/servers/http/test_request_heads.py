"""Header blocks that a connection remembers mean the same to the parser and to the strict grammar."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adsum.servers.http.request_heads import (
    BRIEF_METHODS,
    END_OF_HEAD,
    MAX_BRIEF_BODY_BYTES,
    MAX_BRIEF_TARGET_BYTES,
    MAX_REMEMBERED_BLOCK_BYTES,
    REQUEST_LINE,
    body_size,
)

HOST = b"host: localhost\r\n"


class ParsedRequests:
    """What httptools reads in some bytes: whole requests, and whether it refuses them."""

    def __init__(self, data: bytes) -> None:
        self.requests: list[tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]] = []
        self.heads: list[tuple[list[tuple[bytes, bytes]], bool]] = []
        """Each head that is complete: its headers, and whether the connection goes on after the request."""
        self.is_refused = False
        self._parser = httptools.HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.is_refused = True

    def on_message_begin(self) -> None:
        self.target, self.headers, self.body = b"", list[tuple[bytes, bytes]](), b""

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        is_plain = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        self.heads.append((self.headers, is_plain))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.requests.append((self._parser.get_method(), self.target, self.headers, self.body))


def _judge(block: bytes, method: bytes = b"POST") -> int | None:
    """Returns the size of the body after a block that the parser accepts; None if it is not remembered."""
    parsed = ParsedRequests(method + b" /x HTTP/1.1\r\n" + block + b"x" * MAX_BRIEF_BODY_BYTES)
    if not parsed.heads or not parsed.heads[0][1]:
        return None
    return body_size(block, parsed.heads[0][0])


@pytest.mark.parametrize(
    ("block", "size"),
    [
        (HOST + b"\r\n", 0),
        (b"Host:localhost\r\nContent-Length: 12\r\n\r\n", 12),
        (HOST + b"content-length: 0\r\naccept: */*\r\nconnection: Keep-Alive\r\nx-empty: \r\n\r\n", 0),
        (HOST + b"content-length: %d\r\n\r\n" % MAX_BRIEF_BODY_BYTES, MAX_BRIEF_BODY_BYTES),
        (HOST + b"authorization: Bearer adsum_1_2\r\nuser-agent: a (b; c) d/1\r\n\r\n", 0),
    ],
)
def test_a_plain_block_is_remembered_with_the_size_of_its_body(block: bytes, size: int) -> None:
    assert _judge(block) == size


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        HOST + HOST,
        HOST + b"Host: elsewhere\r\n",
        HOST + b"content-length: 1\r\ncontent-length: 1\r\n",
        HOST + b"content-length: 1\r\nContent-Length: 2\r\n",
        HOST + b"content-length: 01\r\n",
        HOST + b"content-length: +1\r\n",
        HOST + b"content-length: 1, 1\r\n",
        HOST + b"content-length: %d\r\n" % (MAX_BRIEF_BODY_BYTES + 1),
        HOST + b"content-length: 18446744073709551616\r\n",
        HOST + b"content-length:\r\n",
        HOST + b"transfer-encoding: chunked\r\n",
        HOST + b"transfer-encoding: chunked\r\ncontent-length: 1\r\n",
        HOST + b"transfer-encoding: identity\r\n",
        HOST + b"connection: close\r\n",
        HOST + b"connection: upgrade\r\nupgrade: h2c\r\n",
        HOST + b"upgrade: websocket\r\n",
        HOST + b"expect: 100-continue\r\n",
        HOST + b"te: trailers\r\n",
        HOST + b"trailer: x\r\n",
        HOST + b"keep-alive: timeout=5\r\n",
        HOST + b"proxy-connection: keep-alive\r\n",
        HOST + b"x: a\r\n b\r\n",
        HOST + b" x: a\r\n",
        HOST + b"x : a\r\n",
        HOST + b"x: a\n",
        HOST + b"x: a\r",
        HOST + b"x: a\x00b\r\n",
        HOST + b"x: a\x7fb\r\n",
        HOST + b"x: \xe4\r\n",
        HOST + b"x: a \r\n",
        HOST + b"x:  a\r\n",
        HOST + b"x\r\n",
        HOST + b": a\r\n",
        HOST + b"x: a\r\n\r\ny: b\r\n",
        HOST + b"x: " + b"a" * MAX_REMEMBERED_BLOCK_BYTES + b"\r\n",
    ],
)
def test_a_block_that_changes_how_requests_are_read_or_is_written_unusually_is_not_remembered(lines: bytes) -> None:
    assert _judge(lines + b"\r\n") is None


def test_a_block_must_have_the_headers_that_the_parser_has_read() -> None:
    assert body_size(HOST + b"\r\n", [(b"host", b"localhost")]) == 0
    assert body_size(HOST + b"\r\n", [(b"host", b"elsewhere")]) is None
    assert body_size(HOST + b"\r\n", []) is None
    assert body_size(b"\r\n", []) is None


def test_a_block_with_two_lengths_is_not_remembered_even_if_a_parser_accepts_it() -> None:
    length = (b"content-length", b"1")
    block = HOST + b"content-length: 1\r\n" * 2 + b"\r\n"
    assert body_size(block, [(b"host", b"localhost"), length, length]) is None


@pytest.mark.parametrize(
    "line",
    [
        b"HEAD / HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"CONNECT /x HTTP/1.1\r\n",
        b"get / HTTP/1.1\r\n",
        b" GET / HTTP/1.1\r\n",
        b"\r\nGET / HTTP/1.1\r\n",
        b"GET  / HTTP/1.1\r\n",
        b"GET /  HTTP/1.1\r\n",
        b"GET\t/ HTTP/1.1\r\n",
        b"GET / HTTP/1.0\r\n",
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1 \r\n",
        b"GET / http/1.1\r\n",
        b"GET x HTTP/1.1\r\n",
        b"GET http://x/ HTTP/1.1\r\n",
        b"GET /# HTTP/1.1\r\n",
        b"GET /\xe4 HTTP/1.1\r\n",
        b"GET /\x00 HTTP/1.1\r\n",
        b'GET /" HTTP/1.1\r\n',
        b"GET /\\ HTTP/1.1\r\n",
        b"GET /{} HTTP/1.1\r\n",
        b"GET /" + b"x" * (MAX_BRIEF_TARGET_BYTES + 1) + b" HTTP/1.1\r\n",
    ],
)
def test_an_unusual_request_line_is_not_recognized(line: bytes) -> None:
    assert REQUEST_LINE.match(line) is None


PLAIN_LINES = st.sampled_from(
    [b"x: y\r\n", b"Accept:*/*\r\n", b"connection: keep-alive\r\n", b"x-y: \r\n", b"content-length: 3\r\n"]
)
ODD_LINES = st.builds(
    lambda name, colon, value, end: name + colon + value + end,
    st.sampled_from(
        [b"host", b"Content-Length", b"transfer-encoding", b"connection", b"upgrade", b"expect", b"te", b"x"]
    ),
    st.sampled_from([b": ", b":", b":  ", b" : ", b":\t"]),
    st.sampled_from(
        [b"0", b"3", b"03", b"3 ", b"-1", b"3,3", b"chunked", b"close", b"keep-alive", b"a\r\n b", b"\xe4"]
    ),
    st.sampled_from([b"\r\n", b"\r\n", b"\n", b"\r"]),
)
TARGETS = st.one_of(st.sampled_from([b"/", b"//x?y=%zz", b"/a;b=c&d"]), st.from_regex(rb"/[!-~]{0,12}", fullmatch=True))
REQUESTS = st.builds(
    lambda method, target, lines: method + b" " + target + b" HTTP/1.1\r\n" + HOST + b"".join(lines) + b"\r\n",
    st.sampled_from([*BRIEF_METHODS, b"HEAD", b"PATCH"]),
    TARGETS,
    st.one_of(st.lists(PLAIN_LINES, max_size=3), st.lists(st.one_of(PLAIN_LINES, ODD_LINES), max_size=4)),
)
"""Heads of requests, most of them plain."""


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Returns a head in which a few bytes are inserted, removed or replaced."""
    head: bytes = draw(REQUESTS)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(head)))
        odd = draw(
            st.sampled_from([b"", b"\r", b"\n", b"\r\n", b" ", b"\t", b"\x00", b":", b"\xff", b"H", b"0", b",", b";"])
        )
        head = head[:at] + odd + head[at + draw(st.integers(0, 1)) :]
    return head


@given(mutated(), mutated(), st.binary(max_size=6))
@settings(max_examples=1_000, deadline=None)
@example(b"PUT /x HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n" + HOST + b"content-length: 3\r\n\r\n", b"abc")
def test_what_is_recognized_means_the_same_to_the_parser(line: bytes, head: bytes, body: bytes) -> None:
    """A remembered block behind any recognized request line is one request for the parser, with the same parts."""
    first, found = REQUEST_LINE.match(head), REQUEST_LINE.match(line)
    if first is None or found is None:
        return
    end = head.find(END_OF_HEAD, first.end()) + len(END_OF_HEAD)
    block = head[first.end() : end]
    judged = ParsedRequests(head[: first.end()] + block)
    size = body_size(block, judged.heads[0][0]) if judged.heads and judged.heads[0][1] else None
    if size is None:
        return
    body = (body + b"abc")[:size].ljust(size, b"z")
    parsed = ParsedRequests(found[0] + block + body)
    assert not parsed.is_refused
    ((method, target, headers, parsed_body),) = parsed.requests
    assert (method, target, parsed_body) == (found[1], found[2], body)
    assert parsed.heads == judged.heads == [(headers, True)]
