"""The UDP transport: one socket that passes its datagrams to a protocol of asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from adsum.core.addresses import format_host_port, split_host_port
from adsum.core.errors import AdsumError


class UdpListenError(AdsumError):
    """The server can't listen on an address. The message is for the operator."""


class UdpServer:
    """Receives datagrams on one address from `start` to `stop`."""

    def __init__(self, protocol: Callable[[], asyncio.DatagramProtocol]) -> None:
        self._protocol = protocol
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self, address: str) -> str:
        """Binds to HOST:PORT. Returns the address with its port. Raises `UdpListenError`."""
        host, port = split_host_port(address)
        try:
            loop = asyncio.get_running_loop()
            self._transport, _ = await loop.create_datagram_endpoint(self._protocol, local_addr=(host, int(port)))
        except OSError as error:
            raise UdpListenError(f"can't listen on {address}: {error.strerror or error}") from None
        return format_host_port(host, self._transport.get_extra_info("sockname")[1])

    async def stop(self) -> None:
        """Closes the socket. Idempotent."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None
