"""The one place that speaks HTTP: a thin wrapper over httpx, imported when a client starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import httpx

from adsum.client.errors import Unreachable

CONNECT_TIMEOUT: Final = 3.0
"""Seconds to reach a registry node; then the next one is tried."""
HEAD_TIMEOUT: Final = 5.0
"""Seconds for the head of an endless answer to come; then the next node is tried."""
MAX_ANSWER: Final = 64 * 1024 * 1024
"""Bytes of an answer; a longer one is none. A service of 100,000 instances takes some 20 MB."""
MAX_REASON: Final = 65_536
"""Bytes of the answer that refuses a stream."""


Params = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport:
    """Requests to registry nodes.

    Speaks through httpx's transport, not its client: no redirects, cookies or proxies from the environment (registries
    are near), and no line in the log for each renewal.
    """

    def __init__(self, *, secure: bool) -> None:
        """`secure`: some node is asked over TLS, so trusted certificates are loaded (which takes a while)."""
        self._http = httpx.AsyncHTTPTransport(
            verify=secure,
            trust_env=secure,  # For SSL_CERT_FILE.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=8, keepalive_expiry=30.0),
        )

    async def ask(
        self,
        method: str,
        url: str,
        *,
        timeout: float,
        body: bytes | None = None,
        params: Params = (),
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Ask once. Raises `Unreachable` when no whole answer comes; nothing may wait longer than `timeout`."""
        request = _request(method, url, timeout, params, headers or {}, body)
        try:
            async with asyncio.timeout(timeout):
                answer = await self._http.handle_async_request(request)
                try:
                    return Reply(answer.status_code, answer.headers, await _read(answer, MAX_ANSWER))
                finally:
                    await answer.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise Unreachable(_words(error)) from error

    @asynccontextmanager
    async def stream(
        self, url: str, *, idle: float, params: Params, headers: Mapping[str, str]
    ) -> AsyncIterator[tuple[Reply, AsyncIterator[bytes]]]:
        """An endless answer, chunk by chunk. Raises `Unreachable`, also when nothing comes for `idle` seconds."""
        try:
            async with asyncio.timeout(HEAD_TIMEOUT):
                answer = await self._http.handle_async_request(_request("GET", url, idle, params, headers, None))
            try:
                body = b"" if answer.status_code == 200 else await _read(answer, MAX_REASON)
                yield Reply(answer.status_code, answer.headers, body), answer.aiter_raw()
            finally:
                await answer.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise Unreachable(_words(error)) from error

    async def close(self) -> None:
        """Let go of every connection; idempotent."""
        await self._http.aclose()


def _request(
    method: str, url: str, wait: float, params: Params, headers: Mapping[str, str], body: bytes | None
) -> httpx.Request:
    timeout = httpx.Timeout(wait, connect=min(wait, CONNECT_TIMEOUT)).as_dict()
    target = httpx.URL(url, params=list(params)) if params else httpx.URL(url)
    return httpx.Request(method, target, headers=headers, content=body, extensions={"timeout": timeout})


async def _read(answer: httpx.Response, most: int) -> bytes:
    """The body. Raises `Unreachable` if it is longer than `most` bytes."""
    parts, size = [], 0
    async for chunk in answer.aiter_raw():
        parts.append(chunk)
        size += len(chunk)
        if size > most:
            raise Unreachable(f"its answer is longer than {most} bytes")
    return b"".join(parts)


def _words(error: Exception) -> str:
    """Say what happened: httpx leaves some errors without words."""
    if isinstance(error, httpx.ConnectTimeout):
        return "it did not accept a connection in time"
    if isinstance(error, (httpx.TimeoutException, TimeoutError)):
        return "it did not answer in time"
    return str(error) or type(error).__name__
