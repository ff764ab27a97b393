"""The HTTP probe: sends one request and judges the status of the answer.

It follows no redirect and reads only as much as it needs. It uses the parser llhttp (by httptools) without a client
library, because one node runs thousands of checks.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from adsum.core.address_policy import AddressPolicy
from adsum.core.model import Check, Instance, Outcome, Result
from adsum.probes.connection import ProbeTarget, describe_error, dial, one_line, probe_outcome, probe_target
from adsum.version import __version__

MAX_RESPONSE_BYTES: Final = 65_536
"""Bytes of an answer that are read, head and body. Past it the probe judges the status, and fails without one."""
MAX_EXCERPT_CHARS: Final = 200
"""Characters of an unexpected answer's body in the note, if excerpts are on.

They are off by default: a client that may register instances could otherwise read what only the registry's host can
reach."""
TOO_MANY_REQUESTS: Final = 429
"""The instance is alive but overloaded: a warning, unless the check expects this status. Consul does the same."""
SWITCHING_PROTOCOLS: Final = 101

_DEFAULT_HEADERS: Final = {"User-Agent": f"adsum-check/{__version__}", "Accept": "*/*"}


class HttpProbe:
    """Implements `ports.Probe`. It does not verify certificates: see `connection`."""

    def __init__(self, address_policy: AddressPolicy, *, excerpts: bool = False) -> None:
        self._address_policy = address_policy
        self._excerpts = excerpts

    async def probe(self, instance: Instance, check: Check) -> Outcome:
        """Implements `ports.Probe`. An answer that does not end within the timeout is a fail."""
        target = probe_target(instance, check)
        exchange = _Exchange(target.authority, _request(target, check), is_head=check.method == "HEAD")
        return await probe_outcome(check, lambda: self._verdict(target, exchange, check), exchange.progress_note)

    async def close(self) -> None:
        """Does nothing: no connection outlives its probe."""

    async def _verdict(self, target: ProbeTarget, exchange: _Exchange, check: Check) -> tuple[Result, str]:
        transport, _ = await dial(target, self._address_policy, lambda: exchange)
        try:
            await exchange.ended
        finally:
            transport.abort()
        status = exchange.status
        if status is None:
            return Result.FAIL, exchange.problem
        if not any(low <= status <= high for low, high in check.expect):
            return _unexpected(status, exchange.excerpt if self._excerpts else b"")
        if exchange.problem:
            return Result.FAIL, f"answered {status}, but {exchange.problem}"
        return Result.PASS, f"answered {status}"


def _unexpected(status: int, excerpt: bytes) -> tuple[Result, str]:
    text = one_line(excerpt.decode(errors="replace"), MAX_EXCERPT_CHARS)
    remark = " (redirects are not followed)" if 300 <= status <= 399 else ""
    note = f"answered {status}{remark}" + (f": {text}" if text else "")
    return Result.WARN if status == TOO_MANY_REQUESTS else Result.FAIL, note


def _request(target: ProbeTarget, check: Check) -> bytes:
    """Returns the request. The model's rules exclude line breaks in its values."""
    headers = {"Host": target.authority, **_DEFAULT_HEADERS}
    given = {name.lower() for name in check.headers}
    lines = [f"{check.method} {check.path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items() if name.lower() not in given]
    lines += [f"{name}: {value}" for name, value in check.headers.items()]
    lines += ["Content-Length: 0"] if check.method == "POST" else []
    return "\r\n".join((*lines, "Connection: close", "", "")).encode("ascii")


class _Exchange(asyncio.Protocol):
    """Sends one request and reads the answer until it is complete, too long, or there is a `problem`."""

    def __init__(self, peer: str, request: bytes, *, is_head: bool) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.status: int | None = None
        self.excerpt = b""
        self.problem = ""
        self._peer = peer
        self._request = request
        self._is_head = is_head
        self._parser = HttpResponseParser(self)
        self._bytes_left = MAX_RESPONSE_BYTES
        self._is_framed = False

    def progress_note(self) -> str:
        """Returns a description of the answer so far, for the note after a timeout."""
        return "no answer" if self.status is None else f"answered {self.status}, but the answer did not end"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.WriteTransport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.ended.done():
            return
        data = data[: self._bytes_left]
        self._bytes_left -= len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._end()
        except HttpParserError as error:
            self._end(f"{self._peer} doesn't speak HTTP: {error}")
        if not self._bytes_left:
            self._end("" if self.status else f"{self._peer} sent {MAX_RESPONSE_BYTES} bytes without an answer")

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, OSError):
            self._end(describe_error(exc, self._peer))
        elif self._is_framed or self.status is None:
            self._end(f"connection closed by {self._peer}")
        self._end()

    # The following are callbacks of the parser.

    def on_message_begin(self) -> None:
        self._is_framed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Records whether the answer is framed. If not, it ends with the connection (RFC 9112, 6.3)."""
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._is_framed = True

    def on_headers_complete(self) -> None:
        """Records the status. Interim answers (1xx) are skipped, except 101, after which no HTTP follows."""
        status = self._parser.get_status_code()
        if not 100 <= status <= 199 or status == SWITCHING_PROTOCOLS:
            self.status = status
            if self._is_head:
                self._end()

    def on_body(self, body: bytes) -> None:
        if len(self.excerpt) < MAX_EXCERPT_CHARS:
            self.excerpt += body[:MAX_EXCERPT_CHARS]

    def on_message_complete(self) -> None:
        if self.status is not None:
            self._end()

    def _end(self, problem: str = "") -> None:
        if not self.ended.done():
            self.problem = problem
            self.ended.set_result(None)
