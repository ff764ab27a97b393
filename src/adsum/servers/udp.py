"""The UDP transport: one socket that passes its datagrams to a protocol of asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from adsum.core.errors import AdsumError


class UdpListenError(AdsumError):
    """The server can't listen on an address. The message is for the operator."""


class UdpServer:
    """Receives datagrams on one address from `start` to `stop`."""

    def __init__(self, protocol: Callable[[], asyncio.DatagramProtocol]) -> None:
        self._protocol = protocol
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self, address: str) -> str:
        """Binds to HOST:PORT and returns the bound HOST:PORT. Raises `UdpListenError`."""
        host, _, port = address.rpartition(":")
        where = host.removeprefix("[").removesuffix("]"), int(port)
        try:
            loop = asyncio.get_running_loop()
            self._transport, _ = await loop.create_datagram_endpoint(self._protocol, local_addr=where)
        except OSError as error:
            raise UdpListenError(f"can't listen on {address}: {error.strerror or error}") from None
        return f"{host}:{self._transport.get_extra_info('sockname')[1]}"

    async def stop(self) -> None:
        """Closes the socket; idempotent."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None
