"""Generates requests at a steady rate: by name through the client library, and at the gateway."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Final

import httpx
import msgspec

from adsum.client.calls.options import CallOptions, ChannelOptions
from adsum.client.client import Client
from adsum.core.errors import AdsumError
from adsum.demo.scoreboard import Scoreboard
from adsum.integrations.httpx import AsyncAdsumTransport

CLIENT_RATE: Final = 50.0
"""Calls by name a second."""
GATEWAY_RATE: Final = 25.0
"""Calls to the gateway a second."""
DEADLINE: Final = 15.0
"""Seconds that a call may take with all its retries; long enough for a busy machine."""
TRY_TIMEOUT: Final = 5.0
"""Seconds that one try may take; then another instance is tried."""
MAX_IN_FLIGHT: Final = 200
"""The most calls at the same time; further calls are skipped until one ends."""
SERVICES: Final = ("orders", "orders", "users")
"""The services that are called, in turns."""


class DemoReply(msgspec.Struct):
    """The response of an instance of the demo."""

    service: str
    instance: str


class CountingTransport(httpx.AsyncHTTPTransport):
    """A transport that counts every request it sends, retries included."""

    def __init__(self, board: Scoreboard) -> None:
        super().__init__(verify=False)
        self._board = board

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._board.tries += 1
        return await super().handle_async_request(request)


class TrafficGenerator:
    """Sends requests at a steady rate until cancelled."""

    def __init__(
        self, http: httpx.AsyncClient, url: str, rate: float, board: Scoreboard, *, through_gateway: int = 0
    ) -> None:
        self._http = http
        self._url = url
        self._rate = rate
        self._board = board
        self._through_gateway = through_gateway
        self._calls: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Send requests at a steady rate; when cancelled, wait for the responses that are due, and end."""
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        try:
            for name in itertools.cycle(SERVICES):
                if len(self._calls) < MAX_IN_FLIGHT:
                    call = asyncio.create_task(self._call(self._url.format(name)))
                    self._calls.add(call)
                    call.add_done_callback(self._calls.discard)
                next_at = max(next_at + 1.0 / self._rate, loop.time() - 1.0)
                await asyncio.sleep(max(0.0, next_at - loop.time()))
        finally:
            await asyncio.gather(*self._calls, return_exceptions=True)
            await self._http.aclose()

    async def _call(self, url: str) -> None:
        board, started_at = self._board, time.monotonic()
        board.sent += 1
        board.sent_through_gateway += self._through_gateway
        try:
            response = await self._http.get(url)
            response.raise_for_status()
            reply = msgspec.json.decode(response.content, type=DemoReply)
        except (AdsumError, httpx.HTTPError, msgspec.MsgspecError) as error:
            board.call_failed(f"{url}: {error or type(error).__name__}")
        else:
            board.call_answered(f"{reply.service}/{reply.instance}", time.monotonic() - started_at)


def client_traffic(client: Client, board: Scoreboard) -> TrafficGenerator:
    """Returns traffic to http://orders and http://users through the client library."""
    calls = CallOptions(tries=5, try_timeout=TRY_TIMEOUT, deadline=DEADLINE)
    transport = AsyncAdsumTransport(client, CountingTransport(board), channel=ChannelOptions(calls=calls))
    return TrafficGenerator(httpx.AsyncClient(transport=transport, timeout=DEADLINE), "http://{}/", CLIENT_RATE, board)


def gateway_traffic(gateway: str, board: Scoreboard) -> TrafficGenerator:
    """Returns traffic to the same services at the gateway, from a program that does not use Adsum."""
    http = httpx.AsyncClient(timeout=DEADLINE, trust_env=False)
    return TrafficGenerator(http, gateway + "/{}/", GATEWAY_RATE, board, through_gateway=1)


async def gateway_is_ready(gateway: str) -> bool:
    """Returns whether the gateway forwards requests to all services."""
    async with httpx.AsyncClient(timeout=TRY_TIMEOUT, trust_env=False) as http:
        try:
            responses = [await http.get(f"{gateway}/{name}/") for name in dict.fromkeys(SERVICES)]
        except httpx.HTTPError:
            return False
    return all(response.is_success for response in responses)
