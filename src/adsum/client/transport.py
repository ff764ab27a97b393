"""The one place that speaks HTTP: a thin wrapper over httpx, imported when a client starts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import httpx

from adsum.client.errors import Unreachable

CONNECT_TIMEOUT: Final = 3.0
"""Seconds to reach a registry node; then the next one is tried."""
CLOSE_BODY: Final = 65_536
"""Bytes of a refused stream's answer that are read for its reason."""


Params = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport:
    """Requests to registry nodes. Takes no proxies or credentials from the environment: registries are near."""

    def __init__(self, *, secure: bool) -> None:
        """`secure`: some node is asked over TLS, so trusted certificates are loaded (which takes a while)."""
        self._http = httpx.AsyncClient(
            verify=secure,
            trust_env=False,
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
        try:
            answer = await self._http.request(
                method,
                url,
                content=body,
                params=list(params),
                headers=headers,
                timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)),
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(_words(error)) from error
        return Reply(answer.status_code, answer.headers, answer.content)

    @asynccontextmanager
    async def stream(
        self, url: str, *, idle: float, params: Params, headers: Mapping[str, str]
    ) -> AsyncIterator[tuple[Reply, AsyncIterator[bytes]]]:
        """An endless answer, chunk by chunk. Raises `Unreachable`, also when nothing comes for `idle` seconds."""
        timeout = httpx.Timeout(idle, connect=CONNECT_TIMEOUT)
        try:
            async with self._http.stream("GET", url, params=list(params), headers=headers, timeout=timeout) as answer:
                body = b"" if answer.status_code == 200 else await _start_of(answer)
                yield Reply(answer.status_code, answer.headers, body), answer.aiter_raw()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(_words(error)) from error

    async def close(self) -> None:
        """Let go of every connection; idempotent."""
        await self._http.aclose()


async def _start_of(answer: httpx.Response) -> bytes:
    body = b""
    async for chunk in answer.aiter_raw():
        body += chunk
        if len(body) >= CLOSE_BODY:
            break
    return body


def _words(error: Exception) -> str:
    """Say what happened: httpx leaves some errors without words."""
    if isinstance(error, httpx.ConnectTimeout):
        return "it did not accept a connection in time"
    if isinstance(error, httpx.TimeoutException):
        return "it did not answer in time"
    return str(error) or type(error).__name__
