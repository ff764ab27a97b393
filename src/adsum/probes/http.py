"""The HTTP probe: one request, judged by its status. It follows no redirect and reads no more than it must.

The parser is llhttp (by httptools); around it is no client library, because thousands of checks share one node.
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
"""How many bytes of an answer are read, head and body. Past it the status is judged, if there is one by then."""
MAX_EXCERPT_CHARS: Final = 200
"""How many characters of the body of an unexpected answer become part of the note, where excerpts are wanted. By
default none do: whoever may register could otherwise read what only the registry's host may ask for."""
TOO_MANY_REQUESTS: Final = 429
"""The instance lives but asks for less: a warning, unless the check expects this status (as in Consul)."""
SWITCHING_PROTOCOLS: Final = 101

_DEFAULT_HEADERS: Final = {"User-Agent": f"adsum-check/{__version__}", "Accept": "*/*"}


class HttpProbe:
    """Implements `ports.Probe`. Certificates of https are not verified (see `dialing`)."""

    def __init__(self, address_policy: AddressPolicy, *, excerpts: bool = False) -> None:
        self._fence = address_policy
        self._excerpts = excerpts

    async def probe(self, instance: Instance, check: Check) -> Outcome:
        """See `ports.Probe`. An answer that doesn't end within the timeout is none."""
        where = probe_target(instance, check)
        exchange = _Exchange(where.authority, _request(where, check), bodiless=check.method == "HEAD")
        return await probe_outcome(check, lambda: self._verdict(where, exchange, check), exchange.so_far)

    async def close(self) -> None:
        """Nothing is kept between probes."""

    async def _verdict(self, where: ProbeTarget, exchange: _Exchange, check: Check) -> tuple[Result, str]:
        transport, _ = await dial(where, self._fence, lambda: exchange)
        try:
            await exchange.ended
        finally:
            transport.abort()
        status = exchange.status
        if status is None:
            return Result.FAIL, exchange.trouble
        if not any(low <= status <= high for low, high in check.expect):
            return _unexpected(status, exchange.excerpt if self._excerpts else b"")
        if exchange.trouble:
            return Result.FAIL, f"answered {status}, but {exchange.trouble}"
        return Result.PASS, f"answered {status}"


def _unexpected(status: int, excerpt: bytes) -> tuple[Result, str]:
    text = one_line(excerpt.decode(errors="replace"), MAX_EXCERPT_CHARS)
    remark = " (redirects are not followed)" if 300 <= status <= 399 else ""
    note = f"answered {status}{remark}" + (f": {text}" if text else "")
    return Result.WARN if status == TOO_MANY_REQUESTS else Result.FAIL, note


def _request(where: ProbeTarget, check: Check) -> bytes:
    """Values are free of line breaks by the model's rules."""
    headers = {"Host": where.authority, **_DEFAULT_HEADERS}
    given = {name.lower() for name in check.headers}
    lines = [f"{check.method} {check.path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items() if name.lower() not in given]
    lines += [f"{name}: {value}" for name, value in check.headers.items()]
    lines += ["Content-Length: 0"] if check.method == "POST" else []
    return "\r\n".join((*lines, "Connection: close", "", "")).encode("ascii")


class _Exchange(asyncio.Protocol):
    """Sends one request and hears the answer until it has `ended`: it is over, long enough, or in `trouble`."""

    def __init__(self, where: str, request: bytes, *, bodiless: bool) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.status: int | None = None
        self.excerpt = b""
        self.trouble = ""
        self._where = where
        self._request = request
        self._bodiless = bodiless
        self._parser = HttpResponseParser(self)
        self._left = MAX_RESPONSE_BYTES
        self._framed = False

    def so_far(self) -> str:
        """What there is to say if it ends here."""
        return "no answer" if self.status is None else f"answered {self.status}, but not to the end"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.WriteTransport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.ended.done():
            return
        data = data[: self._left]
        self._left -= len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._end()
        except HttpParserError as error:
            self._end(f"{self._where} doesn't speak HTTP: {error}")
        if not self._left:
            self._end("" if self.status else f"{self._where} sent {MAX_RESPONSE_BYTES} bytes without an answer")

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, OSError):
            self._end(describe_error(exc, self._where))
        elif self._framed or self.status is None:
            self._end(f"connection closed by {self._where}")
        self._end()

    # What the parser hears.

    def on_message_begin(self) -> None:
        self._framed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Without one of these the end of the connection is the end of the answer (RFC 9112, 6.3)."""
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        """Interim answers (1xx) announce the one that counts; after 101 no HTTP follows, so it is one that counts."""
        status = self._parser.get_status_code()
        if not 100 <= status <= 199 or status == SWITCHING_PROTOCOLS:
            self.status = status
            if self._bodiless:
                self._end()

    def on_body(self, body: bytes) -> None:
        if len(self.excerpt) < MAX_EXCERPT_CHARS:
            self.excerpt += body[:MAX_EXCERPT_CHARS]

    def on_message_complete(self) -> None:
        if self.status is not None:
            self._end()

    def _end(self, trouble: str = "") -> None:
        if not self.ended.done():
            self.trouble = trouble
            self.ended.set_result(None)
