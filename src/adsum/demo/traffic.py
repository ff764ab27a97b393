"""A caller at a steady rate: calls services by name, through the client library, whatever happens."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Final

import httpx
import msgspec

from adsum.client.calls import Kind
from adsum.client.channel import Channel
from adsum.client.client import Client
from adsum.client.options import CallOptions
from adsum.core.errors import AdsumError
from adsum.demo.board import Board

RATE: Final = 50.0
"""Calls a second."""
DEADLINE: Final = 15.0
"""Seconds that a call may take with all its retries; a machine that is busy otherwise may be slow."""
TRY_TIMEOUT: Final = 5.0
"""Seconds of one try; an instance that hangs is not waited for longer."""
MAX_IN_FLIGHT: Final = 200
"""Calls at a time; past it the caller waits instead of piling them up."""
SERVICES: Final = ("orders", "orders", "users")
"""Who is called, in turns."""


class Answer(msgspec.Struct):
    """What an instance of the demo answers."""

    service: str
    instance: str


class Traffic:
    """Calls until cancelled."""

    def __init__(self, client: Client, board: Board) -> None:
        options = CallOptions(tries=5, try_timeout=TRY_TIMEOUT, deadline=DEADLINE)
        self._channels = {name: client.channel(name, calls=options) for name in set(SERVICES)}
        self._board = board
        self._calls: set[asyncio.Task[None]] = set()
        self._http = httpx.AsyncHTTPTransport(verify=False)

    async def run(self) -> None:
        """Call at `RATE`; when cancelled, take the answers that are still due, and end."""
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        try:
            for name in itertools.cycle(SERVICES):
                if len(self._calls) < MAX_IN_FLIGHT:
                    call = asyncio.create_task(self._call(name))
                    self._calls.add(call)
                    call.add_done_callback(self._calls.discard)
                next_at = max(next_at + 1.0 / RATE, loop.time() - 1.0)
                await asyncio.sleep(max(0.0, next_at - loop.time()))
        finally:
            await asyncio.gather(*self._calls, return_exceptions=True)
            await self._http.aclose()

    async def _call(self, name: str) -> None:
        board, began = self._board, time.monotonic()
        board.sent += 1
        try:
            answer, tries = await self._get(self._channels[name])
        except (AdsumError, httpx.HTTPError, msgspec.MsgspecError) as error:
            board.call_failed(str(error))
        else:
            board.call_answered(f"{answer.service}/{answer.instance}", time.monotonic() - began, tries - 1)

    async def _get(self, channel: Channel) -> tuple[Answer, int]:
        """GET / of the service; how many tries it took."""
        call = channel.call(idempotent=True)
        while True:
            attempt = call.next_try()
            with attempt:
                await asyncio.sleep(attempt.pause)
                timeout = httpx.Timeout(attempt.timeout).as_dict()
                request = httpx.Request("GET", f"{attempt.endpoint.url}/", extensions={"timeout": timeout})
                try:
                    response = await self._http.handle_async_request(request)
                    body = await response.aread()
                except httpx.ConnectError as error:
                    attempt.failed(Kind.CONNECT, str(error))
                    continue
                except httpx.TransportError as error:
                    attempt.failed(Kind.BROKEN, str(error) or type(error).__name__)
                    continue
                if not attempt.answered(response.status_code):
                    attempt.finish()
                    if response.status_code != httpx.codes.OK:
                        raise httpx.HTTPError(f"{attempt.endpoint.id} answered {response.status_code}")
                    return msgspec.json.decode(body, type=Answer), attempt.number
