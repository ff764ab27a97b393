"""A network backend of httpcore that closes a connection whose TLS hand-shake is cancelled.

httpcore 1.0 closes it after an error only. A request that is given up would leave it open until it is collected.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

import httpcore


class ClosingBackend(httpcore.AnyIOBackend):
    """The usual backend for asyncio, whose connections close themselves if their hand-shake does not end."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return ClosingStream(await super().connect_tcp(host, port, timeout, local_address, socket_options))


class ClosingStream(httpcore.AsyncNetworkStream):
    """A connection before its hand-shake."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            return await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            await self._stream.aclose()
            raise

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
