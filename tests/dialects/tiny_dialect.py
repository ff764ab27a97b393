"""A dialect as small as can be: it lists services in plain text, over HTTP, TCP and UDP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, Metric

from adsum import wire
from adsum.core.errors import Invalid
from adsum.dialects.dialect import Dialect, DialectContext
from adsum.mounts import HttpListener, HttpPath, Mount, TcpListener, UdpListener
from adsum.settings import OFF, setting


@dataclass(frozen=True)
class TinySettings:
    """Settings of `adsum serve` for the tiny dialect."""

    tiny: str = setting("HOST:PORT of the tiny dialect; port 0 picks a free port", metavar="HOST:PORT", default=OFF)

    def check_settings(self, store: str) -> None:
        """Raises `Invalid` if a value is wrong."""
        if self.tiny == "nowhere":
            raise Invalid("tiny", f"must not be nowhere, whatever the store is ({store})")

    def listener_addresses(self) -> dict[str, str]:
        """Returns the address of the listener by its setting."""
        return {} if self.tiny == OFF else {"tiny": self.tiny}


def create(context: DialectContext) -> TinyDialect | None:
    """Makes the dialect; None if it is off."""
    address = context.settings_of(TinySettings).tiny
    return None if address == OFF else TinyDialect(context, address)


class TinyDialect(Dialect):
    """Answers each request with the names of all services, separated by spaces."""

    def __init__(self, context: DialectContext, address: str) -> None:
        self._registry = context.registry
        self._address = address
        self._answers = 0
        self.events: list[str] = []

    def mounts(self) -> Sequence[Mount]:
        remedy = "choose another address with --tiny HOST:PORT"
        return [
            HttpPath("/tiny", self._serve_http),
            HttpListener(self._address, remedy, self._serve_http, max_connections=10),
            TcpListener(self._address, remedy, self._serve_tcp, max_connections=1),
            UdpListener(self._address, remedy, lambda: _TinyDatagrams(self._answer)),
        ]

    async def start(self) -> None:
        self.events.append(f"start, ready: {self._registry.is_ready}")

    async def catalog_loaded(self) -> None:
        self.events.append(f"loaded, ready: {self._registry.is_ready}")

    async def stop(self) -> None:
        self.events.append("stop")

    def reload(self, settings: object) -> None:
        self.events.append(f"reload, {type(settings).__name__}")

    def is_requested(self, service: str) -> bool:
        return service == "tiny"

    def metrics(self) -> Iterable[Metric]:
        yield CounterMetricFamily("adsum_tiny_answers", "Answers of the tiny dialect", value=self._answers)

    def node_status(self) -> Mapping[str, Any]:
        return {"traffic": [wire.TrafficView("orders", self._answers, 0, 0.0, 0.0)]}

    def _answer(self) -> bytes:
        self._answers += 1
        return " ".join(sorted(self._registry.snapshot.services)).encode()

    async def _serve_http(self, scope: Any, _receive: Any, send: Any) -> None:
        body = scope["raw_path"] + b": " + self._answer()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            writer.write(self._answer() + b"\n")


class _TinyDatagrams(asyncio.DatagramProtocol):
    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._transport.sendto(data + self._answer(), addr)
